//! Expressions: the steps of a rule. They load into registers, compare and look up registers, and decide.

use std::fmt;
use std::time::Duration;

use super::element::DATA_VALUE;
use super::set::hexadecimal;
use super::table::Family;
use super::verdict::{DATA_VERDICT, Verdict};
use crate::wire::{Attr, Attrs, Malformed, Writer};

const NAME: u16 = 1;
const DATA: u16 = 2;

/// One of the sixteen 32-bit registers. Longer values take consecutive ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reg(u8);

impl Reg {
    /// The first register.
    pub const FIRST: Self = Self(0);
    /// How many there are.
    pub const COUNT: u8 = 16;

    /// The register with this number, from 0 to 15.
    pub const fn new(slot: u8) -> Option<Self> {
        if slot < Self::COUNT {
            Some(Self(slot))
        } else {
            None
        }
    }

    /// The register behind a value of so many bytes that begins in this one; the last one if there is none.
    #[must_use]
    pub const fn after(self, bytes: usize) -> Self {
        let slot = self.0 as usize + bytes.div_ceil(4);
        if slot < Self::COUNT as usize {
            Self(slot as u8)
        } else {
            Self(Self::COUNT - 1)
        }
    }

    /// `enum nft_registers`: 1 to 4 are the 128-bit registers, 8 to 23 their quarters. The kernel reports a
    /// quarter that begins a whole one as the whole one.
    const fn number(self) -> u32 {
        if self.0.is_multiple_of(4) {
            1 + self.0 as u32 / 4
        } else {
            8 + self.0 as u32
        }
    }

    const fn from_number(number: u32) -> Result<Self, Malformed> {
        match number {
            1..=4 => Ok(Self((number as u8 - 1) * 4)),
            8..=23 => Ok(Self(number as u8 - 8)),
            _ => Err(Malformed("register")),
        }
    }
}

impl fmt::Display for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reg {}", self.number())
    }
}

/// Where a lookup puts what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dest {
    /// Into a register: a map to values.
    Reg(Reg),
    /// It decides: a map to verdicts.
    Verdict,
}

/// Declares an enum of kernel numbers with names; numbers without a name are kept.
macro_rules! numbers {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $number:literal $text:literal,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$inner])* $variant,)*
            /// A number without a name here.
            Other(u32),
        }

        impl $name {
            const fn number(self) -> u32 {
                match self {
                    $(Self::$variant => $number,)*
                    Self::Other(number) => number,
                }
            }

            const fn from_number(number: u32) -> Self {
                match number {
                    $($number => Self::$variant,)*
                    other => Self::Other(other),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($text),)*
                    Self::Other(number) => write!(f, "{number}"),
                }
            }
        }
    };
}

numbers! {
    /// Where in a packet to count from (`enum nft_payload_bases`).
    PayloadBase {
        /// The link layer's header.
        Link = 0 "link header",
        /// The network layer's header.
        Network = 1 "network header",
        /// The transport layer's header.
        Transport = 2 "transport header",
    }
}

numbers! {
    /// What is known of a packet beside its bytes (`enum nft_meta_keys`).
    MetaKey {
        /// Interface index it came in by.
        Iif = 4 "iif",
        /// Interface index it goes out by.
        Oif = 5 "oif",
        /// Interface name it came in by.
        Iifname = 6 "iifname",
        /// Interface name it goes out by.
        Oifname = 7 "oifname",
        /// Network layer's family.
        Nfproto = 15 "nfproto",
        /// Transport protocol.
        L4proto = 16 "l4proto",
    }
}

numbers! {
    /// What is known of a packet's connection (`enum nft_ct_keys`).
    CtKey {
        /// New, established, related, invalid: bits.
        State = 0 "state",
        /// 0 original, 1 reply.
        Direction = 1 "direction",
        /// `enum ip_conntrack_status`: bits; 0x20 is DNAT.
        Status = 2 "status",
        /// Transport protocol.
        Protocol = 10 "protocol",
        /// Source port of a direction.
        ProtoSrc = 11 "proto_src",
        /// Destination port of a direction.
        ProtoDst = 12 "proto_dst",
        /// IPv4 source address of a direction.
        SrcIp = 19 "src_ip",
        /// IPv4 destination address of a direction.
        DstIp = 20 "dst_ip",
        /// IPv6 source address of a direction.
        SrcIp6 = 21 "src_ip6",
        /// IPv6 destination address of a direction.
        DstIp6 = 22 "dst_ip6",
    }
}

