//! The conversation with the kernel: commits batches, reads the ruleset back.
//!
//! The kernel answers while the request is being sent, so nothing here waits for anyone else.

use std::collections::HashSet;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, NetlinkAddr, recv, sendmsg, setsockopt, sockopt};

use super::batch::Batch;
use super::chain::Chain;
use super::element::Element;
use super::message::{Message, Object, kind, list};
use super::rule::{self, Rule};
use super::set::Set;
use super::table::{Family, Table};
use crate::error::{Error, Result};
use crate::wire::{
    Attrs, BATCH_BEGIN, BATCH_END, BATCH_GENID, DONE, ERROR, F_DUMP, F_DUMP_INTR, HEADER,
    Malformed, Messages, Raw, SUBSYSTEM, Writer,
};

/// What the kernel's own small structures cost of a send buffer beside the bytes sent.
const SEND_OVERHEAD: usize = 64 * 1024;
/// More than the longest message of a dump (32 KiB).
const RECEIVE: usize = 256 * 1024;
/// How often a dump is begun anew because the ruleset changed meanwhile.
const DUMP_ATTEMPTS: usize = 20;

/// A netlink socket to the nf_tables of the network namespace in which it was opened, for good.
#[derive(Debug)]
pub struct Socket {
    socket: netlink_sys::Socket,
    received: Vec<u8>,
    send_buffer: usize,
}

