//! The rules, those that are always there and those of branches.

use std::time::Duration;

use seaway_kernel::nft::{
    CtDirection, CtKey, DynsetOp, Expr, FibFlags, FibResult, MetaKey, NatKind, NumgenKind, Reg,
    Reject, Rule, Verdict, nat_flags,
};

use super::Layout;
use super::names::*;
use crate::model::{IpFamily, Protocol};
use crate::plan::Branch;

/// ICMP destination unreachable: port unreachable (RFC 792).
const ICMP_PORT_UNREACHABLE: u8 = 3;
/// ICMPv6 destination unreachable: port unreachable (RFC 4443).
const ICMPV6_PORT_UNREACHABLE: u8 = 4;

const FIRST: Reg = Reg::FIRST;

fn goto(chain: &'static str) -> Expr {
    Expr::Verdict(Verdict::goto(chain))
}

fn jump(chain: &'static str) -> Expr {
    Expr::Verdict(Verdict::jump(chain))
}

/// Matches if the packet's destination is, or is not, an address of this host.
fn destination_is_local(is: bool) -> [Expr; 2] {
    let local = FibResult::LOCAL.to_ne_bytes();
    [
        Expr::Fib {
            flags: FibFlags::DADDR,
            result: FibResult::Type,
            dest: FIRST,
        },
        if is {
            Expr::equals(FIRST, local)
        } else {
            Expr::differs(FIRST, local)
        },
    ]
}

/// Matches if the packet comes from an address of this host.
fn source_is_local() -> [Expr; 2] {
    [
        Expr::Fib {
            flags: FibFlags::SADDR,
            result: FibResult::Type,
            dest: FIRST,
        },
        Expr::equals(FIRST, FibResult::LOCAL.to_ne_bytes()),
    ]
}

fn load_protocol(dest: Reg) -> Expr {
    Expr::Meta {
        key: MetaKey::L4proto,
        dest,
    }
}

fn load_original(key: CtKey, dest: Reg) -> Expr {
    Expr::Ct {
        key,
        direction: Some(CtDirection::Original),
        dest,
    }
}

impl Layout {
    /// Loads the packet's source address.
    const fn load_source(self, dest: Reg) -> Expr {
        match self.family {
            IpFamily::V4 => Expr::network(12, 4, dest),
            IpFamily::V6 => Expr::network(8, 16, dest),
        }
    }

    /// Loads the packet's destination address.
    const fn load_destination(self, dest: Reg) -> Expr {
        match self.family {
            IpFamily::V4 => Expr::network(16, 4, dest),
            IpFamily::V6 => Expr::network(24, 16, dest),
        }
    }

    fn rule(self, chain: &str, parts: impl IntoIterator<Item = Vec<Expr>>) -> Rule {
        let expressions: Vec<Expr> = parts.into_iter().flatten().collect();
        Rule::new(self.family(), super::TABLE, chain, expressions)
    }

    /// The rules that are always there.
    pub(super) fn rules(self) -> Vec<Rule> {
        let mut rules = vec![
            self.rule("nat-prerouting", [vec![goto(SERVICES)]]),
            self.rule("nat-output", [vec![goto(SERVICES)]]),
        ];
        rules.extend(self.services());
        for node_port in [false, true] {
            rules.extend(self.by_policy(node_port));
        }
        rules.extend(self.after_translation());
        rules.extend(self.refusing());
        rules.extend(self.masquerading());
        rules
    }