impl CtKey {
    /// `IPS_DST_NAT`: the connection's destination was translated.
    pub const STATUS_DNAT: u32 = 0x20;
}

numbers! {
    /// How a register is compared (`enum nft_cmp_ops`); bytes in big-endian order.
    CmpOp {
        /// Equal.
        Eq = 0 "eq",
        /// Not equal.
        Neq = 1 "neq",
        /// Less.
        Lt = 2 "lt",
        /// Less or equal.
        Lte = 3 "lte",
        /// Greater.
        Gt = 4 "gt",
        /// Greater or equal.
        Gte = 5 "gte",
    }
}

numbers! {
    /// What a `fib` asks of the routing tables (`enum nft_fib_result`).
    FibResult {
        /// Index of the interface.
        Oif = 1 "oif",
        /// Name of the interface.
        Oifname = 2 "oifname",
        /// The address's type (`RTN_*`): 2 is local.
        Type = 3 "type",
    }
}

impl FibResult {
    /// `RTN_LOCAL`: an address of this host, in host byte order as `fib` yields it.
    pub const LOCAL: u32 = 2;
}

/// Which address a `fib` asks about (`enum nft_fib_flags`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FibFlags(u32);

impl FibFlags {
    /// The source address.
    pub const SADDR: Self = Self(1);
    /// The destination address.
    pub const DADDR: Self = Self(2);
}

impl fmt::Display for FibFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["saddr", "daddr", "mark", "iif", "oif", "present"];
        let mut separator = "";
        for (bit, name) in names.into_iter().enumerate() {
            if self.0 & (1 << bit) != 0 {
                write!(f, "{separator}{name}")?;
                separator = " . ";
            }
        }
        Ok(())
    }
}

numbers! {
    /// Where numbers come from (`enum nft_ng_types`).
    NumgenKind {
        /// Counted up, for each packet.
        Incremental = 0 "inc",
        /// Drawn, uniformly.
        Random = 1 "random",
    }
}

numbers! {
    /// Which address is translated (`enum nft_nat_types`).
    NatKind {
        /// The source.
        Snat = 0 "snat",
        /// The destination.
        Dnat = 1 "dnat",
    }
}

/// Flags of address translation (`NF_NAT_RANGE_*`).
pub mod nat_flags {
    /// Draw the port.
    pub const RANDOM: u32 = 4;
    /// The same source gets the same address again.
    pub const PERSISTENT: u32 = 8;
    /// Draw the port, unpredictably.
    pub const FULLY_RANDOM: u32 = 16;
    /// Set by the kernel where registers hold addresses (1) and ports (2): nothing to ask for.
    pub(super) const IMPLIED: u32 = 3;
}

numbers! {
    /// What a rule does to a set (`enum nft_dynset_ops`).
    DynsetOp {
        /// Adds, if it is not there.
        Add = 0 "add",
        /// Adds or renews.
        Update = 1 "update",
        /// Takes away.
        Delete = 2 "delete",
    }
}

/// Which direction of a connection a `ct` load means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CtDirection {
    /// As the client sent it.
    Original,
    /// As the answers come.
    Reply,
}

/// What a sender is told when its packet is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reject {
    /// ICMP (in `ip` tables) or ICMPv6 (in `ip6` tables) unreachable, with this code.
    Icmp(u8),
    /// TCP reset.
    TcpReset,
    /// Unreachable in `inet` tables: 0 no route, 1 port, 2 host, 3 administratively prohibited.
    Icmpx(u8),
}