/// A table with all that is in it but the elements of its sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpedTable {
    /// The table.
    pub table: Table,
    /// Its chains, in the order of their creation.
    pub chains: Vec<Chain>,
    /// Its sets and maps, in the order of their creation.
    pub sets: Vec<Set>,
    /// Its rules, chain by chain, in the order of evaluation.
    pub rules: Vec<Rule>,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread. Needs CAP_NET_ADMIN there.
    pub fn open() -> Result<Self> {
        let refused = |cause: io::Error| Error::refused("open", "nf_tables netlink socket", cause);
        let mut socket = netlink_sys::Socket::new(NETLINK_NETFILTER).map_err(refused)?;
        socket.bind_auto().map_err(refused)?;
        // Errors then say which byte of which message is at fault, and do not send the message back.
        socket.set_ext_ack(true).map_err(refused)?;
        socket.set_cap_ack(true).map_err(refused)?;
        Ok(Self {
            socket,
            received: vec![0; RECEIVE],
            send_buffer: 0,
        })
    }

    /// Makes all changes of a batch in one transaction, or none.
    ///
    /// # Errors
    /// Names the first object that the kernel refused and why. `EPERM`: CAP_NET_ADMIN is missing.
    pub fn commit(&mut self, batch: Batch) -> Result<()> {
        self.commit_if(batch, None)
    }

    /// Like [`Socket::commit`], but only if the ruleset still has this generation: nobody changed anything since
    /// [`Socket::generation`] said so. Otherwise the error number is `ERESTART`.
    pub fn commit_at(&mut self, batch: Batch, generation: u32) -> Result<()> {
        self.commit_if(batch, Some(generation))
    }

    /// The number of the ruleset's present generation: one more with each transaction of anyone.
    pub fn generation(&mut self) -> Result<u32> {
        let refused = |cause| Error::refused("read", "nf_tables generation", cause);
        let mut w = Writer::default();
        let mark = w.begin((SUBSYSTEM << 8) | kind::GET_GENERATION, 0, 0, 0, 0);
        w.end(mark);
        self.send(&[IoSlice::new(&w.bytes)], w.bytes.len())
            .map_err(refused)?;
        let length = self.receive(MsgFlags::empty()).map_err(refused)?;
        for raw in Messages::new(&self.received[..length]) {
            if raw.kind == ERROR {
                return Err(refused(error_number(raw)));
            }
            if raw.kind == (SUBSYSTEM << 8) | kind::NEW_GENERATION {
                let read = raw
                    .netfilter()
                    .and_then(|(_, attributes)| attributes.need(1, "generation")?.u32());
                return read.map_err(|malformed| not_understood("nf_tables generation", malformed));
            }
        }
        Err(not_understood("nf_tables generation", Malformed("answer")))
    }

    /// The tables of all families.
    pub fn tables(&mut self) -> Result<Vec<Table>> {
        self.dump(
            "tables",
            kind::GET_TABLE,
            None,
            |_| {},
            |object| match object {
                Object::Table(table) => Some(table),
                _ => None,
            },
        )
    }

    /// The chains of a table.
    pub fn chains(&mut self, family: Family, table: &str) -> Result<Vec<Chain>> {
        self.dump(
            "chains",
            kind::GET_CHAIN,
            Some(family),
            |_| {},
            |object| match object {
                Object::Chain(chain) if chain.table == table => Some(chain),
                _ => None,
            },
        )
    }

    /// The sets and maps of a table.
    pub fn sets(&mut self, family: Family, table: &str) -> Result<Vec<Set>> {
        let request = |w: &mut Writer| w.put_str(list::TABLE, table);
        self.dump(
            "sets",
            kind::GET_SET,
            Some(family),
            request,
            |object| match object {
                Object::Set(set) if set.table == table => Some(set),
                _ => None,
            },
        )
    }

    /// The rules of a table.
    pub fn rules(&mut self, family: Family, table: &str) -> Result<Vec<Rule>> {
        let request = |w: &mut Writer| w.put_str(rule::TABLE, table);
        self.dump(
            "rules",
            kind::GET_RULE,
            Some(family),
            request,
            |object| match object {
                Object::Rule(rule) if rule.table == table => Some(rule),
                _ => None,
            },
        )
    }

    /// The elements of a set or map, in no order.
    ///
    /// While the kernel resizes a hash table, which it does on its own after many additions, a dump lists some
    /// elements twice and leaves others out, and does not say so. So it counts when two dumps in a row agree.
    pub fn elements(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
    ) -> Result<Vec<Element<'static>>> {
        let mut before = self.elements_once(family, table, set)?;
        for _ in 0..DUMP_ATTEMPTS {
            let now = self.elements_once(family, table, set)?;
            if now.len() == before.len() {
                return Ok(now);
            }
            before = now;
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Err(Error::refused("read nf_tables", "elements", Errno::EINTR))
    }

    /// The elements of a set that changes by itself, in no order. While the kernel resizes it, some may be listed
    /// twice or not at all.
    pub fn elements_as_they_come(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
    ) -> Result<Vec<Element<'static>>> {
        self.elements_once(family, table, set)
    }

    fn elements_once(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
    ) -> Result<Vec<Element<'static>>> {
        let request = |w: &mut Writer| {
            w.put_str(list::TABLE, table);
            w.put_str(list::SET, set);
        };
        let lists = self.dump(
            "elements",
            kind::GET_ELEMENT,
            Some(family),
            request,
            |object| match object {
                Object::Elements { elements, .. } => Some(elements),
                _ => None,
            },
        )?;
        let mut seen = HashSet::new();
        let mut elements: Vec<Element<'static>> = lists.into_iter().flatten().collect();
        elements.retain(|element| seen.insert((element.key.clone(), element.ends_range)));
        Ok(elements)
    }

    /// A table with its chains, sets and rules; `None` if there is no such table.
    pub fn read_table(&mut self, family: Family, name: &str) -> Result<Option<DumpedTable>> {
        let tables = self.tables()?;
        let Some(table) = tables
            .into_iter()
            .find(|table| table.family == family && table.name == name)
        else {
            return Ok(None);
        };
        Ok(Some(DumpedTable {
            table,
            chains: self.chains(family, name)?,
            sets: self.sets(family, name)?,
            rules: self.rules(family, name)?,
        }))
    }

    fn commit_if(&mut self, mut batch: Batch, generation: Option<u32>) -> Result<()> {
        const OPERATION: &str = "change nf_tables:";
        if batch.is_empty() {
            return Ok(());
        }
        let last = batch.last_sequence();
        let body = batch.seal().ok_or_else(|| Error::Invalid {
            operation: "encode",
            object: "nf_tables batch".to_owned(),
            reason: "a name or a rule is longer than netlink can carry (64 KiB)".to_owned(),
        })?;
        let mut begin = Writer::default();
        let mark = begin.begin(BATCH_BEGIN, 0, 0, 0, SUBSYSTEM);
        if let Some(generation) = generation {
            begin.put_u32(BATCH_GENID, generation);
        }
        begin.end(mark);
        let mut end = Writer::default();
        let mark = end.begin(BATCH_END, 0, last + 1, 0, SUBSYSTEM);
        end.end(mark);
        let parts = [
            IoSlice::new(&begin.bytes),
            IoSlice::new(body),
            IoSlice::new(&end.bytes),
        ];
        let length = parts.iter().map(|part| part.len()).sum();
        self.make_room(length)?;
        self.send(&parts, length)
            .map_err(|errno| Error::refused(OPERATION, "a batch", errno))?;
        let (mut acknowledged, mut failure) = (false, None);
        // Everything that the kernel has to say is waiting already.
        loop {
            let length = match self.receive(MsgFlags::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => break,
                // So many errors that some were dropped; those that count came first.
                Err(Errno::ENOBUFS) => continue,
                Err(errno) => return Err(Error::refused(OPERATION, "a batch", errno)),
            };
            for raw in Messages::new(&self.received[..length]).filter(|raw| raw.kind == ERROR) {
                match error_number(raw) {
                    Errno::UnknownErrno => acknowledged |= raw.sequence == last,
                    errno => failure = failure.or_else(|| Some(Failure::of(raw, errno, &batch))),
                }
            }
        }
        match failure {
            Some(failure) => Err(failure.into_error(OPERATION)),
            None if acknowledged => Ok(()),
            None => Err(not_understood(
                "the answer to an nf_tables batch",
                Malformed("acknowledgement: none came"),
            )),
        }
    }

    /// A batch is one message to the socket, so its send buffer must hold it.
    fn make_room(&mut self, length: usize) -> Result<()> {
        let wanted = length + SEND_OVERHEAD;
        if wanted <= self.send_buffer {
            return Ok(());
        }
        setsockopt(&self.fd(), sockopt::SndBufForce, &wanted).map_err(|errno| {
            Error::refused("set the send buffer of", "nf_tables netlink socket", errno)
        })?;
        self.send_buffer = wanted;
        Ok(())
    }

    fn dump<T>(
        &mut self,
        what: &'static str,
        kind: u16,
        family: Option<Family>,
        request: impl Fn(&mut Writer),
        pick: impl Fn(Object) -> Option<T>,
    ) -> Result<Vec<T>> {
        let mut w = Writer::default();
        let mark = w.begin(
            (SUBSYSTEM << 8) | kind,
            F_DUMP,
            0,
            family.map_or(0, Family::number),
            0,
        );
        request(&mut w);
        w.end(mark);
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(found) = self.dump_once(what, &w.bytes, &pick)? {
                return Ok(found);
            }
        }
        Err(Error::refused("read nf_tables", what, Errno::EINTR))
    }

    /// `None` if the ruleset changed during the dump.
    fn dump_once<T>(
        &mut self,
        what: &'static str,
        request: &[u8],
        pick: impl Fn(Object) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let refused = |errno| Error::refused("read nf_tables", what, errno);
        self.send(&[IoSlice::new(request)], request.len())
            .map_err(refused)?;
        let (mut found, mut interrupted, mut malformed) = (Vec::new(), false, None);
        loop {
            let length = self.receive(MsgFlags::empty()).map_err(refused)?;
            if length == 0 {
                return Err(not_understood(what, Malformed("answer")));
            }
            for raw in Messages::new(&self.received[..length]) {
                interrupted |= raw.flags & F_DUMP_INTR != 0;
                match raw.kind {
                    DONE if interrupted => return Ok(None),
                    DONE => {
                        return match malformed {
                            None => Ok(Some(found)),
                            Some(malformed) => Err(not_understood(what, malformed)),
                        };
                    }
                    ERROR => match error_number(raw) {
                        Errno::EINTR | Errno::EAGAIN => return Ok(None),
                        errno => return Err(refused(errno)),
                    },
                    _ => match Message::decode(raw) {
                        Ok(message) => {
                            found.extend(message.and_then(|message| pick(message.object)))
                        }
                        // Read on to the end, or the next answer would be mixed up with this one.
                        Err(why) => malformed = malformed.or(Some(why)),
                    },
                }
            }
        }
    }

    fn send(&self, parts: &[IoSlice<'_>], length: usize) -> nix::Result<()> {
        let kernel = NetlinkAddr::new(0, 0);
        let sent = sendmsg(
            self.socket.as_raw_fd(),
            parts,
            &[],
            MsgFlags::empty(),
            Some(&kernel),
        )?;
        if sent == length {
            Ok(())
        } else {
            Err(Errno::EMSGSIZE)
        }
    }

    fn receive(&mut self, flags: MsgFlags) -> nix::Result<usize> {
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.received, flags) {
                Err(Errno::EINTR) => {}
                Ok(length) if length > self.received.len() => return Err(Errno::EMSGSIZE),
                other => return other,
            }
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.socket.as_fd()
    }
}