    /// A change may come while a packet is between two lookups, and move its frontend to where it has looked
    /// already. So who finds no backend looks once more.
    fn services(self) -> Vec<Rule> {
        let to = |node_port: bool, class: Class, end: Expr| {
            let place = if node_port {
                self.node_address()
            } else if matches!(class, Class::Refused) {
                // The node's own DNS server, for one, listens on an address that a Service may have as well.
                destination_is_local(false).to_vec()
            } else {
                Vec::new()
            };
            self.rule(
                SERVICES,
                [
                    self.key_in(node_port, class.set(node_port)),
                    place,
                    vec![end],
                ],
            )
        };
        let mut rules = Vec::new();
        for node_port in [false, true] {
            let plain = to(node_port, Class::Plain, jump(pick_chain(node_port, false)));
            let by_policy = to(node_port, Class::ByPolicy, jump(policy_chain(node_port)));
            let again = "again, if a change came between";
            rules.extend([
                plain.clone(),
                by_policy.clone(),
                plain.with_comment(again),
                by_policy.with_comment(again),
                to(node_port, Class::Refused, goto(REFUSE)),
            ]);
        }
        rules
    }

    /// Frontends with a policy: who may come, who came before, who is here anyway.
    fn by_policy(self, node_port: bool) -> Vec<Rule> {
        let chain = policy_chain(node_port);
        let mut rules = Vec::new();
        if !node_port {
            let (mut not_allowed, behind) = self.load_key(false);
            not_allowed.extend([
                self.load_source(behind),
                Expr::Lookup {
                    set: ALLOWED_SOURCES.to_owned(),
                    source: FIRST,
                    dest: None,
                    invert: true,
                },
                Expr::Verdict(Verdict::Drop),
            ]);
            let restricted = self.key_in(false, Class::Restricted.set(false));
            rules.push(self.rule(chain, [restricted, not_allowed]));
        }
        // As `nft` has it, a translation needs a transport protocol, and it looks for it before the lookup.
        for protocol in PROTOCOLS {
            rules.push(self.rule(chain, [self.to_remembered(protocol, node_port)]));
        }
        let is_inside = || self.key_in(node_port, Class::Inside.set(node_port));
        let end = vec![goto(inside_chain(node_port))];
        rules.extend([
            self.rule(
                chain,
                [is_inside(), source_is_local().to_vec(), end.clone()],
            ),
            self.rule(chain, [is_inside(), self.source_in(POD_RANGES), end]),
            self.rule(
                chain,
                [
                    self.key_in(node_port, Class::Dropped.set(node_port)),
                    vec![Expr::Verdict(Verdict::Drop)],
                ],
            ),
            self.rule(chain, [vec![goto(pick_chain(node_port, false))]]),
            self.rule(
                inside_chain(node_port),
                [vec![goto(pick_chain(node_port, true))]],
            ),
        ]);
        rules
    }

    /// Sends a client to where it was sent before.
    fn to_remembered(self, protocol: Protocol, node_port: bool) -> Vec<Expr> {
        let client = FIRST.after(self.address_length());
        let (mut expressions, _) = self.load_key_at(node_port, client);
        expressions.splice(
            0..0,
            [
                load_protocol(FIRST),
                Expr::equals(FIRST, [protocol.number()]),
                self.load_source(FIRST),
            ],
        );
        expressions.extend([
            Expr::map(affinity(node_port), FIRST, FIRST),
            self.translate(),
        ]);
        expressions
    }

    /// Translates the destination to the address and port that begin in the first register.
    fn translate(self) -> Expr {
        Expr::Nat {
            kind: NatKind::Dnat,
            family: self.family(),
            address: Some(FIRST),
            port: Some(FIRST.after(self.address_length())),
            flags: 0,
        }
    }

