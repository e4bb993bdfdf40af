//! The names of the table's chains and sets.

use std::borrow::Cow;

use crate::model::Protocol;
use crate::plan::{Branch, FrontendEntry, FrontendKey, RangeSet};

/// The name of the table, in the families `ip` and `ip6`.
pub const TABLE: &str = "seaway-proxy";

pub(super) const ALLOWED_SOURCES: &str = "allowed-sources";
pub(super) const HAIRPIN: &str = "hairpin";
pub(super) const POD_RANGES: &str = "pod-ranges";
pub(super) const SERVICE_RANGES: &str = "service-ranges";
pub(super) const NODE_PORT_RANGES: &str = "node-port-ranges";

pub(super) const SERVICES: &str = "services";
pub(super) const REFUSE: &str = "refuse";
pub(super) const REMEMBER: &str = "remember";
/// `masquerade` alone is a word of the language of `nft`, which no chain may be named.
pub(super) const MASQUERADE: &str = "masquerade-strangers";
pub(super) const HAIRPIN_ONLY: &str = "masquerade-hairpin";

pub(super) const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// What the rules have to know of a frontend, each a set of frontends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Plain,
    ByPolicy,
    Refused,
    Inside,
    Dropped,
    KeepSource,
    Restricted,
}

impl Class {
    pub(super) const ALL: [Self; 7] = [
        Self::Plain,
        Self::ByPolicy,
        Self::Refused,
        Self::Inside,
        Self::Dropped,
        Self::KeepSource,
        Self::Restricted,
    ];

    pub(super) const fn set(self, node_port: bool) -> &'static str {
        match (self, node_port) {
            (Self::Plain, false) => "frontends",
            (Self::Plain, true) => "node-ports",
            (Self::ByPolicy, false) => "frontends-by-policy",
            (Self::ByPolicy, true) => "node-ports-by-policy",
            (Self::Refused, false) => "no-endpoints",
            (Self::Refused, true) => "node-ports-refused",
            (Self::Inside, false) => "frontends-inside",
            (Self::Inside, true) => "node-ports-inside",
            (Self::Dropped, false) => "frontends-dropped",
            (Self::Dropped, true) => "node-ports-dropped",
            (Self::KeepSource, false) => "frontends-keep-source",
            (Self::KeepSource, true) => "node-ports-keep-source",
            (Self::Restricted, false) => "frontends-restricted",
            (Self::Restricted, true) => "node-ports-restricted",
        }
    }

    /// Whether its elements carry the label of the frontend. Every frontend is in just one such class.
    pub(super) const fn is_labelled(self) -> bool {
        matches!(self, Self::Plain | Self::ByPolicy | Self::Refused)
    }

    /// The classes of a frontend.
    fn of(entry: &FrontendEntry) -> impl Iterator<Item = Self> {
        let refuses = entry.refuses();
        let by_policy = !refuses && !entry.is_plain();
        [
            (Self::Refused, refuses),
            (Self::Plain, entry.is_plain()),
            (Self::ByPolicy, by_policy),
            (Self::Inside, by_policy && entry.inside > 0),
            (Self::Dropped, by_policy && entry.drops),
            (Self::KeepSource, by_policy && entry.keeps_source),
            (Self::Restricted, by_policy && entry.restricted),
        ]
        .into_iter()
        .filter_map(|(class, applies)| applies.then_some(class))
    }
}

/// The sets that hold a frontend, and whether with its label.
pub(super) fn sets_of(key: &FrontendKey, entry: &FrontendEntry) -> Vec<(Cow<'static, str>, bool)> {
    let node_port = is_node_port(key);
    Class::of(entry)
        .map(|class| (Cow::Borrowed(class.set(node_port)), class.is_labelled()))
        .chain(
            entry
                .branches(key)
                .map(|branch| (Cow::Owned(branch_set_name(branch)), false)),
        )
        .collect()
}

pub(super) const fn is_node_port(key: &FrontendKey) -> bool {
    matches!(key, FrontendKey::NodePort { .. })
}

/// The map from a frontend and an index to a backend.
pub(super) const fn backends(node_port: bool, inside: bool) -> &'static str {
    match (node_port, inside) {
        (false, false) => "backends",
        (false, true) => "backends-inside",
        (true, false) => "node-port-backends",
        (true, true) => "node-port-backends-inside",
    }
}

/// The map from a client and a frontend to the backend that answered last.
pub(super) const fn affinity(node_port: bool) -> &'static str {
    if node_port {
        "node-port-affinity"
    } else {
        "affinity"
    }
}

pub(super) const fn pick_chain(node_port: bool, inside: bool) -> &'static str {
    match (node_port, inside) {
        (false, false) => "pick",
        (false, true) => "pick-inside",
        (true, false) => "pick-node-port",
        (true, true) => "pick-node-port-inside",
    }
}

pub(super) const fn policy_chain(node_port: bool) -> &'static str {
    if node_port {
        "by-policy-node-port"
    } else {
        "by-policy"
    }
}

pub(super) const fn inside_chain(node_port: bool) -> &'static str {
    if node_port {
        "inside-node-port"
    } else {
        "inside"
    }
}

pub(super) const fn range_set(set: RangeSet) -> &'static str {
    match set {
        RangeSet::Pods => POD_RANGES,
        RangeSet::Services => SERVICE_RANGES,
        RangeSet::NodePorts => NODE_PORT_RANGES,
    }
}

/// The chain with the rules of a branch.
pub(super) const fn branch_chain(branch: Branch) -> &'static str {
    match branch {
        Branch::Pick {
            node_port, inside, ..
        } => pick_chain(node_port, inside),
        Branch::Remember { .. } => REMEMBER,
    }
}

pub(super) fn branch_set_name(branch: Branch) -> String {
    match branch {
        Branch::Pick {
            node_port,
            inside: false,
            count,
        } => format!("{}-{count}", Class::Plain.set(node_port)),
        Branch::Pick {
            node_port,
            inside: true,
            count,
        } => format!("{}-{count}", Class::Inside.set(node_port)),
        Branch::Remember { node_port, seconds } => {
            format!("{}-for-{seconds}", Class::Plain.set(node_port))
        }
    }
}

/// The branch whose set is called so.
pub(super) fn read_branch(set: &str) -> Option<Branch> {
    let (_, number) = set.rsplit_once('-')?;
    let number = number.parse().ok().filter(|number| *number > 0)?;
    let candidates = [false, true].into_iter().flat_map(|node_port| {
        [
            Branch::Pick {
                node_port,
                inside: false,
                count: number,
            },
            Branch::Pick {
                node_port,
                inside: true,
                count: number,
            },
            Branch::Remember {
                node_port,
                seconds: number,
            },
        ]
    });
    // A number may be written in many ways, a name in one.
    candidates
        .into_iter()
        .find(|branch| branch_set_name(*branch) == set)
}
