//! The kernel's form of the forwarding: one table with fixed chains, and sets and maps whose elements are the
//! cluster.
//!
//! ```text
//! frontends             address . protocol . port             those with backends and nothing special
//! frontends-by-policy   address . protocol . port             those with something special
//! no-endpoints          address . protocol . port             those that refuse
//! frontends-N           address . protocol . port             those that have N backends
//! backends              address . protocol . port . index  →  address . port
//!
//! frontends-inside, frontends-inside-N, backends-inside       who answers clients on this node, if others
//! frontends-restricted                                        connections are taken from some sources only:
//! allowed-sources       address . protocol . port . sources
//! frontends-dropped                                           nobody answers here, but somewhere else
//! frontends-keep-source                                       never masqueraded
//! frontends-for-T       address . protocol . port             clients come back for T seconds:
//! affinity              client . address . protocol . port  → address . port
//!
//! node-ports, …, node-port-backends, …                        the same without the address
//! hairpin               endpoint . endpoint                   for those on this node
//! pod-ranges, service-ranges, node-port-ranges                ranges of addresses
//! ```
//!
//! A packet that opens a connection is looked up by what it carries itself, so no mark has to remember anything
//! between one rule and the next. Whether it is for a Service at all is one lookup; which N, a lookup for each
//! number of backends that occurs (chain `pick`); who, one lookup with a random index. Only frontends with a policy
//! pay for policies (chain `by-policy`).
//!
//! Why not a map from the frontend to a verdict, or to N? The kernel walks all elements of a map of verdicts
//! whenever one is added (3 ms for each change at 10,000 Services). And what a lookup yields cannot be looked up
//! again in the language of `nft`: version 1.0.6 aborts when it shall print such a rule. For the same reason who
//! answered a client is remembered after the choice, where connection tracking knows it (chain `remember`).
//!
//! Only the first packet of a connection comes here (chains of type `nat`); the rest, conntrack translates alike.
//! So a change never breaks a connection.

mod encode;
mod names;
mod read;
mod rules;
#[cfg(test)]
mod tests;

use std::time::Duration;

use seaway_kernel::nft::{
    Chain, ChainKind, DataType, Expr, Family, Hook, Rule, Set, Table, TypeOf, priority,
};

use crate::model::IpFamily;
use crate::plan::Branch;

pub use names::TABLE;
use names::*;

/// How long an entry of `affinity` lives if no rule says so; every rule does.
const LONGEST_AFFINITY: Duration = Duration::from_secs(86_400);
/// How many clients' endpoints are remembered at most; further clients are served, and not remembered.
const MOST_CLIENTS: u32 = 1 << 20;

/// The table of one IP family.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    family: IpFamily,
}

/// What of the table does not depend on the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skeleton {
    pub(crate) table: Table,
    pub(crate) chains: Vec<Chain>,
    pub(crate) sets: Vec<Set>,
    pub(crate) rules: Vec<Rule>,
}

impl Layout {
    pub(crate) const fn new(family: IpFamily) -> Self {
        Self { family }
    }

    pub(crate) const fn family(self) -> Family {
        match self.family {
            IpFamily::V4 => Family::Ip,
            IpFamily::V6 => Family::Ip6,
        }
    }

    const fn address_length(self) -> usize {
        match self.family {
            IpFamily::V4 => 4,
            IpFamily::V6 => 16,
        }
    }

    /// What is in the table whatever the cluster is.
    pub(crate) fn skeleton(self) -> Skeleton {
        Skeleton {
            table: Table::new(self.family(), TABLE)
                .with_comment("Kubernetes Services, by the seaway service proxy"),
            chains: self.chains(),
            sets: self.sets(),
            rules: self.rules(),
        }
    }

    fn chains(self) -> Vec<Chain> {
        let family = self.family();
        let base = |name: &str, kind, hook, priority| {
            Chain::base(family, TABLE, name, kind, hook, priority)
        };
        use ChainKind::{Filter, Nat};
        let mut chains = vec![
            base("nat-prerouting", Nat, Hook::Prerouting, priority::DSTNAT),
            base("nat-output", Nat, Hook::Output, priority::DSTNAT),
            base("nat-input", Nat, Hook::Input, priority::SRCNAT),
            base("nat-postrouting", Nat, Hook::Postrouting, priority::SRCNAT),
            base("filter-forward", Filter, Hook::Forward, priority::FILTER),
            base("filter-output", Filter, Hook::Output, priority::FILTER),
        ];
        let regular = [SERVICES, REFUSE, REMEMBER, MASQUERADE, HAIRPIN_ONLY];
        let for_both = [false, true].into_iter().flat_map(|node_port| {
            [
                pick_chain(node_port, false),
                pick_chain(node_port, true),
                policy_chain(node_port),
                inside_chain(node_port),
            ]
        });
        chains.extend(
            regular
                .into_iter()
                .chain(for_both)
                .map(|name| Chain::regular(family, TABLE, name)),
        );
        chains
    }

