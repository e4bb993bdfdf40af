//! From the bytes of a query to the bytes of its reply. Pure: the same bytes, table and rotation give the same
//! reply, and no bytes whatever make it panic.
//!
//! Rules followed: RFC 1034/1035 (messages), RFC 2181 (truncation), RFC 2308 (negative answers), RFC 6604 (response
//! code of an alias), RFC 6891 (EDNS), RFC 8020 (non-existence), RFC 8482 (ANY), RFC 8914 (extended errors),
//! RFC 9619 (one question).

use std::net::IpAddr;

use domain::base::iana::{Class, ExtendedErrorCode, Opcode, OptRcode, Rcode};
use domain::base::message::Message;
use domain::base::message_builder::{
    AdditionalBuilder, AnswerBuilder, MessageBuilder, PushError, StaticCompressor,
};
use domain::base::name::{Name, RelativeName, ToName};
use domain::base::opt::exterr::ExtendedError;
use domain::base::{CharStr, ParsedName, Rtype, Serial, Ttl};
use domain::rdata::{A, Aaaa, AllRecordData, Cname, Hinfo, Ns, Ptr, Soa, Srv, Txt};

use crate::model::Port;
use crate::name::FoldedName;
use crate::table::{Addresses, RecordsKind, ServiceRecords, Table};
use crate::zone::{Apex, Meaning, Zone};

/// The version of the specification that the server follows, as `dns-version` tells it.
const DNS_VERSION: &[u8] = b"1.1.0";
/// What a UDP reply may measure when the client says nothing (RFC 1035 §4.2.1).
const PLAIN_UDP_OCTETS: usize = 512;
/// The most that is sent in one UDP datagram: no network fragments it (DNS flag day 2020).
pub const MOST_UDP_OCTETS: u16 = 1232;
/// How many ExternalNames are followed before the chain is taken for a loop.
const LONGEST_ALIAS_CHAIN: usize = 8;
/// An OPT record without options (RFC 6891 §6.1.2).
const PLAIN_OPT_OCTETS: usize = 11;
/// An option with an extended error without text (RFC 8914 §2).
const EXTENDED_ERROR_OCTETS: usize = 6;

/// How the query came, which decides how long the reply may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// As one datagram.
    Udp,
    /// On a stream, with a length in front.
    Tcp,
}

/// What is to be done about a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The reply is complete.
    Reply,
    /// Nothing is to be sent: it is no query at all, and to answer might go round in circles.
    Ignore,
    /// Another server has to be asked.
    Forward(Question),
}

/// What another server has to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The name, spelled as the client spelled it.
    pub name: Name<Vec<u8>>,
    /// The type of records.
    pub rtype: Rtype,
    /// Whether the reply so far is the beginning of the answer (aliases that lead to `name`), to which the other
    /// server's records are to be added. Otherwise the other server's reply is the reply.
    pub is_continuation: bool,
    /// Flags of the client's query that go along.
    pub flags: Flags,
}

/// Flags of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// Recursion desired.
    pub recursion_desired: bool,
    /// Checking disabled (RFC 4035 §3.2.2).
    pub checking_disabled: bool,
    /// Whether the client speaks EDNS, and if so, whether it wants DNSSEC records.
    pub edns: Option<Edns>,
}

/// What a query's OPT record says (RFC 6891 §6.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// The longest UDP reply that the client takes, in octets.
    pub udp_octets: u16,
    /// DNSSEC OK.
    pub dnssec_ok: bool,
}

/// What answers are made from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Which names are the server's.
    pub zone: &'a Zone,
    /// Their records.
    pub table: &'a Table,
    /// Where in a set of records a reply begins; count it up so that clients that take the first record share.
    pub rotation: usize,
}

type Target<'b> = StaticCompressor<&'b mut Vec<u8>>;