/// What the kernel refused, and why.
struct Failure {
    object: String,
    errno: Errno,
    explanation: Option<String>,
}

impl Failure {
    /// `NLMSGERR_ATTR_MSG`, `NLMSGERR_ATTR_OFFS`.
    const MESSAGE: u16 = 1;
    const OFFSET: u16 = 2;

    /// Reads `struct nlmsgerr`: the error number, the header of the message at fault, then attributes.
    fn of(raw: Raw<'_>, errno: Errno, batch: &Batch) -> Self {
        let attributes = Attrs::new(raw.payload.get(4 + HEADER..).unwrap_or_default());
        let at = attributes.find(Self::OFFSET).and_then(|a| {
            a.value
                .first_chunk()
                .map(|bytes| u32::from_ne_bytes(*bytes) as usize)
        });
        let object = batch
            .describe(raw.sequence, at)
            .unwrap_or_else(|| "the batch as a whole".to_owned());
        let explanation = attributes
            .find(Self::MESSAGE)
            .and_then(|a| a.text().ok())
            .map(|text| text.trim_end().to_owned());
        Self {
            object,
            errno,
            explanation,
        }
    }

    fn into_error(self, operation: &'static str) -> Error {
        let object = match self.explanation {
            Some(explanation) => format!("{} ({explanation})", self.object),
            None => self.object,
        };
        match Error::refused(operation, object, self.errno) {
            Error::Refused {
                operation,
                object,
                cause,
                hint,
            } => Error::Refused {
                operation,
                object,
                cause,
                hint: hint_for(self.errno).or(hint),
            },
            other => other,
        }
    }
}

/// What these error numbers mean in an nf_tables batch.
const fn hint_for(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::ENOENT => Some(
            "the object, or one that it refers to, is not there: someone else changed the table",
        ),
        Errno::EEXIST => Some("it is there already, with other contents"),
        Errno::EBUSY => Some("something still refers to it"),
        Errno::ERESTART => Some("someone else changed the ruleset meanwhile: read it again"),
        Errno::ENFILE => Some("the set is full: it was made with a size"),
        Errno::EMLINK | Errno::ELOOP => Some("chains lead to each other in a loop, or too deep"),
        _ => None,
    }
}

/// The error number of an `NLMSG_ERROR`; `UnknownErrno` (0) is an acknowledgement.
fn error_number(raw: Raw<'_>) -> Errno {
    match raw.payload.first_chunk() {
        Some(bytes) => Errno::from_raw(i32::from_ne_bytes(*bytes).wrapping_neg()),
        None => Errno::from_raw(libc::EBADMSG),
    }
}

fn not_understood(object: &str, malformed: Malformed) -> Error {
    Error::Invalid {
        operation: "read",
        object: object.to_owned(),
        reason: malformed.to_string(),
    }
}