/// A step of a rule. The text form is that of `nft --debug=netlink`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expr {
    /// Loads bytes of the packet.
    Payload {
        /// Counted from here.
        base: PayloadBase,
        /// First byte.
        offset: u32,
        /// Number of bytes.
        length: u32,
        /// To here.
        dest: Reg,
    },
    /// Loads what is known of the packet.
    Meta {
        /// What.
        key: MetaKey,
        /// To here.
        dest: Reg,
    },
    /// Loads what is known of the connection.
    Ct {
        /// What.
        key: CtKey,
        /// Of which direction, for addresses and ports.
        direction: Option<CtDirection>,
        /// To here.
        dest: Reg,
    },
    /// Asks the routing tables.
    Fib {
        /// About which address.
        flags: FibFlags,
        /// What.
        result: FibResult,
        /// To here.
        dest: Reg,
    },
    /// Looks a key up; does not match if it is not there.
    Lookup {
        /// Name of the set or map.
        set: String,
        /// Where the key begins.
        source: Reg,
        /// For maps, where the data go.
        dest: Option<Dest>,
        /// Matches if it is not there.
        invert: bool,
    },
    /// Puts a constant into a register.
    Immediate {
        /// To here.
        dest: Reg,
        /// What.
        value: Vec<u8>,
    },
    /// Decides.
    Verdict(Verdict<'static>),
    /// Compares a register with a constant.
    Cmp {
        /// How.
        op: CmpOp,
        /// From here.
        source: Reg,
        /// With this.
        value: Vec<u8>,
    },
    /// Compares a register with a range, both ends included.
    Range {
        /// In it, or not.
        op: CmpOp,
        /// From here.
        source: Reg,
        /// The least.
        from: Vec<u8>,
        /// The greatest.
        to: Vec<u8>,
    },
    /// And with a mask, then exclusive or.
    Bitwise {
        /// From here.
        source: Reg,
        /// To here.
        dest: Reg,
        /// The mask, as long as the value.
        mask: Vec<u8>,
        /// What to flip.
        xor: Vec<u8>,
    },
    /// Draws or counts a number from `offset` to `offset + modulus - 1`.
    Numgen {
        /// Drawn or counted.
        kind: NumgenKind,
        /// How many different numbers.
        modulus: u32,
        /// The least.
        offset: u32,
        /// To here.
        dest: Reg,
    },
    /// Translates an address.
    Nat {
        /// Which.
        kind: NatKind,
        /// The address's family.
        family: Family,
        /// Where the new address is.
        address: Option<Reg>,
        /// Where the new port is.
        port: Option<Reg>,
        /// See [`nat_flags`].
        flags: u32,
    },
    /// Translates the source to the address of the interface that the packet leaves by.
    Masquerade {
        /// See [`nat_flags`].
        flags: u32,
    },
    /// Refuses the packet and tells its sender.
    Reject(Reject),
    /// Counts.
    Counter {
        /// So far.
        packets: u64,
        /// So far.
        bytes: u64,
    },
    /// Adds to a set, or takes from it.
    Dynset {
        /// Name of the set or map.
        set: String,
        /// What to do.
        op: DynsetOp,
        /// Where the key begins.
        key: Reg,
        /// For maps, where the data begin.
        data: Option<Reg>,
        /// How long the element lives.
        timeout: Option<Duration>,
    },
    /// An expression that this crate does not know: only ever read.
    Other {
        /// Its name in the kernel.
        name: String,
        /// Its attributes.
        data: Vec<u8>,
    },
}

impl Expr {
    /// Loads bytes of the network header.
    pub const fn network(offset: u32, length: u32, dest: Reg) -> Self {
        Self::Payload {
            base: PayloadBase::Network,
            offset,
            length,
            dest,
        }
    }

    /// Loads bytes of the transport header.
    pub const fn transport(offset: u32, length: u32, dest: Reg) -> Self {
        Self::Payload {
            base: PayloadBase::Transport,
            offset,
            length,
            dest,
        }
    }

    /// Matches if a key is in a set.
    pub fn contains(set: impl Into<String>, source: Reg) -> Self {
        Self::Lookup {
            set: set.into(),
            source,
            dest: None,
            invert: false,
        }
    }