/// How far a name leads.
enum Step<'t> {
    /// Records were written.
    Records,
    /// The name exists, without such records.
    NoData(Apex),
    /// The name does not exist.
    Missing(Apex),
    /// It is an alias; the CNAME record was written.
    Alias(&'t Name<Vec<u8>>),
    /// Somebody else knows.
    Outside,
    /// Nobody knows yet.
    Unknown,
}

/// A name that an SRV record leads to, with its addresses for the additional section.
#[derive(Clone, Copy)]
struct Host<'t> {
    /// Label of the endpoint in wire form; empty for the Service itself.
    endpoint: &'t [u8],
    /// Labels of the Service in wire form.
    service: &'t [u8],
    addresses: &'t Addresses,
}

impl Source<'_> {
    /// Answers `query`, writing to `reply`, whose content is replaced and whose memory is used again.
    pub fn answer(&self, query: &[u8], transport: Transport, reply: &mut Vec<u8>) -> Outcome {
        reply.clear();
        let Ok(message) = Message::from_slice(query) else {
            return Outcome::Ignore;
        };
        let header = message.header();
        if header.qr() {
            return Outcome::Ignore;
        }
        if header.opcode() != Opcode::QUERY {
            return bare_error(message, Rcode::NOTIMP, reply);
        }
        let Ok(question) = message.sole_question() else {
            return bare_error(message, Rcode::FORMERR, reply);
        };
        let edns = match edns(message) {
            Ok(edns) => edns,
            Err(rcode) => return self.error(message, None, rcode, None, reply),
        };
        let (qtype, qclass) = (question.qtype(), question.qclass());
        let refused = match qtype {
            Rtype::OPT => Some(OptRcode::FORMERR),
            Rtype::AXFR | Rtype::IXFR => Some(OptRcode::REFUSED),
            Rtype::TKEY | Rtype::TSIG | Rtype::MAILA | Rtype::MAILB => Some(OptRcode::NOTIMP),
            _ if qclass != Class::IN => Some(OptRcode::REFUSED),
            _ => None,
        };
        if let Some(rcode) = refused {
            return self.error(message, edns, rcode, None, reply);
        }

        let flags = Flags {
            recursion_desired: header.rd(),
            checking_disabled: header.cd(),
            edns,
        };
        let forward = |name: Name<Vec<u8>>, is_continuation| {
            Outcome::Forward(Question {
                name,
                rtype: qtype,
                is_continuation,
                flags,
            })
        };
        let meaning = self
            .zone
            .meaning(&FoldedName::new(question.qname()), self.table);
        match meaning {
            Meaning::Outside => return forward(question.qname().to_vec(), false),
            Meaning::Unknown => {
                let why = Some(ExtendedErrorCode::NOT_READY);
                return self.error(message, edns, OptRcode::SERVFAIL, why, reply);
            }
            _ => {}
        }
        match self.write(
            message,
            question.qname(),
            qtype,
            meaning,
            limit(edns, transport),
            edns,
            reply,
        ) {
            Ok(None) => Outcome::Reply,
            Ok(Some(next)) => forward(next.clone(), true),
            // A chain that does not end, or that leads to what is not known yet.
            Err(_) => self.error(message, edns, OptRcode::SERVFAIL, None, reply),
        }
    }

    /// Writes an error reply to `query` with that code and, if the client speaks EDNS, the reason. What is not even
    /// a query is left unanswered.
    pub fn fail(
        &self,
        query: &[u8],
        rcode: OptRcode,
        why: ExtendedErrorCode,
        reply: &mut Vec<u8>,
    ) -> Outcome {
        match Message::from_slice(query) {
            Ok(message) if !message.header().qr() => self.error(
                message,
                edns(message).unwrap_or(None),
                rcode,
                Some(why),
                reply,
            ),
            _ => Outcome::Ignore,
        }
    }

    /// Follows the name to its end and writes all there is to say. `Ok(Some(name))` when another server has to
    /// continue from that name.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are what the query says, taken apart once"
    )]
    fn write<'t>(
        &'t self,
        message: &Message<[u8]>,
        qname: &ParsedName<&[u8]>,
        qtype: Rtype,
        meaning: Meaning<'t>,
        limit: usize,
        edns: Option<Edns>,
        reply: &mut Vec<u8>,
    ) -> Result<Option<&'t Name<Vec<u8>>>, Unanswerable> {
        let mut builder = start(reply);
        builder.set_push_limit(limit - edns.map_or(0, |_| PLAIN_OPT_OCTETS));
        let mut answer = builder.start_answer(message, Rcode::NOERROR)?;
        answer.header_mut().set_aa(true);
        answer.header_mut().set_cd(message.header().cd());
        answer.header_mut().set_ra(self.zone.forwards);

        let mut hosts = Vec::new();
        let mut continues = None;
        let mut negative = None;
        let mut full = false;
        let mut step = self.records(&mut answer, qname, qtype, meaning, &mut hosts);
        for hop in 0.. {
            match step {
                Ok(Step::Alias(_)) if hop == LONGEST_ALIAS_CHAIN => return Err(Unanswerable),
                Ok(Step::Alias(target)) if qtype != Rtype::CNAME && qtype != Rtype::ANY => {
                    let meaning = self.zone.meaning(&FoldedName::new(target), self.table);
                    match meaning {
                        Meaning::Outside => {
                            continues = Some(target);
                            break;
                        }
                        // Nobody here can tell about the target; the alias by itself is true.
                        Meaning::Missing(Apex::Root) => break,
                        meaning => {
                            step = self.records(&mut answer, target, qtype, meaning, &mut hosts)
                        }
                    }
                }
                Ok(Step::Records | Step::Alias(_) | Step::Outside) => break,
                Ok(Step::NoData(apex)) => {
                    negative = Some(apex);
                    break;
                }
                Ok(Step::Missing(apex)) => {
                    answer.header_mut().set_rcode(Rcode::NXDOMAIN);
                    negative = Some(apex);
                    break;
                }
                Ok(Step::Unknown) => return Err(Unanswerable),
                Err(_) => {
                    full = true;
                    break;
                }
            }
        }

        let mut authority = answer.authority();
        if let Some(apex) = negative {
            full |= authority
                .push((self.zone.apex(apex), Class::IN, self.ttl(), self.soa()))
                .is_err();
        }
        // What is missing from the additional section is not truncation (RFC 2181 §9).
        authority.header_mut().set_tc(full);
        let mut additional = authority.additional();
        if !full {
            let _ = self.additional(&mut additional, &hosts);
        }
        additional.clear_push_limit();
        finish(additional, edns, None)?;
        Ok(continues)
    }

    /// Writes the records of type `qtype` that `owner`, which means `meaning`, has.
    fn records<'t>(
        &'t self,
        answer: &mut AnswerBuilder<Target<'_>>,
        owner: &impl ToName,
        qtype: Rtype,
        meaning: Meaning<'t>,
        hosts: &mut Vec<Host<'t>>,
    ) -> Result<Step<'t>, PushError> {
        let before = answer.counts().ancount();
        let mut apex = Apex::Cluster;
        match meaning {
            Meaning::Empty(apex) => return Ok(Step::NoData(apex)),
            Meaning::Missing(apex) => return Ok(Step::Missing(apex)),
            Meaning::Outside => return Ok(Step::Outside),
            Meaning::Unknown => return Ok(Step::Unknown),
            Meaning::Service(service) => {
                if let RecordsKind::ExternalName(target) = &service.kind {
                    answer.push((owner, Class::IN, self.ttl(), Cname::new(target)))?;
                    return Ok(Step::Alias(target));
                }
            }
            _ => {}
        }
        if qtype == Rtype::ANY {
            // A minimal answer that says why it is minimal (RFC 8482 §4.2).
            let text = |text: &'static [u8]| CharStr::from_octets(text);
            if let (Ok(cpu), Ok(os)) = (text(b"RFC8482"), text(b"")) {
                answer.push((owner, Class::IN, self.ttl(), Hinfo::new(cpu, os)))?;
            }
            return Ok(Step::Records);
        }
        match meaning {
            Meaning::Domain => match qtype {
                Rtype::SOA => answer.push((owner, Class::IN, self.ttl(), self.soa()))?,
                Rtype::NS => answer.push((
                    owner,
                    Class::IN,
                    self.ttl(),
                    Ns::new(&self.zone.name_server),
                ))?,
                _ => {}
            },
            Meaning::Version if qtype == Rtype::TXT => {
                if let Ok(version) = Txt::<Vec<u8>>::build_from_slice(DNS_VERSION) {
                    answer.push((owner, Class::IN, self.ttl(), version))?;
                }
            }
            Meaning::Version => {}
            Meaning::NameServer => {
                for address in rotated(&self.zone.advertised, self.rotation) {
                    self.address(answer, owner, qtype, *address)?;
                }
            }
            Meaning::Service(service) => match service.kind {
                RecordsKind::Headless if qtype == Rtype::SRV => {
                    self.endpoint_services(answer, owner, service, |_| true, hosts)?;
                }
                _ if qtype == Rtype::SRV => {
                    self.own_services(answer, owner, service, |_| true, hosts)?
                }
                _ => self.addresses(answer, owner, qtype, &service.addresses)?,
            },
            Meaning::Port {
                service,
                label,
                protocol,
            } => {
                let is_asked = |port: &Port| {
                    port.protocol == protocol && port.service_label.as_ref() == Some(&label)
                };
                match service.kind {
                    RecordsKind::Headless if qtype == Rtype::SRV => {
                        self.endpoint_services(answer, owner, service, is_asked, hosts)?;
                    }
                    _ if qtype == Rtype::SRV => {
                        self.own_services(answer, owner, service, is_asked, hosts)?
                    }
                    // Beyond the specification, as CoreDNS: the addresses stand here as well.
                    _ => self.addresses(answer, owner, qtype, &service.addresses)?,
                }
            }
            Meaning::Endpoint { service, endpoint } => match qtype {
                Rtype::SRV => {
                    let host = Host {
                        endpoint: &endpoint.label,
                        service: service.key.wire(),
                        addresses: &endpoint.addresses,
                    };
                    let targets: Vec<_> = endpoint
                        .ports
                        .iter()
                        .map(|port| (host, port.number))
                        .collect();
                    self.services(answer, owner, &targets, hosts)?;
                }
                _ => self.addresses(answer, owner, qtype, &endpoint.addresses)?,
            },
            Meaning::Pod(address) => self.address(answer, owner, qtype, address)?,
            Meaning::Address(address) => {
                apex = if address.is_ipv4() {
                    Apex::ReverseV4
                } else {
                    Apex::ReverseV6
                };
                if qtype == Rtype::PTR {
                    for pointer in self.table.pointers(address) {
                        let target = below(&pointer.target, &self.zone.services);
                        if let Some(target) = target {
                            answer.push((owner, Class::IN, self.ttl(), Ptr::new(target)))?;
                        }
                    }
                }
            }
            Meaning::Empty(_) | Meaning::Missing(_) | Meaning::Outside | Meaning::Unknown => {}
        }
        Ok(match answer.counts().ancount() == before {
            true => Step::NoData(apex),
            false => Step::Records,
        })
    }

    /// A or AAAA records of all addresses of that family.
    fn addresses(
        &self,
        answer: &mut AnswerBuilder<Target<'_>>,
        owner: &impl ToName,
        qtype: Rtype,
        addresses: &Addresses,
    ) -> Result<(), PushError> {
        match qtype {
            Rtype::A => rotated(&addresses.v4, self.rotation).try_for_each(|address| {
                answer.push((owner, Class::IN, self.ttl(), A::new(*address)))
            }),
            Rtype::AAAA => rotated(&addresses.v6, self.rotation).try_for_each(|address| {
                answer.push((owner, Class::IN, self.ttl(), Aaaa::new(*address)))
            }),
            _ => Ok(()),
        }
    }

    /// The A or AAAA record of one address, if it is of that family.
    fn address(
        &self,
        answer: &mut AnswerBuilder<Target<'_>>,
        owner: &impl ToName,
        qtype: Rtype,
        address: IpAddr,
    ) -> Result<(), PushError> {
        match (qtype, address) {
            (Rtype::A, IpAddr::V4(address)) => {
                answer.push((owner, Class::IN, self.ttl(), A::new(address)))
            }
            (Rtype::AAAA, IpAddr::V6(address)) => {
                answer.push((owner, Class::IN, self.ttl(), Aaaa::new(address)))
            }
            _ => Ok(()),
        }
    }

    /// SRV records that lead to the Service's own address.
    fn own_services<'t>(
        &self,
        answer: &mut AnswerBuilder<Target<'_>>,
        owner: &impl ToName,
        service: &'t ServiceRecords,
        is_asked: impl Fn(&Port) -> bool,
        hosts: &mut Vec<Host<'t>>,
    ) -> Result<(), PushError> {
        let host = Host {
            endpoint: &[],
            service: service.key.wire(),
            addresses: &service.addresses,
        };
        let ports = service.ports.iter().filter(|port| is_asked(port));
        let targets: Vec<_> = ports.map(|port| (host, port.number)).collect();
        self.services(answer, owner, &targets, hosts)
    }

    /// SRV records that lead to each endpoint.
    fn endpoint_services<'t>(
        &self,
        answer: &mut AnswerBuilder<Target<'_>>,
        owner: &impl ToName,
        service: &'t ServiceRecords,
        is_asked: impl Fn(&Port) -> bool,
        hosts: &mut Vec<Host<'t>>,
    ) -> Result<(), PushError> {
        let mut targets = Vec::new();
        for endpoint in rotated(&service.endpoints, self.rotation) {
            let host = Host {
                endpoint: &endpoint.label,
                service: service.key.wire(),
                addresses: &endpoint.addresses,
            };
            targets.extend(
                endpoint
                    .ports
                    .iter()
                    .filter(|port| is_asked(port))
                    .map(|port| (host, port.number)),
            );
        }
        self.services(answer, owner, &targets, hosts)
    }

    /// SRV records with equal weights. `targets` must have those of one host next to each other.
    fn services<'t>(
        &self,
        answer: &mut AnswerBuilder<Target<'_>>,
        owner: &impl ToName,
        targets: &[(Host<'t>, u16)],
        hosts: &mut Vec<Host<'t>>,
    ) -> Result<(), PushError> {
        let weight = (100 / targets.len().max(1)).max(1) as u16;
        for (host, port) in targets {
            if let Some(name) = self.name(host) {
                answer.push((
                    owner,
                    Class::IN,
                    self.ttl(),
                    Srv::new(0, weight, *port, name),
                ))?;
                if hosts.last().is_none_or(|last| {
                    last.endpoint != host.endpoint || last.service != host.service
                }) {
                    hosts.push(*host);
                }
            }
        }
        Ok(())
    }

    /// The addresses of hosts named in SRV records, which clients would have to ask for next.
    fn additional(
        &self,
        additional: &mut AdditionalBuilder<Target<'_>>,
        hosts: &[Host<'_>],
    ) -> Result<(), PushError> {
        for host in hosts {
            let Some(name) = self.name(host) else {
                continue;
            };
            for address in &host.addresses.v4 {
                additional.push((&name, Class::IN, self.ttl(), A::new(*address)))?;
            }
            for address in &host.addresses.v6 {
                additional.push((&name, Class::IN, self.ttl(), Aaaa::new(*address)))?;
            }
        }
        Ok(())
    }

    /// `[<endpoint>.]<service>.<namespace>.svc.<domain>`
    fn name<'n>(&'n self, host: &Host<'n>) -> Option<impl ToName + use<'n>> {
        let endpoint = RelativeName::from_octets(host.endpoint).ok()?;
        endpoint
            .chain(below(host.service, &self.zone.services)?)
            .ok()
    }

    fn soa(&self) -> Soa<&Name<Vec<u8>>> {
        let zone = self.zone;
        let seconds = Ttl::from_secs;
        // There are no secondary servers; refresh, retry and expire are what CoreDNS says too. The last figure is
        // how long a negative answer may be kept (RFC 2308 §4).
        let (refresh, retry, expire) = (seconds(7200), seconds(1800), seconds(86400));
        let serial = Serial(self.table.serial);
        Soa::new(
            &zone.name_server,
            &zone.hostmaster,
            serial,
            refresh,
            retry,
            expire,
            self.ttl(),
        )
    }

    fn ttl(&self) -> Ttl {
        Ttl::from_secs(self.zone.ttl_seconds)
    }

    fn error(
        &self,
        message: &Message<[u8]>,
        edns: Option<Edns>,
        rcode: OptRcode,
        why: Option<ExtendedErrorCode>,
        reply: &mut Vec<u8>,
    ) -> Outcome {
        let mut answer = start(reply).start_error(message, rcode.rcode());
        answer.header_mut().set_cd(message.header().cd());
        answer.header_mut().set_ra(self.zone.forwards);
        // An extended code needs an OPT record, and only a client that sent one can have caused it.
        let edns = edns.or((rcode.ext() != 0).then_some(Edns {
            udp_octets: MOST_UDP_OCTETS,
            dnssec_ok: false,
        }));
        match finish(answer.additional(), edns, Some((rcode, why))) {
            Ok(()) => Outcome::Reply,
            Err(_) => Outcome::Ignore,
        }
    }
}

/// There is an answer, but it cannot be given.
struct Unanswerable;

impl From<PushError> for Unanswerable {
    fn from(_: PushError) -> Self {
        Unanswerable
    }
}

/// How many octets a reply may have.
pub fn limit(edns: Option<Edns>, transport: Transport) -> usize {
    match (transport, edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, None) => PLAIN_UDP_OCTETS,
        // Values below 512 count as 512 (RFC 6891 §6.2.3).
        (Transport::Udp, Some(edns)) => {
            usize::from(edns.udp_octets.min(MOST_UDP_OCTETS)).max(PLAIN_UDP_OCTETS)
        }
    }
}

