//! The kernel's form of the forwarding: one table with fixed chains, and sets and maps whose elements are the
//! cluster.
//!
//! ```text
//! frontends        address . protocol . port             all that have backends
//! frontends-N      address . protocol . port             those that have N backends
//! no-endpoints     address . protocol . port             those that have none
//! backends         address . protocol . port . index  →  address . port
//! node-ports, node-ports-N, node-ports-refused, node-port-backends: the same without the address
//! hairpin          endpoint . endpoint                   for those on this node
//! pod-ranges, service-ranges                             ranges of addresses
//! ```
//!
//! A packet that opens a connection is looked up by what it carries itself, so no mark has to remember anything
//! between one rule and the next. Whether it is for a Service at all is one lookup; which N, a lookup for each
//! number of backends that occurs (chain `pick`); who, one lookup with a random index.
//!
//! Why not a map from the frontend to a verdict, or to N? The kernel walks all elements of a map of verdicts
//! whenever one is added (3 ms for each change at 10,000 Services). And what a lookup yields cannot be looked up
//! again in the language of `nft`: version 1.0.6 aborts when it shall print such a rule.
//!
//! Only the first packet of a connection comes here (chains of type `nat`); the rest, conntrack translates alike.
//! So a change never breaks a connection.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use seaway_kernel::nft::{
    Batch, Chain, ChainKind, CtDirection, CtKey, Data, DataType, DumpedTable, Element, Expr,
    Family, FibFlags, FibResult, Hook, MetaKey, NatKind, NumgenKind, Reg, Reject, Rule, Set, Table,
    TypeOf, Verdict, nat_flags, priority,
};

use crate::diff::{Contents, Delta};
use crate::model::{IpFamily, Protocol};
use crate::plan::{Backend, Bound, FrontendEntry, FrontendKey, Pick};

/// The name of the table, in the families `ip` and `ip6`.
pub const TABLE: &str = "seaway-proxy";

const FRONTENDS: &str = "frontends";
const NO_ENDPOINTS: &str = "no-endpoints";
const BACKENDS: &str = "backends";
const NODE_PORTS: &str = "node-ports";
const NODE_PORTS_REFUSED: &str = "node-ports-refused";
const NODE_PORT_BACKENDS: &str = "node-port-backends";
const HAIRPIN: &str = "hairpin";
const POD_RANGES: &str = "pod-ranges";
const SERVICE_RANGES: &str = "service-ranges";

const SERVICES: &str = "services";
const PICK: &str = "pick";
const PICK_NODE_PORT: &str = "pick-node-port";
const REFUSE: &str = "refuse";
/// `masquerade` alone is a word of the language of `nft`, which no chain may be named.
const MASQUERADE: &str = "masquerade-strangers";