    /// Loads what a map has for a key.
    pub fn map(set: impl Into<String>, source: Reg, dest: Reg) -> Self {
        Self::Lookup {
            set: set.into(),
            source,
            dest: Some(Dest::Reg(dest)),
            invert: false,
        }
    }

    /// Does what a map says for a key.
    pub fn verdict_map(set: impl Into<String>, source: Reg) -> Self {
        Self::Lookup {
            set: set.into(),
            source,
            dest: Some(Dest::Verdict),
            invert: false,
        }
    }

    /// Matches if a register has this value.
    pub fn equals(source: Reg, value: impl Into<Vec<u8>>) -> Self {
        Self::Cmp {
            op: CmpOp::Eq,
            source,
            value: value.into(),
        }
    }

    /// Matches if a register has not this value.
    pub fn differs(source: Reg, value: impl Into<Vec<u8>>) -> Self {
        Self::Cmp {
            op: CmpOp::Neq,
            source,
            value: value.into(),
        }
    }

    const fn name(&self) -> &str {
        match self {
            Self::Payload { .. } => "payload",
            Self::Meta { .. } => "meta",
            Self::Ct { .. } => "ct",
            Self::Fib { .. } => "fib",
            Self::Lookup { .. } => "lookup",
            Self::Immediate { .. } | Self::Verdict(_) => "immediate",
            Self::Cmp { .. } => "cmp",
            Self::Range { .. } => "range",
            Self::Bitwise { .. } => "bitwise",
            Self::Numgen { .. } => "numgen",
            Self::Nat { .. } => "nat",
            Self::Masquerade { .. } => "masq",
            Self::Reject(_) => "reject",
            Self::Counter { .. } => "counter",
            Self::Dynset { .. } => "dynset",
            Self::Other { name, .. } => name.as_str(),
        }
    }

    /// Writes `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`.
    pub(super) fn encode(&self, w: &mut Writer) {
        w.put_str(NAME, self.name());
        w.nest(DATA, |w| self.encode_data(w));
    }

