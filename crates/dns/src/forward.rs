//! Asks other servers about names that are not the cluster's. An upstream gets a bounded time and the next one is
//! tried at once when the kernel says that nobody is there, so that no client waits for its own time-out.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use domain::base::ParsedName;
use domain::base::iana::{Class, Rcode};
use domain::base::message::Message;
use domain::base::message_builder::{MessageBuilder, PushError};
use domain::base::name::ToName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::answer::{self, MOST_UDP_OCTETS, Question, Transport};

/// How long one upstream may take over one transport.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long all of it may take: clients ask again after 5 s (resolv.conf(5), `timeout`), so be done well before.
const DEADLINE: Duration = Duration::from_secs(3);

/// Why no upstream's reply can be had.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The name and type do not fit into a query.
    #[error("the query cannot be written")]
    Unwritable(#[from] PushErrorText),
    /// Nobody answered in time.
    #[error("no upstream answered within {} s", DEADLINE.as_secs())]
    Late,
    /// The last upstream tried cannot be reached.
    #[error("upstream {upstream}: {source}")]
    Unreachable {
        /// Which.
        upstream: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// There is no upstream.
    #[error("no upstream is configured")]
    None,
}

/// `PushError` says nothing beyond that it happened.
#[derive(Debug, thiserror::Error)]
#[error("it is too long")]
pub struct PushErrorText;

impl From<PushError> for ForwardError {
    fn from(_: PushError) -> Self {
        ForwardError::Unwritable(PushErrorText)
    }
}

/// Asks `upstreams` in their order; the first that knows an answer, positive or negative, wins.
///
/// The reply has the identifier of our own query, not the client's.
///
/// # Errors
/// When none replied in time. A reply with an error code is a reply.
pub async fn ask(
    upstreams: &[SocketAddr],
    question: &Question,
    transport: Transport,
) -> Result<Vec<u8>, ForwardError> {
    let asking = async {
        let mut last = Err(ForwardError::None);
        for upstream in upstreams {
            match ask_one(*upstream, question, transport).await {
                Ok(reply) if is_final(&reply) => return Ok(reply),
                Ok(reply) => last = Ok(reply),
                Err(error) if last.is_err() => last = Err(error),
                Err(_) => {}
            }
        }
        last
    };
    timeout(DEADLINE, asking)
        .await
        .unwrap_or(Err(ForwardError::Late))
}

/// Whether another upstream could not do better.
fn is_final(reply: &[u8]) -> bool {
    let rcode = Message::from_slice(reply).map(|message| message.header().rcode());
    matches!(rcode, Ok(Rcode::NOERROR | Rcode::NXDOMAIN))
}

/// UDP first; TCP when the reply is truncated and the client, on TCP itself, can have all of it. A client on UDP
/// gets the truncated reply, which tells it to come back on TCP.
async fn ask_one(
    upstream: SocketAddr,
    question: &Question,
    transport: Transport,
) -> Result<Vec<u8>, ForwardError> {
    let query = query(question, rand::random())?;
    let unreachable = |source| ForwardError::Unreachable { upstream, source };
    let late = |_| unreachable(io::ErrorKind::TimedOut.into());
    let reply = timeout(PATIENCE, over_udp(upstream, &query))
        .await
        .map_err(late)?
        .map_err(unreachable)?;
    let is_truncated = Message::from_slice(&reply).is_ok_and(|message| message.header().tc());
    if is_truncated && transport == Transport::Tcp {
        return timeout(PATIENCE, over_tcp(upstream, &query))
            .await
            .map_err(late)?
            .map_err(unreachable);
    }
    Ok(reply)
}

/// A query of our own with the client's question.
fn query(question: &Question, id: u16) -> Result<Vec<u8>, PushError> {
    let mut builder = MessageBuilder::new_vec();
    let header = builder.header_mut();
    header.set_id(id);
    header.set_rd(question.flags.recursion_desired);
    header.set_cd(question.flags.checking_disabled);
    let mut builder = builder.question();
    builder.push((&question.name, question.rtype, Class::IN))?;
    let mut builder = builder.additional();
    if let Some(edns) = question.flags.edns {
        builder.opt(|opt| {
            opt.set_udp_payload_size(edns.udp_octets.clamp(512, MOST_UDP_OCTETS));
            opt.set_dnssec_ok(edns.dnssec_ok);
            Ok(())
        })?;
    }
    Ok(builder.finish())
}

/// A fresh socket for each query: with a random port beside the random identifier, a forged reply has to guess both
/// (RFC 5452 §9.2).
async fn over_udp(upstream: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match upstream {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(upstream).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if is_reply_to(&buffer[..length], query) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(upstream: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    let length =
        u16::try_from(query.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    stream
        .write_all(&[&length.to_be_bytes()[..], query].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await?;
    match is_reply_to(&reply, query) {
        true => Ok(reply),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the reply is to another query",
        )),
    }
}

/// Whether identifier, direction and question fit, spelling included: a forger does not know the client's spelling
/// (draft-vixie-dnsext-dns0x20).
fn is_reply_to(reply: &[u8], query: &[u8]) -> bool {
    let (Ok(reply), Ok(query)) = (Message::from_slice(reply), Message::from_slice(query)) else {
        return false;
    };
    let (Ok(told), Ok(asked)) = (reply.sole_question(), query.sole_question()) else {
        return false;
    };
    let spelling = |name: &ParsedName<&[u8]>| name.to_vec().into_octets();
    reply.header().qr()
        && reply.header().id() == query.header().id()
        && told.qtype() == asked.qtype()
        && told.qclass() == asked.qclass()
        && spelling(told.qname()) == spelling(asked.qname())
}

/// The upstream's reply as a reply to the client's `query`: its identifier, cut if the client could not take it.
pub fn relayed(
    mut reply: Vec<u8>,
    query: &[u8],
    question: &Question,
    transport: Transport,
) -> Option<Vec<u8>> {
    let id = Message::from_slice(query).ok()?.header().id();
    if reply.len() > answer::limit(question.flags.edns, transport) {
        let whole = Message::from_slice(&reply).ok()?;
        let mut cut = MessageBuilder::new_vec()
            .start_answer(whole, whole.header().rcode())
            .ok()?;
        *cut.header_mut() = whole.header();
        cut.header_mut().set_tc(true);
        let cut = cut.finish();
        reply = cut;
    }
    Message::from_octets(&mut reply[..])
        .ok()?
        .header_mut()
        .set_id(id);
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{Edns, Flags};
    use domain::base::{Name, Rtype};
    use domain::rdata::Txt;

    fn question(name: &str, edns: Option<Edns>) -> Question {
        let flags = Flags {
            recursion_desired: true,
            checking_disabled: false,
            edns,
        };
        Question {
            name: Name::vec_from_str(name).unwrap(),
            rtype: Rtype::TXT,
            is_continuation: false,
            flags,
        }
    }

    fn reply_to(query: &[u8], octets: u8) -> Vec<u8> {
        let message = Message::from_slice(query).unwrap();
        let mut answer = MessageBuilder::new_vec()
            .start_answer(message, Rcode::NOERROR)
            .unwrap();
        let name = message.sole_question().unwrap().qname().to_vec();
        for _ in 0..4 {
            let text = Txt::<Vec<u8>>::build_from_slice(&vec![b'x'; usize::from(octets)]).unwrap();
            answer.push((&name, 60, text)).unwrap();
        }
        answer.finish()
    }

    #[test]
    fn only_the_reply_to_the_query_counts() {
        let asked = query(&question("Example.com.", None), 7).unwrap();
        assert!(is_reply_to(&reply_to(&asked, 1), &asked));
        let others = [
            asked.clone(),
            reply_to(&query(&question("Example.com.", None), 8).unwrap(), 1),
            reply_to(&query(&question("example.com.", None), 7).unwrap(), 1),
            reply_to(&query(&question("Example.org.", None), 7).unwrap(), 1),
            vec![0; 3],
        ];
        for other in others {
            assert!(!is_reply_to(&other, &asked), "{other:?}");
        }
    }

    #[test]
    fn the_client_gets_its_own_identifier_and_no_more_than_it_takes() {
        let client = query(&question("example.com.", None), 99).unwrap();
        let (small, large) = (reply_to(&client, 20), reply_to(&client, 200));
        let relay = |reply: &Vec<u8>, transport| {
            let reply = relayed(
                reply.clone(),
                &client,
                &question("example.com.", None),
                transport,
            )
            .unwrap();
            Message::from_octets(reply).unwrap()
        };
        let whole = relay(&small, Transport::Udp);
        assert_eq!(
            (
                whole.header().id(),
                whole.header().tc(),
                whole.header_counts().ancount()
            ),
            (99, false, 4)
        );
        let cut = relay(&large, Transport::Udp);
        assert_eq!(
            (
                cut.header().id(),
                cut.header().tc(),
                cut.header_counts().ancount()
            ),
            (99, true, 0)
        );
        assert!(cut.as_slice().len() <= 512);
        assert_eq!(relay(&large, Transport::Tcp).header_counts().ancount(), 4);
    }

    #[test]
    fn a_query_carries_the_clients_flags_and_offers_no_more_room_than_the_client() {
        let edns = Edns {
            udp_octets: 700,
            dnssec_ok: true,
        };
        let asked = query(&question("example.com.", Some(edns)), 1).unwrap();
        let message = Message::from_slice(&asked).unwrap();
        let opt = message.opt().unwrap();
        assert!(message.header().rd() && opt.dnssec_ok());
        assert_eq!(opt.udp_payload_size(), 700);
        let without = query(&question("example.com.", None), 1).unwrap();
        assert!(Message::from_slice(&without).unwrap().opt().is_none());
    }
}
