//! IP addresses and CIDRs as they are written in objects. Fields from before Kubernetes 1.36 take any form that is
//! not ambiguous, and a warning tells of the canonical one; newer fields take the canonical form only.
//!
//! Source: KEP-4858 (`StrictIPCIDRValidation`, on since 1.36), `k8s.io/apimachinery/pkg/util/validation/ip.go`;
//! RFC 5952 for the canonical form of IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::names::{NOT_AN_IP, Wrong};

/// Said of what is no CIDR at all.
pub const NOT_A_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// Reads an address as Go once did: octets may have leading zeros, and an IPv4 address that is mapped into IPv6 is
/// that IPv4 address.
pub fn parse_loosely(text: &str) -> Option<IpAddr> {
    if !text.contains(':') {
        return loose_v4(text).map(IpAddr::V4);
    }
    // The last part may be an IPv4 address, with leading zeros too.
    let v6: Ipv6Addr = match (text.rsplit_once(':'), text.contains('.')) {
        (Some((head, tail)), true) => format!("{head}:{}", loose_v4(tail)?).parse().ok()?,
        _ => text.parse().ok()?,
    };
    Some(match v6.to_ipv4_mapped() {
        Some(v4) => IpAddr::V4(v4),
        None => IpAddr::V6(v6),
    })
}

fn loose_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0_u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let digits = part.trim_start_matches('0');
        *octet = if digits.is_empty() {
            0
        } else {
            digits.parse().ok()?
        };
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// Reads a CIDR as loosely: leading zeros everywhere, and bits beyond the prefix. The address as it is written, and
/// the range that it is in.
pub fn parse_cidr_loosely(text: &str) -> Option<(IpAddr, IpNet)> {
    let (address, length) = text.split_once('/')?;
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = length.trim_start_matches('0');
    let length: u8 = if digits.is_empty() {
        0
    } else {
        digits.parse().ok()?
    };
    let parsed = parse_loosely(address)?;
    let net = match parsed {
        IpAddr::V4(v4) if address.contains(':') => {
            IpNet::V4(Ipv4Net::new(v4, length.checked_sub(96)?).ok()?)
        }
        IpAddr::V4(v4) => IpNet::V4(Ipv4Net::new(v4, length).ok()?),
        IpAddr::V6(v6) => IpNet::V6(Ipv6Net::new(v6, length).ok()?),
    };
    Some((parsed, net.trunc()))
}

fn is_mapped(text: &str) -> bool {
    text.parse::<Ipv6Addr>()
        .is_ok_and(|v6| v6.to_ipv4_mapped().is_some())
}

/// An address in a field that took addresses before 1.36. Source: `IsValidIPForLegacyField`.
pub fn address(value: &str) -> Wrong {
    let words = match parse_loosely(value) {
        None => NOT_AN_IP,
        Some(_) if value.parse::<IpAddr>().is_err() => "must not have leading 0s",
        Some(_) if is_mapped(value) => "must not be an IPv4-mapped IPv6 address",
        Some(_) => return Wrong::new(),
    };
    vec![words.to_owned()]
}

/// An address that must be written canonically. Source: `IsValidIP`.
pub fn canonical_address(value: &str) -> Wrong {
    let wrong = address(value);
    match parse_loosely(value) {
        Some(ip) if wrong.is_empty() && ip.to_string() != value => {
            vec![format!("must be in canonical form (\"{ip}\")")]
        }
        _ => wrong,
    }
}

/// A CIDR in a field that took CIDRs before 1.36. Source: `IsValidCIDRForLegacyField`.
pub fn cidr(value: &str) -> Wrong {
    let words = match (parse_cidr_loosely(value), strict_cidr(value)) {
        (None, _) => NOT_A_CIDR,
        (Some(_), None) => "must not have leading 0s in IP or prefix length",
        (Some(_), Some((ip, _))) if is_mapped(&ip) => "must not have an IPv4-mapped IPv6 address",
        (Some((ip, net)), Some(_)) if ip != net.addr() => {
            "must not have bits set beyond the prefix length"
        }
        _ => return Wrong::new(),
    };
    vec![words.to_owned()]
}

/// A CIDR that must be written canonically. Source: `IsValidCIDR`.
pub fn canonical_cidr(value: &str) -> Wrong {
    let wrong = cidr(value);
    match parse_cidr_loosely(value) {
        Some((_, net)) if wrong.is_empty() && net.to_string() != value => {
            vec![format!("must be in canonical form (\"{net}\")")]
        }
        _ => wrong,
    }
}

/// The parts of a CIDR, if both are written without leading zeros.
fn strict_cidr(value: &str) -> Option<(String, u8)> {
    let (ip, length) = value.split_once('/')?;
    ip.parse::<IpAddr>().ok()?;
    if length.len() > 1 && length.starts_with('0') {
        return None;
    }
    Some((ip.to_owned(), length.parse().ok()?))
}

/// What a client should know of an address that was taken. Source: `GetWarningsForIP`.
pub fn address_warning(field: &str, value: &str) -> Option<String> {
    let ip = parse_loosely(value)?;
    match value.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if !is_mapped(value) => (v6.to_string() != value).then(|| {
            format!(
                "{field}: IPv6 address {value:?} should be in RFC 5952 canonical format ({:?})",
                v6.to_string()
            )
        }),
        Ok(IpAddr::V4(_)) => None,
        _ => Some(format!(
            "{field}: non-standard IP address {value:?} is invalid: use {:?}",
            ip.to_string()
        )),
    }
}