    fn encode_data(&self, w: &mut Writer) {
        let value =
            |w: &mut Writer, kind: u16, bytes: &[u8]| w.nest(kind, |w| w.put(DATA_VALUE, bytes));
        match self {
            Self::Payload {
                base,
                offset,
                length,
                dest,
            } => {
                w.put_u32(1, dest.number());
                w.put_u32(2, base.number());
                w.put_u32(3, *offset);
                w.put_u32(4, *length);
            }
            Self::Meta { key, dest } => {
                w.put_u32(1, dest.number());
                w.put_u32(2, key.number());
            }
            Self::Ct {
                key,
                direction,
                dest,
            } => {
                w.put_u32(1, dest.number());
                w.put_u32(2, key.number());
                match direction {
                    None => {}
                    Some(CtDirection::Original) => w.put_u8(3, 0),
                    Some(CtDirection::Reply) => w.put_u8(3, 1),
                }
            }
            Self::Fib {
                flags,
                result,
                dest,
            } => {
                w.put_u32(1, dest.number());
                w.put_u32(2, result.number());
                w.put_u32(3, flags.0);
            }
            Self::Lookup {
                set,
                source,
                dest,
                invert,
            } => {
                w.put_str(1, set);
                w.put_u32(2, source.number());
                match dest {
                    None => {}
                    Some(Dest::Reg(dest)) => w.put_u32(3, dest.number()),
                    Some(Dest::Verdict) => w.put_u32(3, 0),
                }
                if *invert {
                    w.put_u32(5, 1);
                }
            }
            Self::Immediate { dest, value: bytes } => {
                w.put_u32(1, dest.number());
                value(w, 2, bytes);
            }
            Self::Verdict(verdict) => {
                w.put_u32(1, 0);
                w.nest(2, |w| verdict.encode(w));
            }
            Self::Cmp {
                op,
                source,
                value: bytes,
            } => {
                w.put_u32(1, source.number());
                w.put_u32(2, op.number());
                value(w, 3, bytes);
            }
            Self::Range {
                op,
                source,
                from,
                to,
            } => {
                w.put_u32(1, source.number());
                w.put_u32(2, op.number());
                value(w, 3, from);
                value(w, 4, to);
            }
            Self::Bitwise {
                source,
                dest,
                mask,
                xor,
            } => {
                w.put_u32(1, source.number());
                w.put_u32(2, dest.number());
                w.put_u32(3, mask.len() as u32);
                value(w, 4, mask);
                value(w, 5, xor);
            }
            Self::Numgen {
                kind,
                modulus,
                offset,
                dest,
            } => {
                w.put_u32(1, dest.number());
                w.put_u32(2, *modulus);
                w.put_u32(3, kind.number());
                w.put_u32(4, *offset);
            }
            Self::Nat {
                kind,
                family,
                address,
                port,
                flags,
            } => {
                w.put_u32(1, kind.number());
                w.put_u32(2, u32::from(family.number()));
                if let Some(address) = address {
                    w.put_u32(3, address.number());
                }
                if let Some(port) = port {
                    w.put_u32(5, port.number());
                }
                if *flags != 0 {
                    w.put_u32(7, *flags);
                }
            }
            Self::Masquerade { flags } => {
                if *flags != 0 {
                    w.put_u32(1, *flags);
                }
            }
            Self::Reject(reject) => {
                let (kind, code) = match reject {
                    Reject::Icmp(code) => (0, *code),
                    Reject::TcpReset => (1, 0),
                    Reject::Icmpx(code) => (2, *code),
                };
                w.put_u32(1, kind);
                w.put_u8(2, code);
            }
            Self::Counter { packets, bytes } => {
                w.put_u64(1, *bytes);
                w.put_u64(2, *packets);
            }
            Self::Dynset {
                set,
                op,
                key,
                data,
                timeout,
            } => {
                w.put_str(1, set);
                w.put_u32(3, op.number());
                w.put_u32(4, key.number());
                if let Some(data) = data {
                    w.put_u32(5, data.number());
                }
                if let Some(timeout) = timeout {
                    w.put_u64(6, timeout.as_millis() as u64);
                }
            }
            Self::Other { data, .. } => w.bytes.extend_from_slice(data),
        }
    }