/// What the query says about EDNS; an error code when it says it wrongly. Walks all sections, so that what is not
/// a message from end to end is found out.
fn edns(message: &Message<[u8]>) -> Result<Option<Edns>, OptRcode> {
    let mut edns = None;
    let mut version = 0;
    for section in [message.answer(), message.authority()] {
        for record in section.map_err(|_| OptRcode::FORMERR)? {
            // OPT belongs to the additional section (RFC 6891 §6.1.1).
            if record.map_err(|_| OptRcode::FORMERR)?.rtype() == Rtype::OPT {
                return Err(OptRcode::FORMERR);
            }
        }
    }
    for record in message.additional().map_err(|_| OptRcode::FORMERR)? {
        let record = record.map_err(|_| OptRcode::FORMERR)?;
        if record.rtype() != Rtype::OPT {
            continue;
        }
        let record = record
            .into_record::<domain::base::opt::Opt<_>>()
            .map_err(|_| OptRcode::FORMERR)?;
        let Some(record) = record else { continue };
        if edns.is_some() || !record.owner().is_root() {
            return Err(OptRcode::FORMERR);
        }
        let opt = domain::base::opt::OptRecord::from(record);
        version = opt.version();
        edns = Some(Edns {
            udp_octets: opt.udp_payload_size(),
            dnssec_ok: opt.dnssec_ok(),
        });
    }
    match version {
        0 => Ok(edns),
        _ => Err(OptRcode::BADVERS),
    }
}