    /// Once per connection that was translated, whoever translated it.
    fn after_translation(self) -> Vec<Rule> {
        let untranslated = || {
            vec![
                Expr::Ct {
                    key: CtKey::Status,
                    direction: None,
                    dest: FIRST,
                },
                Expr::Bitwise {
                    source: FIRST,
                    dest: FIRST,
                    mask: CtKey::STATUS_DNAT.to_ne_bytes().to_vec(),
                    xor: vec![0; 4],
                },
                Expr::equals(FIRST, [0; 4]),
                Expr::Verdict(Verdict::Return),
            ]
        };
        let mut rules = vec![
            self.rule("nat-input", [untranslated()]),
            self.rule("nat-input", [vec![jump(REMEMBER)]]),
            self.rule("nat-postrouting", [untranslated()]),
            self.rule("nat-postrouting", [vec![jump(REMEMBER)]]),
        ];
        for protocol in PROTOCOLS {
            for node_port in [false, true] {
                for (class, chain) in [
                    (Class::KeepSource, HAIRPIN_ONLY),
                    (Class::Plain, MASQUERADE),
                    (Class::ByPolicy, MASQUERADE),
                ] {
                    rules.push(self.rule(
                        "nat-postrouting",
                        [
                            self.asked_for(protocol, node_port, class.set(node_port)),
                            vec![goto(chain)],
                        ],
                    ));
                }
            }
        }
        rules
    }

    /// Matches connections whose client asked for a frontend in this set. The protocol stands there alone because
    /// `nft` otherwise does not take the rule back.
    fn asked_for(self, protocol: Protocol, node_port: bool, set: &str) -> Vec<Expr> {
        let (key, _) = self.load_original_key(node_port, FIRST);
        let mut expressions = vec![
            load_protocol(FIRST),
            Expr::equals(FIRST, [protocol.number()]),
        ];
        expressions.extend(key);
        expressions.push(Expr::contains(set, FIRST));
        expressions
    }

    /// Remembers for so long who answers the client. The choice stands in the connection's reply direction.
    pub(super) fn remember(self, protocol: Protocol, node_port: bool, seconds: u32) -> Vec<Expr> {
        let set = branch_set_name(Branch::Remember { node_port, seconds });
        let mut expressions = self.asked_for(protocol, node_port, &set);
        let (key, data) = self.load_original_key(node_port, FIRST.after(self.address_length()));
        expressions.push(self.load_source(FIRST));
        expressions.extend(key);
        let reply = |key, dest| Expr::Ct {
            key,
            direction: Some(CtDirection::Reply),
            dest,
        };
        let address = match self.family {
            IpFamily::V4 => CtKey::SrcIp,
            IpFamily::V6 => CtKey::SrcIp6,
        };
        expressions.extend([
            reply(address, data),
            reply(CtKey::ProtoSrc, data.after(self.address_length())),
            Expr::Dynset {
                set: affinity(node_port).to_owned(),
                // An entry that is there keeps its backend and begins its time anew.
                op: DynsetOp::Update,
                key: FIRST,
                data: Some(data),
                timeout: Some(Duration::from_secs(seconds.into())),
            },
        ]);
        expressions
    }

    /// After translation: what is still addressed to a Service has none.
    fn refusing(self) -> Vec<Rule> {
        let port_unreachable = match self.family {
            IpFamily::V4 => ICMP_PORT_UNREACHABLE,
            IpFamily::V6 => ICMPV6_PORT_UNREACHABLE,
        };
        let unallocated = |chain| {
            let to_service = vec![
                self.load_destination(FIRST),
                Expr::contains(SERVICE_RANGES, FIRST),
            ];
            let elsewhere = destination_is_local(false).to_vec();
            self.rule(chain, [to_service, elsewhere, vec![goto(REFUSE)]])
        };
        vec![
            unallocated("filter-forward"),
            unallocated("filter-output"),
            // TCP understands a reset at once, and resets are not rate-limited as ICMP errors are.
            self.rule(
                REFUSE,
                [vec![
                    load_protocol(FIRST),
                    Expr::equals(FIRST, [Protocol::Tcp.number()]),
                    Expr::Reject(Reject::TcpReset),
                ]],
            ),
            self.rule(REFUSE, [vec![Expr::Reject(Reject::Icmp(port_unreachable))]]),
        ]
    }