/// ICMP destination unreachable: port unreachable (RFC 792).
const ICMP_PORT_UNREACHABLE: u8 = 3;
/// ICMPv6 destination unreachable: port unreachable (RFC 4443).
const ICMPV6_PORT_UNREACHABLE: u8 = 4;

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
        let regular = |name: &str| Chain::regular(family, TABLE, name);
        vec![
            base(
                "nat-prerouting",
                ChainKind::Nat,
                Hook::Prerouting,
                priority::DSTNAT,
            ),
            base("nat-output", ChainKind::Nat, Hook::Output, priority::DSTNAT),
            base(
                "nat-postrouting",
                ChainKind::Nat,
                Hook::Postrouting,
                priority::SRCNAT,
            ),
            base(
                "filter-forward",
                ChainKind::Filter,
                Hook::Forward,
                priority::FILTER,
            ),
            base(
                "filter-output",
                ChainKind::Filter,
                Hook::Output,
                priority::FILTER,
            ),
            regular(SERVICES),
            regular(PICK),
            regular(PICK_NODE_PORT),
            regular(REFUSE),
            regular(MASQUERADE),
        ]
    }

    fn sets(self) -> Vec<Set> {
        let family = self.family();
        let set = |name: &str, key: &[TypeOf]| Set::new(family, TABLE, name, key.iter().copied());
        let range = |name: &str| {
            let address = match self.family {
                IpFamily::V4 => DataType::Ipv4Addr,
                IpFamily::V6 => DataType::Ipv6Addr,
            };
            Set::new(family, TABLE, name, [address]).with_intervals()
        };
        let (source, destination) = match self.family {
            IpFamily::V4 => (TypeOf::IpSaddr, TypeOf::IpDaddr),
            IpFamily::V6 => (TypeOf::Ip6Saddr, TypeOf::Ip6Daddr),
        };
        let (protocol, port, number) = (TypeOf::L4Proto, TypeOf::ThDport, TypeOf::Numgen);
        vec![
            set(FRONTENDS, &[destination, protocol, port]).with_comment("where clients connect"),
            set(NO_ENDPOINTS, &[destination, protocol, port]).with_comment("where nobody answers"),
            set(BACKENDS, &[destination, protocol, port, number])
                .to_values([destination, port])
                .with_comment("frontend . index : who answers"),
            set(NODE_PORTS, &[protocol, port])
                .with_comment("where clients connect, at any address of the node"),
            set(NODE_PORTS_REFUSED, &[protocol, port]).with_comment("where nobody answers"),
            set(NODE_PORT_BACKENDS, &[protocol, port, number])
                .to_values([destination, port])
                .with_comment("node port . index : who answers"),
            set(HAIRPIN, &[source, destination])
                .with_comment("endpoints here, which may reach themselves"),
            range(POD_RANGES).with_comment("sources that keep their address"),
            range(SERVICE_RANGES).with_comment("refused where no Service is"),
        ]
    }

    fn rules(self) -> Vec<Rule> {
        let rule = |chain: &str, expressions: Vec<Expr>| {
            Rule::new(self.family(), TABLE, chain, expressions)
        };
        let first = Reg::FIRST;
        let goto = |chain: &'static str| Expr::Verdict(Verdict::goto(chain));
        let port_unreachable = match self.family {
            IpFamily::V4 => ICMP_PORT_UNREACHABLE,
            IpFamily::V6 => ICMPV6_PORT_UNREACHABLE,
        };
        let mut rules = vec![
            rule("nat-prerouting", vec![goto(SERVICES)]),
            rule("nat-output", vec![goto(SERVICES)]),
        ];
        rules.extend(self.services_rules());
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            rules.push(rule(
                "nat-postrouting",
                self.translated_by_us(protocol, false),
            ));
            rules.push(rule(
                "nat-postrouting",
                self.translated_by_us(protocol, true),
            ));
        }
        // After translation: what is still addressed to a Service has none.
        let mut unallocated = vec![
            self.load_destination(first),
            Expr::contains(SERVICE_RANGES, first),
        ];
        unallocated.extend(not_local(first));
        unallocated.push(goto(REFUSE));
        rules.push(rule("filter-forward", unallocated.clone()));
        rules.push(rule("filter-output", unallocated));
        rules.extend([
            // TCP understands a reset at once, and resets are not rate-limited as ICMP errors are.
            rule(
                REFUSE,
                vec![
                    Expr::Meta {
                        key: MetaKey::L4proto,
                        dest: first,
                    },
                    Expr::equals(first, [Protocol::Tcp.number()]),
                    Expr::Reject(Reject::TcpReset),
                ],
            ),
            rule(REFUSE, vec![Expr::Reject(Reject::Icmp(port_unreachable))]),
            rule(
                MASQUERADE,
                vec![
                    self.load_source(first),
                    self.load_destination(first.after(self.address_length())),
                    Expr::contains(HAIRPIN, first),
                    Expr::Masquerade {
                        flags: nat_flags::FULLY_RANDOM,
                    },
                ],
            ),
            rule(
                MASQUERADE,
                vec![
                    self.load_source(first),
                    Expr::contains(POD_RANGES, first),
                    Expr::Verdict(Verdict::Return),
                ],
            ),
            rule(
                MASQUERADE,
                vec![
                    Expr::Fib {
                        flags: FibFlags::SADDR,
                        result: FibResult::Type,
                        dest: first,
                    },
                    Expr::equals(first, FibResult::LOCAL.to_ne_bytes()),
                    Expr::Verdict(Verdict::Return),
                ],
            ),
            rule(
                MASQUERADE,
                vec![Expr::Masquerade {
                    flags: nat_flags::FULLY_RANDOM,
                }],
            ),
        ]);
        rules
    }

    /// A change may come while a packet is between two lookups, and move its frontend to where it has looked
    /// already. So who finds no backend looks once more.
    fn services_rules(self) -> Vec<Rule> {
        let rule = |expressions: Vec<Expr>| Rule::new(self.family(), TABLE, SERVICES, expressions);
        let jump = |chain: &'static str| Expr::Verdict(Verdict::jump(chain));
        let first = Reg::FIRST;
        let with =
            |start: Vec<Expr>, rest: Vec<Expr>| rule(start.into_iter().chain(rest).collect());
        let refuse = Expr::Verdict(Verdict::goto(REFUSE));
        let to_address = with(self.key_in(false, FRONTENDS), vec![jump(PICK)]);
        // The node's own DNS server, for one, listens on an address that a Service may have as well.
        let mut no_endpoints = not_local(first).to_vec();
        no_endpoints.push(refuse.clone());
        let mut to_node_port = self.node_address(first);
        to_node_port.push(jump(PICK_NODE_PORT));
        let to_node_port = with(self.key_in(true, NODE_PORTS), to_node_port);
        let mut refused = self.node_address(first);
        refused.push(refuse);
        let again = "again, if a change came between";
        vec![
            to_address.clone(),
            to_address.with_comment(again),
            with(self.key_in(false, NO_ENDPOINTS), no_endpoints),
            to_node_port.clone(),
            to_node_port.with_comment(again),
            with(self.key_in(true, NODE_PORTS_REFUSED), refused),
        ]
    }

    /// Matches packets to an address of this node, but not from the node to itself by its loopback.
    fn node_address(self, scratch: Reg) -> Vec<Expr> {
        let mut expressions = match self.family {
            IpFamily::V4 => vec![Expr::network(16, 1, scratch), Expr::differs(scratch, [127])],
            IpFamily::V6 => {
                let loopback = std::net::Ipv6Addr::LOCALHOST.octets();
                vec![
                    self.load_destination(scratch),
                    Expr::differs(scratch, loopback),
                ]
            }
        };
        expressions.push(Expr::Fib {
            flags: FibFlags::DADDR,
            result: FibResult::Type,
            dest: scratch,
        });
        expressions.push(Expr::equals(scratch, FibResult::LOCAL.to_ne_bytes()));
        expressions
    }

    /// Loads a packet's frontend (of node ports, without the address), from the first register on. Returns the
    /// register behind it.
    fn load_key(self, node_port: bool) -> (Vec<Expr>, Reg) {
        let first = Reg::FIRST;
        let (mut expressions, protocol) = if node_port {
            (Vec::new(), first)
        } else {
            (
                vec![self.load_destination(first)],
                first.after(self.address_length()),
            )
        };
        expressions.push(Expr::Meta {
            key: MetaKey::L4proto,
            dest: protocol,
        });
        expressions.push(Expr::transport(2, 2, protocol.after(4)));
        (expressions, protocol.after(8))
    }

    /// Matches packets to a frontend of this set.
    fn key_in(self, node_port: bool, set: &str) -> Vec<Expr> {
        let (mut expressions, _) = self.load_key(node_port);
        expressions.push(Expr::contains(set, Reg::FIRST));
        expressions
    }

    /// Matches connections whose destination this table translated: it was translated, and what the client asked
    /// for is a frontend. The protocol stands there alone because `nft` otherwise does not take the rule back.
    fn translated_by_us(self, protocol: Protocol, node_port: bool) -> Vec<Expr> {
        let first = Reg::FIRST;
        let original = Some(CtDirection::Original);
        let mut expressions = vec![
            Expr::Ct {
                key: CtKey::Status,
                direction: None,
                dest: first,
            },
            Expr::Bitwise {
                source: first,
                dest: first,
                mask: CtKey::STATUS_DNAT.to_ne_bytes().to_vec(),
                xor: vec![0; 4],
            },
            Expr::differs(first, [0; 4]),
            Expr::Meta {
                key: MetaKey::L4proto,
                dest: first,
            },
            Expr::equals(first, [protocol.number()]),
        ];
        let (set, protocol) = if node_port {
            (NODE_PORTS, first)
        } else {
            let key = match self.family {
                IpFamily::V4 => CtKey::DstIp,
                IpFamily::V6 => CtKey::DstIp6,
            };
            expressions.push(Expr::Ct {
                key,
                direction: original,
                dest: first,
            });
            (FRONTENDS, first.after(self.address_length()))
        };
        expressions.extend([
            Expr::Meta {
                key: MetaKey::L4proto,
                dest: protocol,
            },
            Expr::Ct {
                key: CtKey::ProtoDst,
                direction: original,
                dest: protocol.after(4),
            },
            Expr::contains(set, first),
            Expr::Verdict(Verdict::goto(MASQUERADE)),
        ]);
        expressions
    }

    /// The frontends with so many backends.
    fn pick_set(self, pick: Pick) -> Set {
        let destination = match self.family {
            IpFamily::V4 => TypeOf::IpDaddr,
            IpFamily::V6 => TypeOf::Ip6Daddr,
        };
        let key = [destination, TypeOf::L4Proto, TypeOf::ThDport];
        let key = if pick.node_port { &key[1..] } else { &key[..] };
        Set::new(
            self.family(),
            TABLE,
            pick_set_name(pick),
            key.iter().copied(),
        )
    }

    /// Sends a connection to one of so many backends, each as likely as the other.
    fn pick_rule(self, pick: Pick) -> Rule {
        let first = Reg::FIRST;
        let mut expressions = self.key_in(pick.node_port, &pick_set_name(pick));
        // Loaded again, because `nft` prints a rule well only if each expression has its own.
        let (key, index) = self.load_key(pick.node_port);
        expressions.extend(key);
        expressions.extend([
            Expr::Numgen {
                kind: NumgenKind::Random,
                modulus: pick.count,
                offset: 0,
                dest: index,
            },
            Expr::map(
                if pick.node_port {
                    NODE_PORT_BACKENDS
                } else {
                    BACKENDS
                },
                first,
                first,
            ),
            Expr::Nat {
                kind: NatKind::Dnat,
                family: self.family(),
                address: Some(first),
                port: Some(first.after(self.address_length())),
                flags: 0,
            },
        ]);
        Rule::new(self.family(), TABLE, pick_chain(pick), expressions)
    }

    /// Adds the table with nothing of the cluster in it.
    pub(crate) fn encode_skeleton(self, batch: &mut Batch) {
        let skeleton = self.skeleton();
        batch.add_table(&skeleton.table);
        skeleton
            .chains
            .iter()
            .for_each(|chain| batch.add_chain(chain));
        skeleton.sets.iter().for_each(|set| batch.add_set(set));
        skeleton.rules.iter().for_each(|rule| batch.add_rule(rule));
    }

    /// Adds the sets and rules of picks that a change uses for the first time. Returns whether there are any; then
    /// they must be in the kernel before the change.
    ///
    /// The kernel lets a packet finish with the rules that it began with, but shows it new elements at once. So
    /// the rules for elements must be there one transaction before the elements.
    pub(crate) fn encode_new_picks(self, batch: &mut Batch, delta: &Delta) -> bool {
        let new = delta
            .picks
            .iter()
            .flat_map(|(before, after)| after.difference(before));
        for &pick in new {
            batch.add_set(&self.pick_set(pick));
            // Only this one, at the end: for each rule that uses a map, the kernel walks the whole map once.
            batch.add_rule(&self.pick_rule(pick));
        }
        !batch.is_empty()
    }

    /// The kernel's numbers of the rules that pick, which it takes to remove one.
    pub(crate) fn pick_handles(self, rules: &[Rule]) -> HashMap<Pick, u64> {
        rules
            .iter()
            .filter_map(|rule| Some((rule_pick(rule)?, rule.handle?)))
            .collect()
    }

    /// Adds a change, whose new picks are there already: what others need first, what needs others last.
    /// `handles` are those of the picks that go.
    pub(crate) fn encode(self, batch: &mut Batch, delta: &Delta, handles: &HashMap<Pick, u64>) {
        let family = self.family();
        let moves = Moves::of(delta);
        for (set, keys) in &moves.removed {
            batch.delete_elements(
                family,
                TABLE,
                set,
                keys.iter().map(|key| Element::key(frontend_key(key))),
            );
        }
        for node_port in [false, true] {
            let keys = delta
                .backends_removed
                .iter()
                .filter(|(key, _)| is_node_port(key) == node_port);
            let elements = keys.map(|(key, index)| Element::key(backend_key(key, *index)));
            batch.delete_elements(family, TABLE, backends(node_port), elements);
        }
        for (set, bounds) in [
            (POD_RANGES, &delta.pod_ranges_removed),
            (SERVICE_RANGES, &delta.service_ranges_removed),
        ] {
            batch.delete_elements(family, TABLE, set, bounds.iter().map(bound_element));
        }
        for (set, entries) in &moves.added {
            let elements = entries.iter().map(|(key, label)| {
                let element = Element::key(frontend_key(key));
                match label {
                    Some(label) => element.with_comment(*label),
                    None => element,
                }
            });
            batch.create_elements(family, TABLE, set, elements);
        }
        for node_port in [false, true] {
            let added = delta
                .backends_added
                .iter()
                .filter(|(key, ..)| is_node_port(key) == node_port);
            let elements = added.map(|(key, index, backend)| {
                Element::value(backend_key(key, *index), backend_value(backend))
            });
            batch.create_elements(family, TABLE, backends(node_port), elements);
        }
        let added = delta
            .hairpin_added
            .iter()
            .map(|ip| Element::key(hairpin_key(*ip)));
        batch.create_elements(family, TABLE, HAIRPIN, added);
        for (set, bounds) in [
            (POD_RANGES, &delta.pod_ranges_added),
            (SERVICE_RANGES, &delta.service_ranges_added),
        ] {
            batch.create_elements(family, TABLE, set, bounds.iter().map(bound_element));
        }
        for &pick in delta.picks_gone() {
            if let Some(handle) = handles.get(&pick) {
                batch.delete_rule(family, TABLE, pick_chain(pick), *handle);
            }
            batch.delete_set(family, TABLE, &pick_set_name(pick));
        }
    }

    /// Adds what of a change must come after it: a connection that was sent to an endpoint just before it was taken
    /// away still needs to be masqueraded, a little later on the packet's way. Returns whether there is anything.
    pub(crate) fn encode_afterwards(self, batch: &mut Batch, delta: &Delta) -> bool {
        let removed = delta
            .hairpin_removed
            .iter()
            .map(|ip| Element::key(hairpin_key(*ip)));
        batch.delete_elements(self.family(), TABLE, HAIRPIN, removed);
        !delta.hairpin_removed.is_empty()
    }

    /// Reads the cluster's part out of what the kernel holds, where `elements` are those of all sets. `None` if
    /// the rest is not exactly what this version makes, so that the table has to be made anew.
    pub(crate) fn read(
        self,
        dumped: DumpedTable,
        elements: &HashMap<String, Vec<Element<'static>>>,
    ) -> Option<Contents> {
        let picks = self.read_picks(dumped)?;
        let of = |set: &str| elements.get(set).map_or(&[][..], Vec::as_slice);
        let mut counts = HashMap::new();
        for pick in &picks {
            for element in of(&pick_set_name(*pick)) {
                let key = self.read_frontend_key(pick.node_port, &element.key)?;
                if counts.insert(key, pick.count).is_some() {
                    return None;
                }
            }
        }
        let mut contents = Contents {
            picks,
            ..Contents::default()
        };
        for node_port in [false, true] {
            let [with, without] = frontends(node_port);
            for (set, has_backends) in [(with, true), (without, false)] {
                for element in of(set) {
                    let key = self.read_frontend_key(node_port, &element.key)?;
                    let count = if has_backends {
                        counts.remove(&key)?
                    } else {
                        0
                    };
                    let label = element.comment.as_deref().unwrap_or_default().into();
                    if contents
                        .frontends
                        .insert(key, FrontendEntry { count, label })
                        .is_some()
                    {
                        return None;
                    }
                }
            }
            for element in of(backends(node_port)) {
                let (key, index) = element.key.split_last_chunk()?;
                let key = self.read_frontend_key(node_port, key)?;
                contents.backends.insert(
                    (key, u32::from_ne_bytes(*index)),
                    self.read_backend(value(element)?)?,
                );
            }
        }
        if !counts.is_empty() {
            return None;
        }
        for element in of(HAIRPIN) {
            let (ip, again) = self.read_address(&element.key)?;
            if self.read_address(again)?.0 != ip {
                return None;
            }
            contents.hairpin.insert(ip);
        }
        for (set, bounds) in [
            (POD_RANGES, &mut contents.pod_ranges),
            (SERVICE_RANGES, &mut contents.service_ranges),
        ] {
            for element in of(set) {
                bounds.insert(Bound {
                    at: self.read_address(&element.key)?.0,
                    ends: element.ends_range,
                });
            }
        }
        Some(contents)
    }

    /// The picks that have a set, if all chains, sets and rules are as they should be.
    fn read_picks(self, mut dumped: DumpedTable) -> Option<BTreeSet<Pick>> {
        let mut expected = self.skeleton();
        let picks: BTreeSet<Pick> = dumped
            .sets
            .iter()
            .filter_map(|set| read_pick(&set.name))
            .collect();
        expected
            .sets
            .extend(picks.iter().map(|pick| self.pick_set(*pick)));
        expected
            .rules
            .extend(picks.iter().map(|pick| self.pick_rule(*pick)));
        for skeleton_chains in [&mut expected.chains, &mut dumped.chains] {
            skeleton_chains.sort_by(|a, b| a.name.cmp(&b.name));
        }
        for sets in [&mut expected.sets, &mut dumped.sets] {
            sets.sort_by(|a, b| a.name.cmp(&b.name));
        }
        dumped.rules.iter_mut().for_each(|rule| rule.handle = None);
        // Stable, so the order within each chain stays; but that of the picks does not matter.
        for rules in [&mut expected.rules, &mut dumped.rules] {
            rules.sort_by(|a, b| (&a.chain, rule_pick(a)).cmp(&(&b.chain, rule_pick(b))));
        }
        let same = dumped.table == expected.table
            && dumped.chains == expected.chains
            && dumped.sets == expected.sets
            && dumped.rules == expected.rules;
        same.then_some(picks)
    }

    fn read_address(self, bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
        match self.family {
            IpFamily::V4 => bytes
                .split_first_chunk::<4>()
                .map(|(ip, rest)| (IpAddr::from(*ip), rest)),
            IpFamily::V6 => bytes
                .split_first_chunk::<16>()
                .map(|(ip, rest)| (IpAddr::from(*ip), rest)),
        }
    }

    fn read_frontend_key(self, node_port: bool, bytes: &[u8]) -> Option<FrontendKey> {
        let (ip, rest) = if node_port {
            (None, bytes)
        } else {
            self.read_address(bytes).map(|(ip, r)| (Some(ip), r))?
        };
        let &[protocol, 0, 0, 0, high, low, 0, 0] = rest else {
            return None;
        };
        let protocol = Protocol::from_number(protocol)?;
        let port = u16::from_be_bytes([high, low]);
        Some(match ip {
            Some(ip) => FrontendKey::Address { ip, protocol, port },
            None => FrontendKey::NodePort { protocol, port },
        })
    }

    fn read_backend(self, bytes: &[u8]) -> Option<Backend> {
        let (ip, rest) = self.read_address(bytes)?;
        Some(SocketAddr::new(
            ip,
            u16::from_be_bytes(*rest.first_chunk()?),
        ))
    }
}

