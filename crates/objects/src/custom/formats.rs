//! Formats of texts. Those that are not listed here mean nothing, as in Kubernetes.
//! Source: `k8s.io/kube-openapi/pkg/validation/strfmt`; `k8s.io/apiextensions-apiserver/pkg/apiserver/validation/formats.go`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::LazyLock;

use ipnet::IpNet;
use regex::Regex;

use crate::names;

/// Whether the format means anything, and if so, whether the text has it. Dashes in the name do not count.
pub(super) fn check(format: &str, text: &str) -> Option<bool> {
    let name = match format {
        "k8s-short-name" | "k8s-long-name" => format.to_owned(),
        other => other.replace('-', ""),
    };
    let matches = |expression: &LazyLock<Regex>| expression.is_match(text);
    Some(match name.as_str() {
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "uri" => is_uri(text),
        "email" => matches(&EMAIL),
        "hostname" => is_hostname(text),
        "ipv4" => Ipv4Addr::from_str(text).is_ok(),
        "ipv6" => text.contains(':') && Ipv6Addr::from_str(text).is_ok(),
        "cidr" => IpNet::from_str(text).is_ok(),
        "mac" => is_mac(text),
        "uuid" => matches(&UUID),
        "uuid3" => matches(&UUID3),
        "uuid4" => matches(&UUID4),
        "uuid5" => matches(&UUID5),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "creditcard" => is_credit_card(text),
        "ssn" => matches(&SSN),
        "hexcolor" => matches(&HEX_COLOR),
        "rgbcolor" => matches(&RGB_COLOR),
        "byte" => is_base64(text),
        "password" => true,
        "date" => is_date(text),
        "datetime" => is_date_time(text),
        "duration" => duration(text).is_some(),
        "k8s-short-name" => names::dns_label(text).is_empty(),
        "k8s-long-name" => names::dns_subdomain(text).is_empty(),
        _ => return None,
    })
}

macro_rules! expression {
    ($name:ident, $text:literal) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| {
            // Written here, and compiled by a test.
            #[allow(clippy::expect_used, clippy::unwrap_used)]
            Regex::new($text).expect("a regular expression")
        });
    };
}

expression!(
    EMAIL,
    r#"^[^\s<>()\[\]\\,;:@"]+(\.[^\s<>()\[\]\\,;:@"]+)*@[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$"#
);
expression!(
    UUID,
    r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"
);
expression!(
    UUID3,
    r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$"
);
expression!(
    UUID4,
    r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"
);
expression!(
    UUID5,
    r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"
);
expression!(SSN, r"^\d{3}[- ]?\d{2}[- ]?\d{4}$");
expression!(HEX_COLOR, r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$");
expression!(
    RGB_COLOR,
    r"^rgb\(\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*\)$"
);
expression!(
    CREDIT_CARD,
    r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\d{3})\d{11})$"
);
expression!(
    DATE_TIME,
    r"^(\d{4}-\d{2}-\d{2})[Tt](\d{2}:\d{2}:\d{2})(\.\d+)?([Zz]|[+-]\d{2}:?\d{2})$"
);
expression!(
    GO_DURATION,
    r"^[+-]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
);
expression!(
    SCALA_DURATION,
    r"^\s*(\d+)\s*(ns|nanos?|nanoseconds?|us|µs|micros?|microseconds?|ms|millis?|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|wks?|weeks?)\s*$"
);

/// What `net/url.ParseRequestURI` takes: an absolute path, or a scheme and something behind it.
fn is_uri(text: &str) -> bool {
    let plain = !text.is_empty() && text.bytes().all(|b| (0x21..0x7f).contains(&b) || b >= 0x80);
    let scheme = || {
        let (scheme, rest) = text.split_once(':')?;
        let mut bytes = scheme.bytes();
        let good = bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
            && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        // Go reads a text behind a scheme, whatever it is, as opaque.
        (good && !rest.is_empty()).then_some(())
    };
    plain && (text.starts_with('/') || scheme().is_some())
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        let bytes = label.as_bytes();
        (1..=63).contains(&bytes.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && bytes
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    let text = text.strip_suffix('.').unwrap_or(text);
    !text.is_empty() && text.len() <= 255 && text.split('.').all(label)
}

/// EUI-48, EUI-64 or 20 bytes of IP over InfiniBand, as Go's `net.ParseMAC` reads them.
fn is_mac(text: &str) -> bool {
    let groups = |separator: char, width: usize| {
        let parts: Vec<&str> = text.split(separator).collect();
        let good = |part: &&str| part.len() == width && part.bytes().all(|b| b.is_ascii_hexdigit());
        parts.iter().all(good).then_some(parts.len() * width / 2)
    };
    let bytes = groups(':', 2)
        .or_else(|| groups('-', 2))
        .or_else(|| groups('.', 4));
    matches!(bytes, Some(6 | 8 | 20))
}

fn digits(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, ' ' | '-')).collect()
}

fn is_isbn10(text: &str) -> bool {
    let text = digits(text);
    let value = |(i, b): (usize, u8)| match b {
        b'0'..=b'9' => Some(usize::from(b - b'0')),
        b'X' if i == 9 => Some(10),
        _ => None,
    };
    let values: Option<Vec<usize>> = text.bytes().enumerate().map(value).collect();
    values.is_some_and(|v| {
        v.len() == 10
            && v.iter()
                .enumerate()
                .map(|(i, v)| (i + 1) * v)
                .sum::<usize>()
                % 11
                == 0
    })
}

fn is_isbn13(text: &str) -> bool {
    let text = digits(text);
    text.len() == 13
        && text.bytes().all(|b| b.is_ascii_digit())
        && text
            .bytes()
            .enumerate()
            .map(|(i, b)| usize::from(b - b'0') * if i % 2 == 0 { 1 } else { 3 })
            .sum::<usize>()
            % 10
            == 0
}

