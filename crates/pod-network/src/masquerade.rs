//! Pods speak to the world beyond the cluster with their node's address: one small nf_tables table.
//!
//! What comes from a Pod and goes neither to a Pod, nor to a Service, nor to a node is masqueraded. The sets hold
//! all that varies, so a node that comes or goes is one element.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use seaway_kernel::nft::{
    Batch, Chain, ChainKind, DataType, Element, Expr, Family, Hook, Reg, Rule, Set, Socket, Table,
    priority,
};
use seaway_kernel::{NetNs, Result};

/// The table's name.
pub(crate) const TABLE: &str = "seaway-pods";
const FAMILY: Family = Family::Ip;
const POD_RANGES: &str = "pod-ranges";
const INSIDE: &str = "cluster-ranges";
const NODES: &str = "node-addresses";
const CHAIN: &str = "postrouting";
/// Where the addresses are in the IPv4 header (RFC 791), and how long they are.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
const LENGTH: u32 = 4;

/// The table, as it is in the kernel.
#[derive(Debug)]
pub(crate) struct Masquerade {
    socket: Socket,
    /// Ranges of all Pods.
    pods: Vec<Ipv4Net>,
    /// Ranges of Pods and Services.
    inside: Vec<Ipv4Net>,
    /// What the table's set of node addresses holds; `None` while that is not known.
    nodes: Option<BTreeSet<Ipv4Addr>>,
}

impl Masquerade {
    /// Opens a socket in the node's namespace. Changes nothing yet.
    pub(crate) fn open(node: &NetNs, pods: &[IpNet], services: &[IpNet]) -> Result<Self> {
        Ok(Self {
            socket: node.run(Socket::open)??,
            pods: merged(pods.iter()),
            inside: merged(pods.iter().chain(services)),
            nodes: None,
        })
    }

    /// Sees to it that the table is there and knows these nodes. The first time it reads the kernel's table back
    /// and leaves alone what is right; later it writes what has changed.
    pub(crate) fn ensure(&mut self, nodes: &BTreeSet<Ipv4Addr>) -> Result<()> {
        let there = match &self.nodes {
            Some(known) => Some(known.clone()),
            None => self.read()?,
        };
        self.nodes = None;
        let mut batch = Batch::new();
        match &there {
            Some(there) => {
                let elements = |addresses: Vec<&Ipv4Addr>| {
                    addresses.into_iter().map(element).collect::<Vec<_>>()
                };
                let (gone, new) = (
                    elements(there.difference(nodes).collect()),
                    elements(nodes.difference(there).collect()),
                );
                if !gone.is_empty() {
                    batch.delete_elements(FAMILY, TABLE, NODES, gone);
                }
                if !new.is_empty() {
                    batch.add_elements(FAMILY, TABLE, NODES, new);
                }
            }
            None => self.whole(&mut batch, nodes),
        }
        if !batch.is_empty() {
            self.socket.commit(batch)?;
        }
        self.nodes = Some(nodes.clone());
        Ok(())
    }

    /// Forgets what the table holds, so that the next [`Masquerade::ensure`] reads it.
    pub(crate) fn doubt(&mut self) {
        self.nodes = None;
    }

    /// The node addresses in the kernel's table; `None` if the table is not there or not as it should be.
    fn read(&mut self) -> Result<Option<BTreeSet<Ipv4Addr>>> {
        let Some(table) = self.socket.read_table(FAMILY, TABLE)? else {
            return Ok(None);
        };
        let rules: Vec<_> = table
            .rules
            .iter()
            .map(|rule| (&rule.chain, &rule.expressions))
            .collect();
        let wanted = rule();
        let as_wanted = rules == [(&wanted.chain, &wanted.expressions)]
            && table.chains.len() == 1
            && table.sets.len() == 3
            && self.range_elements(POD_RANGES)? == range_elements(&self.pods)
            && self.range_elements(INSIDE)? == range_elements(&self.inside);
        if !as_wanted {
            return Ok(None);
        }
        let elements = self.socket.elements(FAMILY, TABLE, NODES)?;
        Ok(elements
            .iter()
            .map(|element| address(&element.key))
            .collect())
    }

    /// The kernel's elements of an interval set: address, and whether a range ends there.
    fn range_elements(&mut self, set: &str) -> Result<BTreeSet<(Vec<u8>, bool)>> {
        let elements = self.socket.elements(FAMILY, TABLE, set)?;
        // An end at 0.0.0.0 only says that nothing is before the first range.
        let marker = (vec![0; LENGTH as usize], true);
        Ok(elements
            .iter()
            .map(|e| (e.key.to_vec(), e.ends_range))
            .filter(|e| *e != marker)
            .collect())
    }

