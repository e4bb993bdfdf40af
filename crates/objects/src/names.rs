//! The rules for names, labels, ports and addresses, each with the words that Kubernetes uses when one is broken.
//! Every function returns what is wrong, empty when nothing is.
//!
//! Source: `k8s.io/apimachinery/pkg/util/validation`, RFC 1035, RFC 1123.

use std::net::IpAddr;

/// What is wrong with a value, in words.
pub type Wrong = Vec<String>;

const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

const LABEL_1123: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_1123: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const WILDCARD_1123: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const HTTP_PATH: &str =
    "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_PART: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const ENV_NAME: &str = "a valid environment variable name must consist only of printable ASCII characters other than '='";

/// Said of a port number outside 1-65535.
pub const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";
/// Said of what is no IP address at all.
pub const NOT_AN_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// What the name of an object of some kind must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// Dot-separated labels, 253 bytes: most kinds.
    Subdomain,
    /// One label of 63 bytes: Namespaces, Services.
    Label,
    /// Anything that can be a part of a path: roles and their bindings, `system:admin` for example.
    PathSegment,
    /// An IP address in its canonical form: IPAddresses.
    Address,
}

impl NameRule {
    /// What is wrong with `name`.
    pub fn check(self, name: &str) -> Wrong {
        match self {
            Self::Subdomain => dns_subdomain(name),
            Self::Label => dns_label(name),
            Self::PathSegment => path_segment(name),
            Self::Address => crate::ip::canonical_address(name),
        }
    }
}

fn lower_alphanumeric(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_label(value: &str) -> bool {
    let bytes = value.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => {
            lower_alphanumeric(first)
                && lower_alphanumeric(last)
                && bytes.iter().all(|&b| lower_alphanumeric(b) || b == b'-')
        }
        _ => false,
    }
}

fn is_qualified_part(value: &str) -> bool {
    let bytes = value.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && bytes
                    .iter()
                    .all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        }
        _ => false,
    }
}

fn longer_than(value: &str, max: usize) -> Option<String> {
    (value.len() > max).then(|| format!("must be no more than {max} bytes"))
}

fn checked(value: &str, max: usize, ok: bool, words: &str) -> Wrong {
    let mut wrong: Wrong = longer_than(value, max).into_iter().collect();
    if !ok {
        wrong.push(words.to_owned());
    }
    wrong
}

/// A DNS label of RFC 1123.
pub fn dns_label(value: &str) -> Wrong {
    checked(value, LABEL_MAX, is_label(value), LABEL_1123)
}

/// A DNS subdomain of RFC 1123.
pub fn dns_subdomain(value: &str) -> Wrong {
    let ok = value.split('.').all(is_label);
    checked(value, SUBDOMAIN_MAX, ok, SUBDOMAIN_1123)
}

/// A DNS subdomain, or one after `*.`: whatever has an asterisk is to be the latter.
/// Source: RFC 1034, section 4.3.3; `IsWildcardDNS1123Subdomain`.
pub fn dns_name_or_wildcard(value: &str) -> Wrong {
    if !value.contains('*') {
        return dns_subdomain(value);
    }
    let ok = value
        .strip_prefix("*.")
        .is_some_and(|domain| domain.split('.').all(is_label));
    checked(value, SUBDOMAIN_MAX, ok, WILDCARD_1123)
}

/// `example.com/any/path`: the parts of it that are wrong, each with what is wrong with it.
/// Source: `IsDomainPrefixedPath`.
pub fn domain_prefixed_path(value: &str) -> Vec<(&str, String)> {
    let Some((domain, path)) = value
        .split_once('/')
        .filter(|(domain, path)| !domain.is_empty() && !path.is_empty())
    else {
        let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        return vec![(value, why.to_owned())];
    };
    let mut wrong: Vec<(&str, String)> = dns_subdomain(domain)
        .into_iter()
        .map(|why| (domain, why))
        .collect();
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
    if !path.bytes().all(fits) {
        wrong.push((path, HTTP_PATH.to_owned()));
    }
    wrong
}

/// A DNS label of RFC 1035: like [`dns_label`] but starting with a letter.
pub fn dns_1035_label(value: &str) -> Wrong {
    let ok = is_label(value) && value.as_bytes()[0].is_ascii_lowercase();
    checked(value, LABEL_MAX, ok, LABEL_1035)
}

/// The key of a label, an annotation, a taint: `name` or `domain/name`.
pub fn qualified_name(value: &str) -> Wrong {
    let mut wrong = Wrong::new();
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                wrong.extend(
                    dns_subdomain(prefix)
                        .into_iter()
                        .map(|w| format!("prefix part {w}")),
                );
            }
            *name
        }
        _ => {
            return vec![format!(
                "a qualified name {QUALIFIED_PART} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        wrong.push(format!("name part must be no more than {LABEL_MAX} bytes"));
    }
    if !is_qualified_part(name) {
        wrong.push(format!("name part {QUALIFIED_PART}"));
    }
    wrong
}

/// A part of a path. Source: `IsValidPathSegmentName` in `k8s.io/apimachinery/pkg/api/validation/path`.
pub fn path_segment(value: &str) -> Wrong {
    if matches!(value, "." | "..") {
        return vec![format!("may not be '{value}'")];
    }
    let within = ["/", "%"].into_iter().filter(|part| value.contains(part));
    within
        .map(|part| format!("may not contain '{part}'"))
        .collect()
}

/// The value of a label.
pub fn label_value(value: &str) -> Wrong {
    let ok = value.is_empty() || is_qualified_part(value);
    checked(value, LABEL_MAX, ok, LABEL_VALUE)
}

/// The name of a port (IANA service name).
pub fn port_name(value: &str) -> Wrong {
    let mut wrong = Wrong::new();
    if value.len() > 15 {
        wrong.push("must be no more than 15 bytes".to_owned());
    }
    if !value.bytes().all(|b| lower_alphanumeric(b) || b == b'-') || value.is_empty() {
        wrong.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_owned());
    }
    // Kubernetes looks no further than the characters when those are wrong already.
    if wrong.len() > 1 && wrong[0].starts_with("must contain only") {
        wrong.truncate(1);
    }
    wrong
}