const fn is_node_port(key: &FrontendKey) -> bool {
    matches!(key, FrontendKey::NodePort { .. })
}

/// The set of frontends with backends, and that of those without.
const fn frontends(node_port: bool) -> [&'static str; 2] {
    if node_port {
        [NODE_PORTS, NODE_PORTS_REFUSED]
    } else {
        [FRONTENDS, NO_ENDPOINTS]
    }
}

const fn backends(node_port: bool) -> &'static str {
    if node_port {
        NODE_PORT_BACKENDS
    } else {
        BACKENDS
    }
}

fn pick_set_name(pick: Pick) -> String {
    format!("{}-{}", frontends(pick.node_port)[0], pick.count)
}

const fn pick_chain(pick: Pick) -> &'static str {
    if pick.node_port { PICK_NODE_PORT } else { PICK }
}

/// The pick that a rule is for, if it is in a chain of such.
fn rule_pick(rule: &Rule) -> Option<Pick> {
    let pick = rule
        .expressions
        .iter()
        .find_map(|expression| match expression {
            Expr::Lookup { set, .. } => read_pick(set),
            _ => None,
        })?;
    (pick_chain(pick) == rule.chain).then_some(pick)
}

fn read_pick(set: &str) -> Option<Pick> {
    let (name, count) = set.rsplit_once('-')?;
    let node_port = [FRONTENDS, NODE_PORTS]
        .iter()
        .position(|known| *known == name)?
        == 1;
    let pick = Pick {
        node_port,
        count: count.parse().ok().filter(|count| *count > 0)?,
    };
    (pick_set_name(pick) == set).then_some(pick)
}

