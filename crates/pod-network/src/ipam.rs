//! Which address each Pod has: the pure part of IP address management.
//!
//! An address that was never given out comes first, then the one that has been free for the longest time. So an
//! address rests for as long as possible between two Pods, and what still remembers the old Pod (a connection, a
//! DNS answer, a proxy's table) has forgotten it before a new one answers there.
//!
//! Not given out: the range's first address (the network), its second (by custom a gateway's, and what other
//! plugins reserve) and its last (broadcast).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Place in its range of the first address that is given out.
const FIRST: u32 = 2;
/// The smallest range that has an address to give.
const LONGEST_PREFIX: u8 = 30;

/// The addresses of a node's range and who has them. Owners are Pod UIDs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocator {
    /// Where new addresses come from.
    range: Ipv4Net,
    /// Place in the range of the next address that was never given out.
    fresh: u32,
    /// Addresses given back, the one that has been free for the longest time first.
    freed: VecDeque<Ipv4Addr>,
    /// Who has which address. May hold addresses of a range that the node had before.
    owners: BTreeMap<String, Ipv4Addr>,
}

impl Allocator {
    /// All of `range` is free.
    ///
    /// # Errors
    /// [`Error::BadRange`] for IPv6, and for a range without an address to give.
    pub fn new(range: IpNet) -> Result<Self, Error> {
        Ok(Self {
            range: usable(range)?,
            fresh: FIRST,
            freed: VecDeque::new(),
            owners: BTreeMap::new(),
        })
    }

    /// Where new addresses come from.
    pub fn range(&self) -> IpNet {
        self.range.into()
    }

    /// New addresses come from this range from now on. Who has an address keeps it. Returns whether that is a change.
    ///
    /// # Errors
    /// As [`Allocator::new`].
    pub fn set_range(&mut self, range: IpNet) -> Result<bool, Error> {
        let range = usable(range)?;
        if range == self.range {
            return Ok(false);
        }
        self.range = range;
        self.fresh = FIRST;
        self.freed.clear();
        Ok(true)
    }

    /// The owner's address: the one that it has, or a free one.
    ///
    /// # Errors
    /// [`Error::Exhausted`] when none is free.
    pub fn reserve(&mut self, owner: &str) -> Result<Ipv4Addr, Error> {
        if let Some(address) = self.owners.get(owner) {
            return Ok(*address);
        }
        let taken: BTreeSet<Ipv4Addr> = self.owners.values().copied().collect();
        let address = self
            .next_fresh(&taken)
            .or_else(|| self.freed.pop_front())
            .ok_or(Error::Exhausted {
                range: self.range.into(),
                taken: taken.len(),
            })?;
        self.owners.insert(owner.to_owned(), address);
        Ok(address)
    }

    /// Takes the owner's address back. `None` if it has none.
    pub fn release(&mut self, owner: &str) -> Option<Ipv4Addr> {
        let address = self.owners.remove(owner)?;
        // Beyond `fresh`, or of another range, it comes up by itself or never again.
        let given_from_here = self.range.contains(&address) && self.place(address) < self.fresh;
        if given_from_here {
            self.freed.push_back(address);
        }
        Some(address)
    }

    /// The address that the owner has.
    pub fn address_of(&self, owner: &str) -> Option<Ipv4Addr> {
        self.owners.get(owner).copied()
    }

    /// Everyone who has an address, with it.
    pub fn owners(&self) -> impl Iterator<Item = (&str, Ipv4Addr)> {
        self.owners
            .iter()
            .map(|(owner, address)| (owner.as_str(), *address))
    }

    /// Checks what a file said against the rules that this type keeps.
    ///
    /// # Errors
    /// Says which rule does not hold.
    pub fn check(&self) -> Result<(), String> {
        usable(self.range.into()).map_err(|error| error.to_string())?;
        let mut seen = BTreeSet::new();
        for address in self.owners.values().chain(&self.freed) {
            if !seen.insert(*address) {
                return Err(format!("{address} is there twice"));
            }
        }
        let stray = self
            .freed
            .iter()
            .find(|address| !self.range.contains(*address) || self.place(**address) >= self.fresh);
        match stray {
            Some(address) => Err(format!(
                "{address} was given back but never given out of {}",
                self.range
            )),
            None => Ok(()),
        }
    }

    /// The next address that was never given out; those that owners have from before are passed over, and come
    /// up again among the freed ones when they are given back.
    fn next_fresh(&mut self, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        while self.fresh < self.place(self.range.broadcast()) {
            let address = Ipv4Addr::from(u32::from(self.range.network()) + self.fresh);
            self.fresh += 1;
            if !taken.contains(&address) {
                return Some(address);
            }
        }
        None
    }