/// A port number.
pub fn port_number(value: i32) -> Wrong {
    if (1..=65535).contains(&value) {
        Wrong::new()
    } else {
        vec![PORT_RANGE.to_owned()]
    }
}

/// An IP address of either family.
pub fn ip_address(value: &str) -> Wrong {
    if value.parse::<IpAddr>().is_ok() {
        Wrong::new()
    } else {
        vec![NOT_AN_IP.to_owned()]
    }
}

/// A key of a ConfigMap or Secret.
pub fn config_key(value: &str) -> Wrong {
    let mut wrong: Wrong = longer_than(value, SUBDOMAIN_MAX).into_iter().collect();
    let ok = !value.is_empty()
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !ok {
        wrong.push(CONFIG_KEY.to_owned());
    }
    if value == "." {
        wrong.push("must not be '.'".to_owned());
    } else if value == ".." {
        wrong.push("must not be '..'".to_owned());
    } else if value.starts_with("..") {
        wrong.push("must not start with '..'".to_owned());
    }
    wrong
}

/// The name of an environment variable.
pub fn env_name(value: &str) -> Wrong {
    let ok = !value.is_empty()
        && value
            .bytes()
            .all(|b| (0x20..0x7f).contains(&b) && b != b'=');
    if ok {
        Wrong::new()
    } else {
        vec![ENV_NAME.to_owned()]
    }
}

/// An address that an endpoint may not have: what Kubernetes says of it.
/// Source: `ValidateEndpointIP` in `pkg/apis/core/validation`.
pub fn endpoint_ip(value: IpAddr) -> Wrong {
    let mut wrong = Wrong::new();
    if value.is_unspecified() {
        wrong.push("may not be unspecified (0.0.0.0 or ::)".to_owned());
    }
    if value.is_loopback() {
        wrong.push("may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned());
    }
    let link_local = match value {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0) == 0xfe80,
    };
    if link_local {
        wrong.push("may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned());
    }
    let link_local_multicast = match value {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => (v6.segments()[0] & 0xff0f) == 0xff02,
    };
    if link_local_multicast {
        wrong.push(
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned(),
        );
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_lower_case_letters_digits_and_inner_hyphens() {
        for good in ["a", "0", "a-b", "123-abc", &"x".repeat(63)] {
            assert_eq!(dns_label(good), Wrong::new(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "ä", &"x".repeat(64)] {
            assert_ne!(dns_label(bad), Wrong::new(), "{bad}");
        }
    }

    #[test]
    fn a_1035_label_starts_with_a_letter() {
        assert_eq!(dns_1035_label("a1"), Wrong::new());
        assert_eq!(dns_1035_label("1a").len(), 1);
        assert_eq!(dns_1035_label("").len(), 1);
    }

    #[test]
    fn a_subdomain_is_labels_with_dots_between() {
        assert_eq!(dns_subdomain("a.b-c.d"), Wrong::new());
        for bad in [".a", "a.", "a..b", "a.-b"] {
            assert_eq!(dns_subdomain(bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn a_qualified_name_may_have_a_domain_before_it() {
        for good in ["a", "A.b_c", "example.com/My-Name"] {
            assert_eq!(qualified_name(good), Wrong::new(), "{good}");
        }
        for bad in ["", "a b", "/a", "a/", "a/b/c", "Not_a_domain/x"] {
            assert_ne!(qualified_name(bad), Wrong::new(), "{bad}");
        }
    }

    #[test]
    fn a_port_name_is_short_and_has_a_letter() {
        assert_eq!(port_name("http-2"), Wrong::new());
        assert_eq!(port_name("80").len(), 1);
        assert_eq!(port_name("a--b").len(), 1);
        assert_eq!(
            port_name("Not_OK"),
            ["must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"]
        );
    }

    #[test]
    fn an_endpoint_is_never_on_the_loopback_or_link_local() {
        for bad in [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.1.1",
            "224.0.0.5",
            "::1",
            "fe80::1",
            "ff02::1",
        ] {
            let ip: IpAddr = bad.parse().expect(bad);
            assert_eq!(endpoint_ip(ip).len(), 1, "{bad}");
        }
        for good in ["10.0.0.1", "2001:db8::1", "239.1.1.1"] {
            let ip: IpAddr = good.parse().expect(good);
            assert_eq!(endpoint_ip(ip), Wrong::new(), "{good}");
        }
    }
}
