//! Chains: lists of rules, either called by other chains or hooked into the path of packets.

use std::fmt;

use super::table::Family;
use super::userdata;
use crate::wire::{Attr, Attrs, Malformed, Writer};

const TABLE: u16 = 1;
const NAME: u16 = 3;
const HOOK: u16 = 4;
const POLICY: u16 = 5;
const KIND: u16 = 7;
const USERDATA: u16 = 12;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_DEVICE: u16 = 3;

/// The priorities that have names in `nft` (`enum nf_ip_hook_priorities`).
pub mod priority {
    /// Destination NAT, in prerouting and output.
    pub const DSTNAT: i32 = -100;
    /// Packet filtering.
    pub const FILTER: i32 = 0;
    /// Source NAT, in postrouting and input.
    pub const SRCNAT: i32 = 100;
}

/// What a base chain is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainKind {
    /// Packet filtering.
    Filter,
    /// Network address translation: sees only the first packet of each connection.
    Nat,
    /// Rerouting of packets that were changed.
    Route,
}

impl ChainKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }
}

/// Where in the path of packets a base chain hangs (`enum nf_inet_hooks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// For this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// After routing.
    Postrouting,
    /// From a device, before anything else.
    Ingress,
}

impl Hook {
    const fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
            Self::Ingress => 5,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Ingress => "ingress",
        }
    }
}

/// What happens to packets that no rule of a base chain decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Policy {
    /// Through.
    Accept,
    /// Away.
    Drop,
}

/// What makes a chain a base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    /// What it is for.
    pub kind: ChainKind,
    /// Where it hangs.
    pub hook: Hook,
    /// Its place among the chains of the same hook: lower ones come first.
    pub priority: i32,
    /// For packets that no rule decided on.
    pub policy: Policy,
    /// The device whose packets it sees, for the ingress hook.
    pub device: Option<String>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name, unique in the table.
    pub name: String,
    /// Set for a base chain.
    pub base: Option<BaseChain>,
    /// What `nft list` shows as its comment.
    pub comment: Option<String>,
}

impl Chain {
    /// A chain that others jump to.
    pub fn regular(family: Family, table: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            family,
            table: table.into(),
            name: name.into(),
            base: None,
            comment: None,
        }
    }

    /// A chain with policy accept that the kernel calls for each packet at a hook.
    pub fn base(
        family: Family,
        table: impl Into<String>,
        name: impl Into<String>,
        kind: ChainKind,
        hook: Hook,
        priority: i32,
    ) -> Self {
        let base = BaseChain {
            kind,
            hook,
            priority,
            policy: Policy::Accept,
            device: None,
        };
        Self {
            base: Some(base),
            ..Self::regular(family, table, name)
        }
    }

    /// The same with a comment.
    #[must_use]
    pub fn with_comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        self.encode_name(w);
        if let Some(base) = &self.base {
            w.nest(HOOK, |w| {
                w.put_u32(HOOK_NUMBER, base.hook.number());
                w.put(HOOK_PRIORITY, &base.priority.to_be_bytes());
                if let Some(device) = &base.device {
                    w.put_str(HOOK_DEVICE, device);
                }
            });
            w.put_u32(
                POLICY,
                match base.policy {
                    Policy::Drop => 0,
                    Policy::Accept => 1,
                },
            );
            w.put_str(KIND, base.kind.name());
        }
        if let Some(comment) = &self.comment {
            w.put(
                USERDATA,
                &userdata::comment(userdata::CHAIN_COMMENT, comment),
            );
        }
    }

    pub(super) fn encode_name(&self, w: &mut Writer) {
        w.put_str(TABLE, &self.table);
        w.put_str(NAME, &self.name);
    }

    pub(super) fn decode(family: Family, attributes: Attrs<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            family,
            table: attributes
                .need(TABLE, "table of a chain")?
                .text()?
                .to_owned(),
            name: attributes.need(NAME, "chain name")?.text()?.to_owned(),
            base: attributes
                .find(HOOK)
                .map(|hook| BaseChain::decode(hook, attributes))
                .transpose()?,
            comment: attributes
                .find(USERDATA)
                .and_then(|a| userdata::read_comment(a.value, userdata::CHAIN_COMMENT)),
        })
    }
}

impl BaseChain {
    fn decode(hook: Attr<'_>, attributes: Attrs<'_>) -> Result<Self, Malformed> {
        let inside = hook.nested();
        Ok(Self {
            kind: match attributes.need(KIND, "chain type")?.text()? {
                "filter" => ChainKind::Filter,
                "nat" => ChainKind::Nat,
                "route" => ChainKind::Route,
                _ => return Err(Malformed("chain type")),
            },
            hook: match inside.need(HOOK_NUMBER, "hook")?.u32()? {
                0 => Hook::Prerouting,
                1 => Hook::Input,
                2 => Hook::Forward,
                3 => Hook::Output,
                4 => Hook::Postrouting,
                5 => Hook::Ingress,
                _ => return Err(Malformed("hook")),
            },
            priority: inside.need(HOOK_PRIORITY, "priority of a hook")?.u32()? as i32,
            policy: match attributes.find(POLICY).map_or(Ok(1), |a| a.u32())? {
                0 => Policy::Drop,
                1 => Policy::Accept,
                _ => return Err(Malformed("chain policy")),
            },
            device: inside
                .find(HOOK_DEVICE)
                .map(|a| a.text().map(str::to_owned))
                .transpose()?,
        })
    }
}

impl fmt::Display for BaseChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type {} hook {}", self.kind.name(), self.hook.name())?;
        if let Some(device) = &self.device {
            write!(f, " device {device:?}")?;
        }
        let policy = match self.policy {
            Policy::Accept => "accept",
            Policy::Drop => "drop",
        };
        write!(f, " priority {}; policy {policy}", self.priority)
    }
}