    /// Reads a list element with `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`.
    pub(super) fn decode(attribute: Attr<'_>) -> Result<Self, Malformed> {
        let inside = attribute.nested();
        let name = inside.need(NAME, "name of an expression")?.text()?;
        let bytes = inside.find(DATA).map_or(&[][..], |a| a.value);
        let data = Attributes(Attrs::new(bytes));
        Ok(match name {
            "payload" if data.0.find(1).is_some() => Self::Payload {
                base: PayloadBase::from_number(data.number(2)?),
                offset: data.number(3)?,
                length: data.number(4)?,
                dest: data.register(1)?,
            },
            "meta" if data.0.find(1).is_some() => Self::Meta {
                key: MetaKey::from_number(data.number(2)?),
                dest: data.register(1)?,
            },
            "ct" if data.0.find(1).is_some() => Self::Ct {
                key: CtKey::from_number(data.number(2)?),
                direction: match data.0.find(3).map(|a| a.u8()).transpose()? {
                    None => None,
                    Some(0) => Some(CtDirection::Original),
                    Some(1) => Some(CtDirection::Reply),
                    Some(_) => return Err(Malformed("direction of a connection")),
                },
                dest: data.register(1)?,
            },
            "fib" => Self::Fib {
                flags: FibFlags(data.number(3)?),
                result: FibResult::from_number(data.number(2)?),
                dest: data.register(1)?,
            },
            "lookup" => Self::Lookup {
                set: data.text(1)?,
                source: data.register(2)?,
                dest: match data.0.find(3).map(|a| a.u32()).transpose()? {
                    None => None,
                    Some(0) => Some(Dest::Verdict),
                    Some(number) => Some(Dest::Reg(Reg::from_number(number)?)),
                },
                invert: data.0.find(5).map_or(Ok(0), |a| a.u32())? & 1 != 0,
            },
            "immediate" => {
                let value = data.0.need(2, "value of an immediate")?.nested();
                match value.find(DATA_VERDICT) {
                    Some(verdict) => Self::Verdict(Verdict::decode(verdict)?),
                    None => Self::Immediate {
                        dest: data.register(1)?,
                        value: data.value(2)?,
                    },
                }
            }
            "cmp" => Self::Cmp {
                op: CmpOp::from_number(data.number(2)?),
                source: data.register(1)?,
                value: data.value(3)?,
            },
            "range" => Self::Range {
                op: CmpOp::from_number(data.number(2)?),
                source: data.register(1)?,
                from: data.value(3)?,
                to: data.value(4)?,
            },
            // Operation 0 is this one; shifts are not offered here.
            "bitwise" if data.0.find(6).map_or(Ok(0), |a| a.u32())? == 0 => Self::Bitwise {
                source: data.register(1)?,
                dest: data.register(2)?,
                mask: data.value(4)?,
                xor: data.value(5)?,
            },
            "numgen" => Self::Numgen {
                kind: NumgenKind::from_number(data.number(3)?),
                modulus: data.number(2)?,
                offset: data.0.find(4).map_or(Ok(0), |a| a.u32())?,
                dest: data.register(1)?,
            },
            // Ranges of addresses and ports are not offered here, so those of others are kept as they are.
            "nat" if data.same(3, 4) && data.same(5, 6) => Self::Nat {
                kind: NatKind::from_number(data.number(1)?),
                family: Family::from_number(
                    u8::try_from(data.number(2)?).map_err(|_| Malformed("family"))?,
                )?,
                address: data.maybe_register(3)?,
                port: data.maybe_register(5)?,
                flags: data.0.find(7).map_or(Ok(0), |a| a.u32())? & !nat_flags::IMPLIED,
            },
            "masq" if data.0.find(2).is_none() => Self::Masquerade {
                flags: data.0.find(1).map_or(Ok(0), |a| a.u32())?,
            },
            "reject" => {
                let code = data.0.find(2).map_or(Ok(0), |a| a.u8())?;
                Self::Reject(match data.number(1)? {
                    0 => Reject::Icmp(code),
                    1 => Reject::TcpReset,
                    2 => Reject::Icmpx(code),
                    _ => return Err(Malformed("reject")),
                })
            }
            "counter" => Self::Counter {
                packets: data.0.find(2).map_or(Ok(0), |a| a.u64())?,
                bytes: data.0.find(1).map_or(Ok(0), |a| a.u64())?,
            },
            "dynset" if data.0.find(7).is_none() && data.0.find(10).is_none() => Self::Dynset {
                set: data.text(1)?,
                op: DynsetOp::from_number(data.number(3)?),
                key: data.register(4)?,
                data: data.maybe_register(5)?,
                timeout: data
                    .0
                    .find(6)
                    .map(|a| a.u64().map(Duration::from_millis))
                    .transpose()?,
            },
            other => Self::Other {
                name: other.to_owned(),
                data: bytes.to_vec(),
            },
        })
    }
}

/// The attributes of an expression, by number.
struct Attributes<'a>(Attrs<'a>);