/// Matches if the packet's destination is no address of this host.
fn not_local(scratch: Reg) -> [Expr; 2] {
    [
        Expr::Fib {
            flags: FibFlags::DADDR,
            result: FibResult::Type,
            dest: scratch,
        },
        Expr::differs(scratch, FibResult::LOCAL.to_ne_bytes()),
    ]
}

/// From which sets frontends go and to which they come, with their labels, where the set has labels.
#[derive(Default)]
struct Moves<'a> {
    removed: BTreeMap<String, Vec<FrontendKey>>,
    added: BTreeMap<String, Vec<(FrontendKey, Option<&'a str>)>>,
}

impl<'a> Moves<'a> {
    fn of(delta: &'a Delta) -> Self {
        let mut moves = Self::default();
        for (key, old, new) in &delta.frontends {
            let [with, without] = frontends(is_node_port(key));
            let labelled = |entry: &'a FrontendEntry| {
                (if entry.count > 0 { with } else { without }, &*entry.label)
            };
            let (was, is) = (old.as_ref().map(labelled), new.as_ref().map(labelled));
            if was != is {
                if let Some((set, _)) = was {
                    moves.remove(set, *key);
                }
                if let Some((set, label)) = is {
                    moves.add(set, *key, Some(label));
                }
            }
            let count = |entry: &FrontendEntry| Pick::of(key, entry.count);
            let (was, is) = (old.as_ref().and_then(count), new.as_ref().and_then(count));
            if was != is {
                if let Some(pick) = was {
                    moves.remove(&pick_set_name(pick), *key);
                }
                if let Some(pick) = is {
                    moves.add(&pick_set_name(pick), *key, None);
                }
            }
        }
        moves
    }

    fn remove(&mut self, set: &str, key: FrontendKey) {
        match self.removed.get_mut(set) {
            Some(keys) => keys.push(key),
            None => {
                self.removed.insert(set.to_owned(), vec![key]);
            }
        }
    }

    fn add(&mut self, set: &str, key: FrontendKey, label: Option<&'a str>) {
        match self.added.get_mut(set) {
            Some(keys) => keys.push((key, label)),
            None => {
                self.added.insert(set.to_owned(), vec![(key, label)]);
            }
        }
    }
}

