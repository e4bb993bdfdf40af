//! A range of ports, written `30000-32767`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The ports from the first to the last, both included; never port 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Kubernetes' default for node ports. Source: kube-apiserver, `--service-node-port-range`.
    pub const NODE_PORTS: Self = Self {
        first: 30000,
        last: 32767,
    };

    /// The same as a range of numbers.
    pub fn ports(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl Default for PortRange {
    fn default() -> Self {
        Self::NODE_PORTS
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a range of ports such as 30000-32767");
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
        let (first, last) = (port(first)?, port(last)?);
        if first == 0 || first > last {
            return Err(wrong());
        }
        Ok(Self { first, last })
    }
}

impl TryFrom<String> for PortRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_it_is_written_and_what_is_none_is_refused() {
        let range: PortRange = "20000-20010".parse().unwrap();
        assert_eq!(range.ports(), 20000..=20010);
        assert_eq!(range.to_string(), "20000-20010");
        for wrong in ["", "1", "0-5", "9-5", "1-70000", "a-b", "1-2-3"] {
            let refused = wrong.parse::<PortRange>().unwrap_err();
            assert!(refused.contains("30000-32767"), "{refused}");
        }
    }
}