    fn masquerading(self) -> Vec<Rule> {
        let masquerade = Expr::Masquerade {
            flags: nat_flags::FULLY_RANDOM,
        };
        let hairpin = vec![
            self.load_source(FIRST),
            self.load_destination(FIRST.after(self.address_length())),
            Expr::contains(HAIRPIN, FIRST),
            masquerade.clone(),
        ];
        let leave = vec![Expr::Verdict(Verdict::Return)];
        vec![
            self.rule(HAIRPIN_ONLY, [hairpin.clone()]),
            self.rule(MASQUERADE, [hairpin]),
            self.rule(MASQUERADE, [self.source_in(POD_RANGES), leave.clone()]),
            self.rule(MASQUERADE, [source_is_local().to_vec(), leave]),
            self.rule(MASQUERADE, [vec![masquerade]]),
        ]
    }

    fn source_in(self, set: &str) -> Vec<Expr> {
        vec![self.load_source(FIRST), Expr::contains(set, FIRST)]
    }

    /// Matches packets to an address of this node at which node ports answer, but not from the node to itself by its
    /// loopback. Source: KEP-3866: node ports on loopback are a thing of the iptables mode.
    fn node_address(self) -> Vec<Expr> {
        let mut expressions = match self.family {
            IpFamily::V4 => vec![Expr::network(16, 1, FIRST), Expr::differs(FIRST, [127])],
            IpFamily::V6 => {
                let loopback = std::net::Ipv6Addr::LOCALHOST.octets();
                vec![self.load_destination(FIRST), Expr::differs(FIRST, loopback)]
            }
        };
        expressions.extend([
            self.load_destination(FIRST),
            Expr::contains(NODE_PORT_RANGES, FIRST),
        ]);
        expressions.extend(destination_is_local(true));
        expressions
    }

    /// Loads a packet's frontend (of node ports, without the address), from the first register on. Returns the
    /// register behind it.
    fn load_key(self, node_port: bool) -> (Vec<Expr>, Reg) {
        self.load_key_at(node_port, FIRST)
    }

    fn load_key_at(self, node_port: bool, at: Reg) -> (Vec<Expr>, Reg) {
        let (mut expressions, protocol) = if node_port {
            (Vec::new(), at)
        } else {
            (
                vec![self.load_destination(at)],
                at.after(self.address_length()),
            )
        };
        expressions.push(load_protocol(protocol));
        expressions.push(Expr::transport(2, 2, protocol.after(4)));
        (expressions, protocol.after(8))
    }

    /// Likewise, the frontend that the connection's client asked for.
    fn load_original_key(self, node_port: bool, at: Reg) -> (Vec<Expr>, Reg) {
        let (mut expressions, protocol) = if node_port {
            (Vec::new(), at)
        } else {
            let key = match self.family {
                IpFamily::V4 => CtKey::DstIp,
                IpFamily::V6 => CtKey::DstIp6,
            };
            (
                vec![load_original(key, at)],
                at.after(self.address_length()),
            )
        };
        expressions.push(load_protocol(protocol));
        expressions.push(load_original(CtKey::ProtoDst, protocol.after(4)));
        (expressions, protocol.after(8))
    }

    /// Matches packets to a frontend of this set.
    fn key_in(self, node_port: bool, set: &str) -> Vec<Expr> {
        let (mut expressions, _) = self.load_key(node_port);
        expressions.push(Expr::contains(set, FIRST));
        expressions
    }

    /// Sends a connection to one of so many backends, each as likely as the other.
    pub(super) fn pick(self, node_port: bool, inside: bool, count: u32) -> Vec<Expr> {
        let branch = Branch::Pick {
            node_port,
            inside,
            count,
        };
        let mut expressions = self.key_in(node_port, &branch_set_name(branch));
        // Loaded again, because `nft` prints a rule well only if each expression has its own.
        let (key, index) = self.load_key(node_port);
        expressions.extend(key);
        expressions.extend([
            Expr::Numgen {
                kind: NumgenKind::Random,
                modulus: count,
                offset: 0,
                dest: index,
            },
            Expr::map(backends(node_port, inside), FIRST, FIRST),
            self.translate(),
        ]);
        expressions
    }
}