fn put_address(key: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => key.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => key.extend_from_slice(&ip.octets()),
    }
}

/// Each field takes a multiple of four bytes.
fn frontend_key(key: &FrontendKey) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    let (protocol, port) = match *key {
        FrontendKey::Address { ip, protocol, port } => {
            put_address(&mut bytes, ip);
            (protocol, port)
        }
        FrontendKey::NodePort { protocol, port } => (protocol, port),
    };
    let [high, low] = port.to_be_bytes();
    bytes.extend_from_slice(&[protocol.number(), 0, 0, 0, high, low, 0, 0]);
    bytes
}

fn backend_key(key: &FrontendKey, index: u32) -> Vec<u8> {
    let mut bytes = frontend_key(key);
    // In host byte order, as `numgen` yields it.
    bytes.extend_from_slice(&index.to_ne_bytes());
    bytes
}

fn backend_value(backend: &Backend) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20);
    put_address(&mut bytes, backend.ip());
    let [high, low] = backend.port().to_be_bytes();
    bytes.extend_from_slice(&[high, low, 0, 0]);
    bytes
}

fn hairpin_key(ip: IpAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    put_address(&mut bytes, ip);
    put_address(&mut bytes, ip);
    bytes
}

fn bound_element(bound: &Bound) -> Element<'static> {
    let mut key = Vec::with_capacity(16);
    put_address(&mut key, bound.at);
    if bound.ends {
        Element::range_end(key)
    } else {
        Element::key(key)
    }
}