impl Attributes<'_> {
    fn number(&self, kind: u16) -> Result<u32, Malformed> {
        self.0.need(kind, "number of an expression")?.u32()
    }

    fn register(&self, kind: u16) -> Result<Reg, Malformed> {
        Reg::from_number(self.number(kind)?)
    }

    fn maybe_register(&self, kind: u16) -> Result<Option<Reg>, Malformed> {
        self.0
            .find(kind)
            .map(|a| a.u32().and_then(Reg::from_number))
            .transpose()
    }

    fn text(&self, kind: u16) -> Result<String, Malformed> {
        Ok(self
            .0
            .need(kind, "name in an expression")?
            .text()?
            .to_owned())
    }

    fn value(&self, kind: u16) -> Result<Vec<u8>, Malformed> {
        let attribute = self.0.need(kind, "value of an expression")?;
        Ok(attribute
            .nested()
            .need(DATA_VALUE, "value of an expression")?
            .value
            .to_vec())
    }

    /// Whether an upper end is that of the lower one, or left out.
    fn same(&self, least: u16, greatest: u16) -> bool {
        let value = |kind| self.0.find(kind).map(|a| a.value);
        value(greatest).is_none() || value(least) == value(greatest)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[ ")?;
        match self {
            Self::Payload {
                base,
                offset,
                length,
                dest,
            } => {
                write!(f, "payload load {length}b @ {base} + {offset} => {dest}")
            }
            Self::Meta { key, dest } => write!(f, "meta load {key} => {dest}"),
            Self::Ct {
                key,
                direction,
                dest,
            } => {
                write!(f, "ct load {key} => {dest}")?;
                match direction {
                    None => Ok(()),
                    Some(CtDirection::Original) => f.write_str(", dir original"),
                    Some(CtDirection::Reply) => f.write_str(", dir reply"),
                }
            }
            Self::Fib {
                flags,
                result,
                dest,
            } => write!(f, "fib {flags} {result} => {dest}"),
            Self::Lookup {
                set,
                source,
                dest,
                invert,
            } => {
                write!(f, "lookup {source} set {set}")?;
                match dest {
                    None => {}
                    Some(Dest::Reg(dest)) => write!(f, " => {dest}")?,
                    Some(Dest::Verdict) => f.write_str(" => verdict")?,
                }
                if *invert {
                    f.write_str(" invert")
                } else {
                    Ok(())
                }
            }
            Self::Immediate { dest, value } => write!(f, "immediate {dest} {}", hexadecimal(value)),
            Self::Verdict(verdict) => write!(f, "{verdict}"),
            Self::Cmp { op, source, value } => {
                write!(f, "cmp {op} {source} {}", hexadecimal(value))
            }
            Self::Range {
                op,
                source,
                from,
                to,
            } => {
                write!(
                    f,
                    "range {op} {source} {} {}",
                    hexadecimal(from),
                    hexadecimal(to)
                )
            }
            Self::Bitwise {
                source,
                dest,
                mask,
                xor,
            } => {
                write!(
                    f,
                    "bitwise {dest} = ( {source} & {} ) ^ {}",
                    hexadecimal(mask),
                    hexadecimal(xor)
                )
            }
            Self::Numgen {
                kind,
                modulus,
                offset,
                dest,
            } => {
                write!(f, "numgen {dest} = {kind} mod {modulus}")?;
                if *offset == 0 {
                    Ok(())
                } else {
                    write!(f, " offset {offset}")
                }
            }
            Self::Nat {
                kind,
                family,
                address,
                port,
                flags,
            } => {
                write!(f, "nat {kind} {family}")?;
                if let Some(address) = address {
                    write!(f, " addr {address}")?;
                }
                if let Some(port) = port {
                    write!(f, " port {port}")?;
                }
                if *flags == 0 {
                    Ok(())
                } else {
                    write!(f, " flags {flags:#x}")
                }
            }
            Self::Masquerade { flags } => {
                f.write_str("masq")?;
                if *flags == 0 {
                    Ok(())
                } else {
                    write!(f, " flags {flags:#x}")
                }
            }
            Self::Reject(Reject::Icmp(code)) => write!(f, "reject icmp code {code}"),
            Self::Reject(Reject::TcpReset) => f.write_str("reject tcp reset"),
            Self::Reject(Reject::Icmpx(code)) => write!(f, "reject icmpx code {code}"),
            Self::Counter { packets, bytes } => write!(f, "counter pkts {packets} bytes {bytes}"),
            Self::Dynset {
                set,
                op,
                key,
                data,
                timeout,
            } => {
                write!(f, "dynset {op} {key} set {set}")?;
                if let Some(data) = data {
                    write!(f, " data {data}")?;
                }
                match timeout {
                    Some(timeout) => write!(f, " timeout {}ms", timeout.as_millis()),
                    None => Ok(()),
                }
            }
            Self::Other { name, data } => write!(f, "{name} {}", hexadecimal(data)),
        }?;
        f.write_str(" ]")
    }
}