/// A reply of a header and nothing else, for what cannot be repeated in a question section.
fn bare_error(message: &Message<[u8]>, rcode: Rcode, reply: &mut Vec<u8>) -> Outcome {
    let mut builder = start(reply);
    let header = builder.header_mut();
    header.set_id(message.header().id());
    header.set_qr(true);
    header.set_opcode(message.header().opcode());
    header.set_rd(message.header().rd());
    header.set_rcode(rcode);
    Outcome::Reply
}

fn start(reply: &mut Vec<u8>) -> MessageBuilder<Target<'_>> {
    match MessageBuilder::from_target(StaticCompressor::new(reply)) {
        Ok(builder) => builder,
        Err(never) => match never {},
    }
}

/// Adds the OPT record that a client with EDNS has to get (RFC 6891 §6.1.1).
fn finish(
    mut additional: AdditionalBuilder<Target<'_>>,
    edns: Option<Edns>,
    error: Option<(OptRcode, Option<ExtendedErrorCode>)>,
) -> Result<(), PushError> {
    let Some(edns) = edns else { return Ok(()) };
    additional.opt(|opt| {
        opt.set_udp_payload_size(MOST_UDP_OCTETS);
        opt.set_dnssec_ok(edns.dnssec_ok);
        let Some((rcode, why)) = error else {
            return Ok(());
        };
        opt.set_rcode(rcode);
        match why {
            Some(why) => opt.push(&ExtendedError::<&[u8]>::from(why)),
            None => Ok(()),
        }
    })
}

