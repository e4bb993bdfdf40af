//! Which Pod address range a new node gets: the lowest that no other node has.

use std::collections::HashSet;

use ipnet::IpNet;

/// The range of the cluster, cut into equal parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ranges {
    cluster: IpNet,
    prefix: u8,
}

impl Ranges {
    /// Parts of `prefix` length. The error says why that cannot be.
    pub(crate) fn new(cluster: IpNet, prefix: u8) -> Result<Self, String> {
        if prefix < cluster.prefix_len() || prefix > cluster.max_prefix_len() {
            return Err(format!("/{prefix} is not a part of {cluster}"));
        }
        Ok(Self {
            cluster: cluster.trunc(),
            prefix,
        })
    }

    /// The whole.
    pub(crate) fn cluster(&self) -> IpNet {
        self.cluster
    }

    /// The lowest part that overlaps none of `taken`; `None` when all are taken.
    pub(crate) fn lowest_free(&self, taken: &[IpNet]) -> Option<IpNet> {
        // Nearly all taken ranges are parts of ours and found by name; the others must be compared.
        let (parts, odd): (Vec<IpNet>, Vec<IpNet>) = taken
            .iter()
            .map(IpNet::trunc)
            .partition(|range| range.prefix_len() == self.prefix);
        let parts: HashSet<IpNet> = parts.into_iter().collect();
        let overlaps = |part: &IpNet| {
            odd.iter()
                .any(|range| range.contains(part) || part.contains(range))
        };
        self.cluster
            .subnets(self.prefix)
            .ok()?
            .find(|part| !parts.contains(part) && !overlaps(part))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn ranges(cluster: &str, prefix: u8) -> Ranges {
        Ranges::new(cluster.parse().unwrap(), prefix).unwrap()
    }

    #[test]
    fn the_lowest_comes_first_and_holes_are_filled() {
        let ranges = ranges("10.244.0.0/16", 24);
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        assert_eq!(ranges.lowest_free(&[]), Some(net("10.244.0.0/24")));
        assert_eq!(
            ranges.lowest_free(&[net("10.244.0.0/24"), net("10.244.2.0/24")]),
            Some(net("10.244.1.0/24"))
        );
    }

    #[test]
    fn ranges_of_other_sizes_are_kept_clear_of() {
        let ranges = ranges("10.244.0.0/22", 24);
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        assert_eq!(
            ranges.lowest_free(&[net("10.244.0.0/23")]),
            Some(net("10.244.2.0/24"))
        );
        assert_eq!(
            ranges.lowest_free(&[net("10.244.0.128/25")]),
            Some(net("10.244.1.0/24"))
        );
        assert_eq!(ranges.lowest_free(&[net("10.0.0.0/8")]), None);
    }

    #[test]
    fn a_part_cannot_be_larger_than_the_whole() {
        assert!(Ranges::new("10.244.0.0/16".parse().unwrap(), 12).is_err());
        assert!(Ranges::new("10.244.0.0/16".parse().unwrap(), 33).is_err());
        assert!(Ranges::new("fd00::/48".parse().unwrap(), 64).is_ok());
    }

    proptest! {
        #[test]
        fn no_range_is_given_twice(steps in prop::collection::vec((0u8..24, any::<bool>()), 0..120)) {
            let ranges = ranges("10.244.0.0/20", 24);
            let mut held: BTreeMap<u8, IpNet> = BTreeMap::new();
            for (node, joins) in steps {
                if !joins {
                    held.remove(&node);
                } else if !held.contains_key(&node) {
                    let taken: Vec<IpNet> = held.values().copied().collect();
                    match ranges.lowest_free(&taken) {
                        Some(range) => {
                            prop_assert!(ranges.cluster().contains(&range));
                            prop_assert!(!taken.contains(&range));
                            let lower = ranges.cluster().subnets(24).unwrap().take_while(|part| *part < range);
                            prop_assert!(lower.into_iter().all(|part| taken.contains(&part)));
                            held.insert(node, range);
                        }
                        None => prop_assert_eq!(held.len(), 16),
                    }
                }
            }
        }
    }
}