/// What a client should know of a CIDR that was taken. Source: `GetWarningsForCIDR`.
pub fn cidr_warnings(field: &str, value: &str) -> Vec<String> {
    let Some((ip, net)) = parse_cidr_loosely(value) else {
        return Vec::new();
    };
    let mut warnings = Vec::new();
    if ip != net.addr() {
        let single = format!("{ip}/{}", net.max_prefix_len());
        warnings.push(format!(
            "{field}: CIDR value {value:?} is ambiguous in this context (should be {:?} or {single:?}?)",
            net.to_string()
        ));
    }
    if strict_cidr(value).is_none_or(|(ip, _)| is_mapped(&ip)) {
        warnings.push(format!(
            "{field}: non-standard CIDR value {value:?} is invalid: use {:?}",
            net.to_string()
        ));
    }
    if warnings.is_empty() && ip.is_ipv6() && net.to_string() != value {
        warnings.push(format!(
            "{field}: IPv6 CIDR value {value:?} should be in RFC 5952 canonical format ({:?})",
            net.to_string()
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_an_old_field_may_not_be_ambiguous() {
        for (value, words) in [
            ("10.9.8.7", ""),
            ("2001:DB8:0::1", ""),
            ("010.9.8.7", "must not have leading 0s"),
            ("::ffff:10.9.8.7", "must not be an IPv4-mapped IPv6 address"),
            ("10.9.8", NOT_AN_IP),
            ("10.9.8.256", NOT_AN_IP),
            ("10.9.8.7.6", NOT_AN_IP),
            ("fe80::1%eth0", NOT_AN_IP),
            ("", NOT_AN_IP),
        ] {
            assert_eq!(address(value).join(""), words, "{value}");
        }
    }

    #[test]
    fn an_address_of_a_new_field_is_canonical() {
        assert_eq!(canonical_address("fd00::1"), Wrong::new());
        assert_eq!(
            canonical_address("FD00:0::1"),
            ["must be in canonical form (\"fd00::1\")"]
        );
    }

    #[test]
    fn a_cidr_of_an_old_field_may_not_be_ambiguous() {
        for (value, words) in [
            ("10.9.8.0/24", ""),
            ("2001:DB8::/64", ""),
            (
                "10.9.8.1/24",
                "must not have bits set beyond the prefix length",
            ),
            (
                "10.9.08.0/24",
                "must not have leading 0s in IP or prefix length",
            ),
            (
                "10.9.8.0/024",
                "must not have leading 0s in IP or prefix length",
            ),
            (
                "::ffff:10.9.8.0/120",
                "must not have an IPv4-mapped IPv6 address",
            ),
            ("10.9.8.0/33", NOT_A_CIDR),
            ("10.9.8.0", NOT_A_CIDR),
            ("10.9.8.0/", NOT_A_CIDR),
            ("10.9.8.0/-1", NOT_A_CIDR),
            ("10.9.8.0/+1", NOT_A_CIDR),
        ] {
            assert_eq!(cidr(value).join(""), words, "{value}");
        }
        assert_eq!(
            canonical_cidr("FD00:1234::/64"),
            ["must be in canonical form (\"fd00:1234::/64\")"]
        );
    }

    #[test]
    fn a_warning_says_what_to_write_instead() {
        assert_eq!(address_warning("f", "10.0.0.1"), None);
        assert_eq!(
            address_warning("f", "010.0.0.1").unwrap_or_default(),
            "f: non-standard IP address \"010.0.0.1\" is invalid: use \"10.0.0.1\""
        );
        assert_eq!(
            address_warning("f", "::ffff:1.2.3.4").unwrap_or_default(),
            "f: non-standard IP address \"::ffff:1.2.3.4\" is invalid: use \"1.2.3.4\""
        );
        assert_eq!(
            address_warning("f", "fd00:0::1").unwrap_or_default(),
            "f: IPv6 address \"fd00:0::1\" should be in RFC 5952 canonical format (\"fd00::1\")"
        );
        assert_eq!(
            cidr_warnings("f", "10.0.0.1/24"),
            [
                "f: CIDR value \"10.0.0.1/24\" is ambiguous in this context (should be \"10.0.0.0/24\" or \"10.0.0.1/32\"?)"
            ]
        );
        assert_eq!(cidr_warnings("f", "10.0.0.0/24"), Vec::<String>::new());
    }

    proptest::proptest! {
        #[test]
        fn reading_never_panics(text in "[0-9a-f:./%+-]{0,30}") {
            let _ = (address(&text), canonical_address(&text), cidr(&text), canonical_cidr(&text));
            let _ = (address_warning("f", &text), cidr_warnings("f", &text));
        }

        #[test]
        fn what_is_canonical_is_taken_everywhere(v4: [u8; 4], v6: [u8; 16]) {
            let v4 = Ipv4Addr::from(v4).to_string();
            proptest::prop_assert_eq!(canonical_address(&v4), Wrong::new());
            let v6 = Ipv6Addr::from(v6);
            if v6.to_ipv4_mapped().is_none() {
                proptest::prop_assert_eq!(canonical_address(&v6.to_string()), Wrong::new());
            }
        }
    }
}