    /// The whole table, in place of the one that may be there.
    fn whole(&self, batch: &mut Batch, nodes: &BTreeSet<Ipv4Addr>) {
        let table = Table::new(FAMILY, TABLE)
            .with_comment("Pods speak to the world with their node's address");
        // A table must be there to be deleted.
        batch.add_table(&table);
        batch.delete_table(FAMILY, TABLE);
        batch.add_table(&table);
        let ranges =
            |name: &str| Set::new(FAMILY, TABLE, name, [DataType::Ipv4Addr]).with_intervals();
        for (set, ranges_of) in [
            (
                ranges(POD_RANGES).with_comment("addresses of Pods, on all nodes"),
                &self.pods,
            ),
            (
                ranges(INSIDE).with_comment("addresses of Pods and Services"),
                &self.inside,
            ),
        ] {
            batch.add_set(&set);
            let elements: Vec<Element<'_>> = range_elements(ranges_of)
                .into_iter()
                .map(|(key, end)| {
                    if end {
                        Element::range_end(key)
                    } else {
                        Element::key(key)
                    }
                })
                .collect();
            if !elements.is_empty() {
                batch.add_elements(FAMILY, TABLE, &set.name, elements);
            }
        }
        let set = Set::new(FAMILY, TABLE, NODES, [DataType::Ipv4Addr])
            .with_comment("addresses of the nodes themselves");
        batch.add_set(&set);
        let elements: Vec<Element<'_>> = nodes.iter().map(element).collect();
        if !elements.is_empty() {
            batch.add_elements(FAMILY, TABLE, NODES, elements);
        }
        batch.add_chain(&Chain::base(
            FAMILY,
            TABLE,
            CHAIN,
            ChainKind::Nat,
            Hook::Postrouting,
            priority::SRCNAT,
        ));
        batch.add_rule(&rule());
    }
}

/// From a Pod, to beyond the cluster.
fn rule() -> Rule {
    let outside = |set: &str| Expr::Lookup {
        set: set.to_owned(),
        source: Reg::FIRST,
        dest: None,
        invert: true,
    };
    Rule::new(
        FAMILY,
        TABLE,
        CHAIN,
        [
            Expr::network(SOURCE, LENGTH, Reg::FIRST),
            Expr::contains(POD_RANGES, Reg::FIRST),
            Expr::network(DESTINATION, LENGTH, Reg::FIRST),
            outside(INSIDE),
            Expr::network(DESTINATION, LENGTH, Reg::FIRST),
            outside(NODES),
            Expr::Masquerade { flags: 0 },
        ],
    )
    .with_comment("from a Pod to beyond the cluster")
}

fn element(address: &Ipv4Addr) -> Element<'static> {
    Element::key(address.octets().to_vec())
}

fn address(key: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(key).ok().map(Ipv4Addr::from)
}

/// Each range as where it begins and the first address behind it; a range to the very end has no end.
fn range_elements(ranges: &[Ipv4Net]) -> BTreeSet<(Vec<u8>, bool)> {
    let mut elements = BTreeSet::new();
    for range in ranges {
        elements.insert((range.network().octets().to_vec(), false));
        if let Some(behind) = u32::from(range.broadcast()).checked_add(1) {
            elements.insert((behind.to_be_bytes().to_vec(), true));
        }
    }
    elements
}

/// The IPv4 ranges, overlapping and neighbouring ones as one: the kernel refuses overlaps in a set.
fn merged<'a>(ranges: impl Iterator<Item = &'a IpNet>) -> Vec<Ipv4Net> {
    let v4: Vec<Ipv4Net> = ranges
        .filter_map(|range| match range {
            IpNet::V4(v4) => Some(v4.trunc()),
            IpNet::V6(_) => None,
        })
        .collect();
    Ipv4Net::aggregate(&v4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_merged_and_end_behind_their_last_address() {
        let ranges: Vec<IpNet> = ["10.244.0.0/16", "10.244.7.0/24", "fd00::/64", "255.0.0.0/8"]
            .iter()
            .map(|r| r.parse().unwrap())
            .collect();
        let elements = range_elements(&merged(ranges.iter()));
        let expected = [
            (vec![10, 244, 0, 0], false),
            (vec![10, 245, 0, 0], true),
            (vec![255, 0, 0, 0], false),
        ];
        assert_eq!(elements, expected.into());
    }
}