fn is_credit_card(text: &str) -> bool {
    let number: String = text.chars().filter(char::is_ascii_digit).collect();
    let luhn: u32 = number
        .bytes()
        .rev()
        .enumerate()
        .map(|(i, b)| {
            let digit = u32::from(b - b'0') * (1 + i as u32 % 2);
            digit / 10 + digit % 10
        })
        .sum();
    CREDIT_CARD.is_match(&number) && luhn.is_multiple_of(10)
}

fn is_base64(text: &str) -> bool {
    let padding = text.bytes().rev().take_while(|b| *b == b'=').count();
    let body = &text.as_bytes()[..text.len() - padding];
    !text.is_empty()
        && text.len().is_multiple_of(4)
        && padding <= 2
        && body
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && jiff::civil::Date::from_str(text).is_ok()
}

fn is_date_time(text: &str) -> bool {
    let Some(parts) = DATE_TIME.captures(text) else {
        return false;
    };
    let part = |i: usize| parts.get(i).map_or("", |m| m.as_str());
    is_date(part(1)) && jiff::civil::Time::from_str(part(2)).is_ok()
}

/// A duration in nanoseconds, as Go or Scala write it: `1h30m`, `22 ns`.
pub(super) fn duration(text: &str) -> Option<i128> {
    if let Some(nanoseconds) = go_duration(text) {
        return Some(nanoseconds);
    }
    let parts = SCALA_DURATION.captures(text)?;
    let number: i128 = parts.get(1)?.as_str().parse().ok()?;
    let unit = parts.get(2)?.as_str();
    let scale: i128 = match unit {
        u if u.starts_with('n') => 1,
        u if u.starts_with("us") || u.starts_with('µ') || u.starts_with("mic") => 1_000,
        u if u.starts_with("ms") || u.starts_with("mil") => 1_000_000,
        u if u.starts_with('s') => 1_000_000_000,
        u if u.starts_with('m') => 60_000_000_000,
        u if u.starts_with('h') => 3_600_000_000_000,
        u if u.starts_with('d') => 86_400_000_000_000,
        _ => 604_800_000_000_000,
    };
    number
        .checked_mul(scale)
        .filter(|n| i64::try_from(*n).is_ok())
}

fn go_duration(text: &str) -> Option<i128> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let found = GO_DURATION.captures(rest)?;
        let (number, unit) = (found.get(1)?.as_str(), found.get(3)?.as_str());
        if rest.starts_with(['+', '-']) || number.len() > 30 {
            return None;
        }
        let scale: f64 = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 6e10,
            _ => 3.6e12,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: i128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        let fraction: f64 = format!("0.{fraction}0").parse().ok()?;
        total = total
            .checked_add(whole.checked_mul(scale as i128)?)?
            .checked_add((fraction * scale) as i128)?;
        rest = &rest[found.get(0)?.end()..];
    }
    i64::try_from(total).ok()?;
    Some(if negative { -total } else { total })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: [&str; 27] = [
        "bsonobjectid",
        "uri",
        "email",
        "hostname",
        "ipv4",
        "ipv6",
        "cidr",
        "mac",
        "uuid",
        "uuid3",
        "uuid4",
        "uuid5",
        "isbn",
        "isbn10",
        "isbn13",
        "creditcard",
        "ssn",
        "hexcolor",
        "rgbcolor",
        "byte",
        "password",
        "date",
        "datetime",
        "date-time",
        "duration",
        "k8s-short-name",
        "k8s-long-name",
    ];

    #[test]
    fn texts_have_the_formats_that_they_have() {
        for (format, good, bad) in [
            (
                "date-time",
                "2014-12-15T19:30:20.000Z",
                "2014-12-15 19:30:20",
            ),
            ("date-time", "2014-12-15T19:30:20+01:00", "yesterday"),
            ("date", "2006-01-02", "2006-02-30"),
            ("duration", "1h30m", "1 fortnight"),
            ("duration", "22 ns", "h"),
            ("ipv4", "10.0.0.1", "10.0.0.256"),
            ("ipv6", "2001:db8::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("hostname", "example.com", "exa_mple"),
            ("uri", "https://example.com/a", "not a uri"),
            ("email", "a@example.com", "a"),
            ("mac", "00:00:5e:00:53:01", "00:00:5e:00:53"),
            ("uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6ba7b810"),
            ("byte", "aGVsbG8=", "%%%"),
            ("isbn", "978-0321751041", "978-0321751042"),
            ("isbn10", "0321751043", "0321751044"),
            ("hexcolor", "#FFF", "#FFFF"),
            ("rgbcolor", "rgb(1, 2, 255)", "rgb(1, 2, 256)"),
            ("creditcard", "4111-1111-1111-1111", "4111-1111-1111-1112"),
            ("k8s-short-name", "a-b", "a.b"),
            ("k8s-long-name", "a.b", "A.b"),
        ] {
            assert_eq!(check(format, good), Some(true), "{format} {good}");
            assert_eq!(check(format, bad), Some(false), "{format} {bad}");
        }
        assert_eq!(check("int32", "x"), None);
    }

    #[test]
    fn durations_are_as_long_as_they_say() {
        assert_eq!(duration("1.5s"), Some(1_500_000_000));
        assert_eq!(duration("-1m1ms"), Some(-60_001_000_000));
        assert_eq!(duration("2 days"), Some(172_800_000_000_000));
        assert_eq!(duration(""), None);
    }

    proptest! {
        #[test]
        fn checking_never_panics(text in ".{0,40}", format in proptest::sample::select(&KNOWN[..])) {
            prop_assert!(check(format, &text).is_some());
        }
    }
}