    /// How far into the range an address of it is.
    fn place(&self, address: Ipv4Addr) -> u32 {
        u32::from(address) - u32::from(self.range.network())
    }
}

fn usable(range: IpNet) -> Result<Ipv4Net, Error> {
    match range {
        IpNet::V6(_) => Err(Error::BadRange {
            range,
            reason: "IPv6 Pod addresses are not supported yet",
        }),
        IpNet::V4(v4) if v4.prefix_len() > LONGEST_PREFIX => Err(Error::BadRange {
            range,
            reason: "it has no address to give; use a prefix of at most /30",
        }),
        IpNet::V4(v4) => Ok(v4.trunc()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allocator(range: &str) -> Allocator {
        Allocator::new(range.parse().unwrap()).unwrap()
    }

    #[test]
    fn network_gateway_and_broadcast_are_never_given_out() {
        let mut ipam = allocator("10.244.1.0/29");
        let given: Vec<String> = (0..5)
            .map(|n| ipam.reserve(&format!("pod-{n}")).unwrap().to_string())
            .collect();
        assert_eq!(
            given,
            [
                "10.244.1.2",
                "10.244.1.3",
                "10.244.1.4",
                "10.244.1.5",
                "10.244.1.6"
            ]
        );
        let error = ipam.reserve("one-too-many").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no address is left in 10.244.1.0/29 (5 Pods have one); delete Pods on this node or give it a larger range"
        );
    }

    #[test]
    fn an_owner_keeps_its_address_however_often_it_asks() {
        let mut ipam = allocator("10.244.1.0/24");
        let first = ipam.reserve("pod").unwrap();
        ipam.reserve("other").unwrap();
        assert_eq!(ipam.reserve("pod").unwrap(), first);
    }

    #[test]
    fn a_freed_address_comes_last_and_the_longest_free_one_first() {
        let mut ipam = allocator("10.244.1.0/29");
        for owner in ["a", "b", "c"] {
            ipam.reserve(owner).unwrap();
        }
        ipam.release("b");
        ipam.release("a");
        let mut next = |owner: &str| ipam.reserve(owner).unwrap().octets()[3];
        assert_eq!([next("d"), next("e"), next("f"), next("g")], [5, 6, 3, 2]);
    }

    #[test]
    fn a_new_range_leaves_the_owners_of_the_old_one_alone() {
        let mut ipam = allocator("10.244.1.0/29");
        let old = ipam.reserve("old").unwrap();
        assert!(ipam.set_range("10.244.1.0/28".parse().unwrap()).unwrap());
        assert!(!ipam.set_range("10.244.1.0/28".parse().unwrap()).unwrap());
        assert_eq!(ipam.reserve("old").unwrap(), old);
        assert_ne!(ipam.reserve("new").unwrap(), old);
        ipam.release("old");
        ipam.check().unwrap();
    }

    #[test]
    fn ranges_that_cannot_work_are_rejected() {
        for range in ["10.0.0.0/31", "10.0.0.0/32", "fd00::/64"] {
            assert!(
                Allocator::new(range.parse().unwrap()).is_err(),
                "{range} was accepted"
            );
        }
    }

    proptest! {
        /// Whatever Pods come and go and however the range changes: no two have the same address, none has a
        /// reserved one, and what is written down can be read back.
        #[test]
        fn no_address_is_ever_given_to_two(steps in proptest::collection::vec((0u8..3, 0u8..12), 0..200)) {
            let mut ipam = allocator("10.0.0.0/29");
            for (step, number) in steps {
                let owner = format!("pod-{number}");
                match step {
                    0 => {
                        let before = ipam.address_of(&owner);
                        match ipam.reserve(&owner) {
                            Ok(address) => {
                                prop_assert!(before.is_none_or(|before| before == address));
                                prop_assert!(![0, 1].contains(&address.octets()[3]));
                                prop_assert!(before.is_some() || address != ipam.range.broadcast());
                            }
                            Err(_) => prop_assert!(ipam.owners().count() >= 5),
                        }
                    }
                    1 => drop(ipam.release(&owner)),
                    _ => {
                        let prefix = 28 + number % 2;
                        ipam.set_range(format!("10.0.0.0/{prefix}").parse().unwrap()).unwrap();
                    }
                }
                prop_assert_eq!(ipam.check(), Ok(()));
                let read: Allocator = serde_json::from_str(&serde_json::to_string(&ipam).unwrap()).unwrap();
                prop_assert_eq!(&read, &ipam);
            }
        }
    }
}