/// Adds the records of another server's reply to a reply that so far has only the aliases leading there.
///
/// `None` when `continuation` is not a complete message.
pub fn continued(
    beginning: &[u8],
    continuation: &[u8],
    flags: Flags,
    transport: Transport,
) -> Option<Vec<u8>> {
    let (beginning, continuation) = (
        Message::from_slice(beginning).ok()?,
        Message::from_slice(continuation).ok()?,
    );
    let mut reply = Vec::with_capacity(PLAIN_UDP_OCTETS);
    let mut builder = start(&mut reply);
    let reserved = flags
        .edns
        .map_or(0, |_| PLAIN_OPT_OCTETS + EXTENDED_ERROR_OCTETS);
    builder.set_push_limit(limit(flags.edns, transport) - reserved);
    let mut answer = builder
        .start_answer(beginning, continuation.header().rcode())
        .ok()?;
    answer.header_mut().set_ra(true);
    answer.header_mut().set_cd(flags.checking_disabled);
    let mut full = continuation.header().tc();
    for message in [beginning, continuation] {
        for record in message.answer().ok()? {
            let record = record.ok()?.into_record::<AllRecordData<_, _>>().ok()??;
            full |= answer.push(record).is_err();
        }
    }
    let mut authority = answer.authority();
    for record in continuation.authority().ok()? {
        let record = record.ok()?.into_record::<AllRecordData<_, _>>().ok()??;
        full |= authority.push(record).is_err();
    }
    authority.header_mut().set_tc(full);
    let mut additional = authority.additional();
    additional.clear_push_limit();
    finish(additional, flags.edns, None).ok()?;
    Some(reply)
}

fn below<'n>(labels: &'n [u8], parent: &'n Name<Vec<u8>>) -> Option<impl ToName + use<'n>> {
    RelativeName::from_octets(labels)
        .ok()?
        .chain(parent.for_ref())
        .ok()
}

/// All items, beginning somewhere in the middle.
fn rotated<T>(items: &[T], by: usize) -> impl Iterator<Item = &T> {
    let (front, back) = items.split_at(by.checked_rem(items.len()).unwrap_or(0));
    back.iter().chain(front)
}