    /// What a frontend's key consists of.
    fn key_types(self, node_port: bool) -> Vec<TypeOf> {
        let destination = match self.family {
            IpFamily::V4 => TypeOf::IpDaddr,
            IpFamily::V6 => TypeOf::Ip6Daddr,
        };
        let address = (!node_port).then_some(destination);
        address
            .into_iter()
            .chain([TypeOf::L4Proto, TypeOf::ThDport])
            .collect()
    }

    fn sets(self) -> Vec<Set> {
        let family = self.family();
        let (source, destination, address) = match self.family {
            IpFamily::V4 => (TypeOf::IpSaddr, TypeOf::IpDaddr, DataType::Ipv4Addr),
            IpFamily::V6 => (TypeOf::Ip6Saddr, TypeOf::Ip6Daddr, DataType::Ipv6Addr),
        };
        let set = |name: &str, key: Vec<TypeOf>| Set::new(family, TABLE, name, key);
        let range = |name: &str, comment: &str| {
            Set::new(family, TABLE, name, [address])
                .with_intervals()
                .with_comment(comment)
        };
        let mut sets = Vec::new();
        for node_port in [false, true] {
            let key = || self.key_types(node_port);
            let with = |before: &[TypeOf], after: &[TypeOf]| [before, &key()[..], after].concat();
            let (place, subject) = if node_port {
                (", at the node's own addresses", "node port")
            } else {
                ("", "frontend")
            };
            for (class, comment) in [
                (Class::Plain, format!("where clients connect{place}")),
                (Class::ByPolicy, format!("likewise, with a policy{place}")),
                (Class::Refused, "where nobody answers".to_owned()),
                (Class::Inside, "those on this node go elsewhere".to_owned()),
                (Class::Dropped, "answered on other nodes only".to_owned()),
                (Class::KeepSource, "never masqueraded".to_owned()),
            ] {
                sets.push(set(class.set(node_port), key()).with_comment(comment));
            }
            for inside in [false, true] {
                sets.push(
                    set(backends(node_port, inside), with(&[], &[TypeOf::Numgen]))
                        .to_values([destination, TypeOf::ThDport])
                        .with_comment(format!("{subject} . index : who answers")),
                );
            }
            let mut remembered = set(affinity(node_port), with(&[source], &[]))
                .to_values([destination, TypeOf::ThDport])
                .with_comment(format!("client . {subject} : who answered last"));
            remembered.dynamic = true;
            remembered.timeouts = true;
            remembered.timeout = Some(LONGEST_AFFINITY);
            remembered.size = Some(MOST_CLIENTS);
            sets.push(remembered);
        }
        let restricted = Class::Restricted.set(false);
        let sources = [&self.key_types(false)[..], &[source]].concat();
        sets.extend([
            set(restricted, self.key_types(false))
                .with_comment("connections are taken from allowed sources only"),
            set(ALLOWED_SOURCES, sources)
                .with_intervals()
                .with_comment("frontend . range of clients"),
            set(HAIRPIN, vec![source, destination])
                .with_comment("endpoints here, which may reach themselves"),
            range(POD_RANGES, "Pods here: they keep their address"),
            range(SERVICE_RANGES, "refused where no Service is"),
            range(
                NODE_PORT_RANGES,
                "where node ports answer, if the node has it",
            ),
        ]);
        sets
    }

    /// The set of a branch.
    fn branch_set(self, branch: Branch) -> Set {
        let (Branch::Pick { node_port, .. } | Branch::Remember { node_port, .. }) = branch;
        Set::new(
            self.family(),
            TABLE,
            branch_set_name(branch),
            self.key_types(node_port),
        )
    }

    /// The rules of a branch, all in one chain.
    fn branch_rules(self, branch: Branch) -> Vec<Rule> {
        let rule = |expressions: Vec<Expr>| {
            Rule::new(self.family(), TABLE, branch_chain(branch), expressions)
        };
        match branch {
            Branch::Pick {
                node_port,
                inside,
                count,
            } => vec![rule(self.pick(node_port, inside, count))],
            Branch::Remember { node_port, seconds } => PROTOCOLS
                .into_iter()
                .map(|protocol| rule(self.remember(protocol, node_port, seconds)))
                .collect(),
        }
    }
}