fn value<'e>(element: &'e Element<'_>) -> Option<&'e [u8]> {
    match element.data.as_ref()? {
        Data::Value(value) => Some(value),
        Data::Verdict(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ObjectName;
    use crate::plan::{Compiled, Forwarding, Frontend};

    fn compiled(backends: &[&str]) -> Compiled {
        let backends: std::sync::Arc<[Backend]> =
            backends.iter().map(|b| b.parse().unwrap()).collect();
        let frontend = |key| Frontend {
            key,
            label: "default/web:http".into(),
            backends: backends.clone(),
        };
        let v6 = backends.first().is_some_and(SocketAddr::is_ipv6);
        let ip = if v6 { "fd00::7" } else { "10.96.0.7" }.parse().unwrap();
        Compiled {
            frontends: vec![
                frontend(FrontendKey::Address {
                    ip,
                    protocol: Protocol::Tcp,
                    port: 80,
                }),
                frontend(FrontendKey::NodePort {
                    protocol: Protocol::Tcp,
                    port: 30080,
                }),
            ],
            local: backends.iter().take(1).map(SocketAddr::ip).collect(),
        }
    }

    fn text(layout: Layout, delta: &Delta) -> String {
        let mut sets = layout.sets();
        sets.extend(
            delta
                .picks
                .iter()
                .flat_map(|(before, after)| before | after)
                .map(|pick| layout.pick_set(pick)),
        );
        let mut batch = Batch::new();
        let mut transactions = Vec::new();
        if layout.encode_new_picks(&mut batch, delta) {
            transactions.push(std::mem::take(&mut batch).text(&sets));
        }
        let handles = delta
            .picks_gone()
            .map(|pick| (*pick, u64::from(pick.count)))
            .collect();
        layout.encode(&mut batch, delta, &handles);
        transactions.push(std::mem::take(&mut batch).text(&sets));
        if layout.encode_afterwards(&mut batch, delta) {
            transactions.push(batch.text(&sets));
        }
        transactions.join("commit\n") + "commit\n"
    }

    #[test]
    fn the_table_before_any_service() {
        for (name, family) in [("skeleton", IpFamily::V4), ("skeleton_ipv6", IpFamily::V6)] {
            let mut batch = Batch::new();
            Layout::new(family).encode_skeleton(&mut batch);
            insta::assert_snapshot!(name, batch.text(&[]));
        }
    }

    #[test]
    fn the_life_of_a_service() {
        let layout = Layout::new(IpFamily::V4);
        let mut forwarding = Forwarding::new(IpFamily::V4, &[]);
        let name = ObjectName::new("default", "web");
        let mut step = |compiled: Option<Compiled>| {
            text(layout, &forwarding.update([(name.clone(), compiled)]))
        };
        let mut story = String::new();
        for (what, compiled) in [
            ("no endpoint yet", Some(compiled(&[]))),
            (
                "two endpoints",
                Some(compiled(&["10.244.0.2:8080", "10.244.1.2:8080"])),
            ),
            (
                "one of them replaced",
                Some(compiled(&["10.244.0.2:8080", "10.244.1.3:8080"])),
            ),
            ("one endpoint", Some(compiled(&["10.244.0.2:8080"]))),
            ("gone", None),
        ] {
            story += &format!("# {what}\n{}", step(compiled));
        }
        insta::assert_snapshot!(story);
    }

    #[test]
    fn ipv6_is_the_same_with_longer_addresses() {
        let layout = Layout::new(IpFamily::V6);
        let mut forwarding = Forwarding::new(IpFamily::V6, &["fd00::/112".parse().unwrap()]);
        let delta = forwarding.update([(
            ObjectName::new("default", "web"),
            Some(compiled(&["[fd01::2]:8080"])),
        )]);
        insta::assert_snapshot!(text(layout, &delta));
    }

    #[test]
    fn the_sets_of_picks_are_told_by_their_names() {
        for pick in [
            Pick {
                node_port: false,
                count: 1,
            },
            Pick {
                node_port: true,
                count: 250,
            },
        ] {
            assert_eq!(read_pick(&pick_set_name(pick)), Some(pick));
        }
        for other in [
            "frontends",
            "frontends-",
            "frontends-0",
            "frontends-01",
            "node-ports-refused",
            "x-1",
        ] {
            assert_eq!(read_pick(other), None, "{other}");
        }
    }
}
