//! Sets and maps: keys, with or without data, that rules look up in constant time.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::table::Family;
use super::userdata;
use crate::wire::{Attrs, Malformed, Writer};

const TABLE: u16 = 1;
const NAME: u16 = 2;
const FLAGS: u16 = 3;
const KEY_TYPE: u16 = 4;
const KEY_LENGTH: u16 = 5;
const DATA_TYPE: u16 = 6;
const DATA_LENGTH: u16 = 7;
const DESCRIPTION: u16 = 9;
const ID: u16 = 10;
const TIMEOUT: u16 = 11;
const USERDATA: u16 = 13;
const DESCRIPTION_SIZE: u16 = 1;
const DESCRIPTION_CONCAT: u16 = 2;
const LIST_ELEMENT: u16 = 1;
const FIELD_LENGTH: u16 = 1;

const F_INTERVAL: u32 = 0x4;
const F_MAP: u32 = 0x8;
const F_TIMEOUT: u32 = 0x10;
const F_EVAL: u32 = 0x20;
const F_CONCAT: u32 = 0x80;

/// `NFT_DATA_VERDICT`.
const VERDICT_TYPE: u32 = 0xffff_ff00;
/// Types of a concatenation are packed into 32 bits, six bits each (`TYPE_BITS` of nftables).
const TYPE_BITS: u32 = 6;

const UD_KEY_BYTEORDER: u8 = 0;
const UD_DATA_BYTEORDER: u8 = 1;
const UD_KEY_TYPEOF: u8 = 3;
const UD_DATA_TYPEOF: u8 = 4;
const UD_DATA_INTERVAL: u8 = 6;

/// What a part of a key, or of data, is. The kernel only counts bytes; `nft list` prints by it.
/// Source: nftables `include/datatype.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataType {
    /// A number in host byte order, whose length its [`TypeOf`] tells; here always 32 bits.
    Integer,
    /// An IPv4 address.
    Ipv4Addr,
    /// An IPv6 address.
    Ipv6Addr,
    /// A transport protocol's number.
    InetProto,
    /// A port.
    InetService,
    /// A packet mark, in host byte order.
    Mark,
}

impl DataType {
    const fn number(self) -> u32 {
        match self {
            Self::Integer => 4,
            Self::Ipv4Addr => 7,
            Self::Ipv6Addr => 8,
            Self::InetProto => 12,
            Self::InetService => 13,
            Self::Mark => 19,
        }
    }

    const fn from_number(number: u32) -> Result<Self, Malformed> {
        Ok(match number {
            4 => Self::Integer,
            7 => Self::Ipv4Addr,
            8 => Self::Ipv6Addr,
            12 => Self::InetProto,
            13 => Self::InetService,
            19 => Self::Mark,
            _ => return Err(Malformed("data type")),
        })
    }

    /// Length in bytes.
    pub const fn length(self) -> usize {
        match self {
            Self::Ipv6Addr => 16,
            Self::Integer | Self::Ipv4Addr | Self::Mark => 4,
            Self::InetService => 2,
            Self::InetProto => 1,
        }
    }

    /// `BYTEORDER_INVALID` 0, `BYTEORDER_HOST_ENDIAN` 1, `BYTEORDER_BIG_ENDIAN` 2.
    const fn byte_order(self) -> u32 {
        match self {
            Self::InetProto => 0,
            Self::Integer | Self::Mark => 1,
            Self::Ipv4Addr | Self::Ipv6Addr | Self::InetService => 2,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Ipv4Addr => "ipv4_addr",
            Self::Ipv6Addr => "ipv6_addr",
            Self::InetProto => "inet_proto",
            Self::InetService => "inet_service",
            Self::Mark => "mark",
        }
    }

    fn write_value(self, bytes: &[u8], out: &mut String) -> Option<()> {
        use fmt::Write as _;
        let written = match self {
            Self::Integer => write!(out, "{}", u32::from_ne_bytes(*bytes.first_chunk()?)),
            Self::Mark => write!(out, "0x{:08x}", u32::from_ne_bytes(*bytes.first_chunk()?)),
            Self::Ipv4Addr => write!(out, "{}", Ipv4Addr::from(*bytes.first_chunk::<4>()?)),
            Self::Ipv6Addr => write!(out, "{}", Ipv6Addr::from(*bytes.first_chunk::<16>()?)),
            Self::InetService => write!(out, "{}", u16::from_be_bytes(*bytes.first_chunk()?)),
            Self::InetProto => match bytes.first()? {
                1 => write!(out, "icmp"),
                6 => write!(out, "tcp"),
                17 => write!(out, "udp"),
                58 => write!(out, "ipv6-icmp"),
                132 => write!(out, "sctp"),
                number => write!(out, "{number}"),
            },
        };
        written.ok()
    }
}

/// The expression whose values a field holds, as `nft`'s `typeof`. Needed where a type has no length of its own
/// (integers), and then for all fields of the key or data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TypeOf {
    /// `ip saddr`
    IpSaddr,
    /// `ip daddr`
    IpDaddr,
    /// `ip6 saddr`
    Ip6Saddr,
    /// `ip6 daddr`
    Ip6Daddr,
    /// `meta l4proto`
    L4Proto,
    /// `th dport`
    ThDport,
    /// `numgen random mod 65536`
    Numgen,
}

/// `enum expr_types` of nftables.
const EXPR_PAYLOAD: u32 = 7;
const EXPR_META: u32 = 9;
const EXPR_CONCAT: u32 = 13;
const EXPR_NUMGEN: u32 = 23;
/// `enum proto_desc_id` of nftables.
const DESC_TH: u32 = 11;
const DESC_IP: u32 = 12;
const DESC_IP6: u32 = 13;

impl TypeOf {
    /// Protocol and field, for those that are parts of a packet.
    const fn payload(self) -> Option<(u32, u32)> {
        match self {
            Self::IpSaddr => Some((DESC_IP, 11)),
            Self::IpDaddr => Some((DESC_IP, 12)),
            Self::Ip6Saddr => Some((DESC_IP6, 8)),
            Self::Ip6Daddr => Some((DESC_IP6, 9)),
            Self::ThDport => Some((DESC_TH, 2)),
            Self::L4Proto | Self::Numgen => None,
        }
    }

    /// Writes `NFTNL_UDATA_SET_TYPEOF_EXPR` and `NFTNL_UDATA_SET_TYPEOF_DATA`.
    fn put(self, out: &mut Vec<u8>) {
        if let Some((description, field)) = self.payload() {
            userdata::put_u32(out, 0, EXPR_PAYLOAD);
            userdata::nest(out, 1, |out| {
                userdata::put_u32(out, 0, description);
                userdata::put_u32(out, 1, field);
            });
        } else if self == Self::L4Proto {
            userdata::put_u32(out, 0, EXPR_META);
            userdata::nest(out, 1, |out| userdata::put_u32(out, 0, 16));
        } else {
            userdata::put_u32(out, 0, EXPR_NUMGEN);
            userdata::nest(out, 1, |out| {
                userdata::put_u32(out, 0, 1);
                userdata::put_u32(out, 1, 65536);
                userdata::put_u32(out, 2, 0);
            });
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let expression = userdata::read_u32(bytes, 0)?;
        let inside = userdata::entries(bytes).find(|(kind, _)| *kind == 1)?.1;
        let all = [
            Self::IpSaddr,
            Self::IpDaddr,
            Self::Ip6Saddr,
            Self::Ip6Daddr,
            Self::ThDport,
            Self::L4Proto,
            Self::Numgen,
        ];
        match expression {
            EXPR_PAYLOAD => {
                let found = (
                    userdata::read_u32(inside, 0)?,
                    userdata::read_u32(inside, 1)?,
                );
                all.into_iter()
                    .find(|candidate| candidate.payload() == Some(found))
            }
            EXPR_META => (userdata::read_u32(inside, 0)? == 16).then_some(Self::L4Proto),
            EXPR_NUMGEN => Some(Self::Numgen),
            _ => None,
        }
    }
}

/// One part of a key or of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Field {
    /// What it is.
    pub data_type: DataType,
    /// Which expression's values it holds, as `typeof`; `None` prints the type.
    pub type_of: Option<TypeOf>,
}

impl From<DataType> for Field {
    fn from(data_type: DataType) -> Self {
        Self {
            data_type,
            type_of: None,
        }
    }
}

impl From<TypeOf> for Field {
    fn from(type_of: TypeOf) -> Self {
        let data_type = match type_of {
            TypeOf::IpSaddr | TypeOf::IpDaddr => DataType::Ipv4Addr,
            TypeOf::Ip6Saddr | TypeOf::Ip6Daddr => DataType::Ipv6Addr,
            TypeOf::L4Proto => DataType::InetProto,
            TypeOf::ThDport => DataType::InetService,
            TypeOf::Numgen => DataType::Integer,
        };
        Self {
            data_type,
            type_of: Some(type_of),
        }
    }
}

/// What a map's keys lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetData {
    /// Verdicts.
    Verdict,
    /// Values of these fields.
    Value(Vec<Field>),
}

/// A set, or with data a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name, unique in the table.
    pub name: String,
    /// The parts of the key.
    pub key: Vec<Field>,
    /// For maps.
    pub data: Option<SetData>,
    /// Elements are ranges: of a key with one field by an element that ends the range, of a concatenation by
    /// `key_end`.
    pub interval: bool,
    /// Rules may add and remove elements.
    pub dynamic: bool,
    /// Elements may end by themselves.
    pub timeouts: bool,
    /// The timeout of elements that bring none.
    pub timeout: Option<Duration>,
    /// The most elements it takes. The kernel then sizes a fixed hash table for so many.
    pub size: Option<u32>,
    /// What `nft list` shows as its comment.
    pub comment: Option<String>,
}

impl Set {
    /// A set of these keys.
    pub fn new<F: Into<Field>>(
        family: Family,
        table: impl Into<String>,
        name: impl Into<String>,
        key: impl IntoIterator<Item = F>,
    ) -> Self {
        Self {
            family,
            table: table.into(),
            name: name.into(),
            key: key.into_iter().map(Into::into).collect(),
            data: None,
            interval: false,
            dynamic: false,
            timeouts: false,
            timeout: None,
            size: None,
            comment: None,
        }
    }

    /// The same as a map to verdicts.
    #[must_use]
    pub fn to_verdicts(mut self) -> Self {
        self.data = Some(SetData::Verdict);
        self
    }

    /// The same as a map to values.
    #[must_use]
    pub fn to_values<F: Into<Field>>(mut self, fields: impl IntoIterator<Item = F>) -> Self {
        self.data = Some(SetData::Value(fields.into_iter().map(Into::into).collect()));
        self
    }

    /// The same with ranges as elements.
    #[must_use]
    pub fn with_intervals(mut self) -> Self {
        self.interval = true;
        self
    }

    /// The same with a comment.
    #[must_use]
    pub fn with_comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// The length of a key in bytes: fields of a concatenation are padded to four bytes.
    pub fn key_length(&self) -> usize {
        length(&self.key)
    }

    fn flags(&self) -> u32 {
        let concatenated_ranges = self.interval && self.key.len() > 1;
        [
            (self.interval, F_INTERVAL),
            (self.data.is_some(), F_MAP),
            (self.timeouts || self.timeout.is_some(), F_TIMEOUT),
            (self.dynamic, F_EVAL),
            (concatenated_ranges, F_CONCAT),
        ]
        .into_iter()
        .filter_map(|(set, flag)| set.then_some(flag))
        .fold(0, |all, flag| all | flag)
    }

    /// `id` is any number that no other set of the batch has.
    pub(super) fn encode(&self, w: &mut Writer, id: u32) {
        self.encode_name(w);
        w.put_u32(FLAGS, self.flags());
        w.put_u32(KEY_TYPE, packed_types(&self.key));
        w.put_u32(KEY_LENGTH, self.key_length() as u32);
        match &self.data {
            None => {}
            Some(SetData::Verdict) => {
                w.put_u32(DATA_TYPE, VERDICT_TYPE);
                w.put_u32(DATA_LENGTH, 0);
            }
            Some(SetData::Value(fields)) => {
                w.put_u32(DATA_TYPE, packed_types(fields));
                w.put_u32(DATA_LENGTH, length(fields) as u32);
            }
        }
        w.put_u32(ID, id);
        let concatenated_ranges = self.interval && self.key.len() > 1;
        if self.size.is_some() || concatenated_ranges {
            w.nest(DESCRIPTION, |w| {
                if let Some(size) = self.size {
                    w.put_u32(DESCRIPTION_SIZE, size);
                }
                if concatenated_ranges {
                    w.nest(DESCRIPTION_CONCAT, |w| {
                        for field in &self.key {
                            w.nest(LIST_ELEMENT, |w| {
                                w.put_u32(FIELD_LENGTH, field.data_type.length() as u32)
                            });
                        }
                    });
                }
            });
        }
        if let Some(timeout) = self.timeout {
            w.put_u64(TIMEOUT, timeout.as_millis() as u64);
        }
        w.put(USERDATA, &self.userdata());
    }

    pub(super) fn encode_name(&self, w: &mut Writer) {
        w.put_str(TABLE, &self.table);
        w.put_str(NAME, &self.name);
    }

    fn userdata(&self) -> Vec<u8> {
        let mut out = Vec::new();
        userdata::put_u32(&mut out, UD_KEY_BYTEORDER, byte_order(&self.key));
        match &self.data {
            None => {}
            Some(SetData::Verdict) => userdata::put_u32(&mut out, UD_DATA_BYTEORDER, 0),
            Some(SetData::Value(fields)) => {
                userdata::put_u32(&mut out, UD_DATA_BYTEORDER, byte_order(fields))
            }
        }
        put_typeof(&mut out, UD_KEY_TYPEOF, &self.key);
        if let Some(SetData::Value(fields)) = &self.data {
            put_typeof(&mut out, UD_DATA_TYPEOF, fields);
        }
        if self.data.is_some() {
            userdata::put_u32(&mut out, UD_DATA_INTERVAL, 0);
        }
        if let Some(comment) = &self.comment {
            userdata::put_comment(&mut out, userdata::SET_COMMENT, comment);
        }
        out
    }

    pub(super) fn decode(family: Family, attributes: Attrs<'_>) -> Result<Self, Malformed> {
        let flags = attributes.find(FLAGS).map_or(Ok(0), |a| a.u32())?;
        let userdata = attributes.find(USERDATA).map_or(&[][..], |a| a.value);
        let key_type = attributes.need(KEY_TYPE, "key type of a set")?.u32()?;
        let data = if flags & F_MAP == 0 {
            None
        } else {
            let number = attributes.need(DATA_TYPE, "data type of a map")?.u32()?;
            Some(if number == VERDICT_TYPE {
                SetData::Verdict
            } else {
                SetData::Value(read_fields(number, UD_DATA_TYPEOF, userdata)?)
            })
        };
        Ok(Self {
            family,
            table: attributes.need(TABLE, "table of a set")?.text()?.to_owned(),
            name: attributes.need(NAME, "set name")?.text()?.to_owned(),
            key: read_fields(key_type, UD_KEY_TYPEOF, userdata)?,
            data,
            interval: flags & F_INTERVAL != 0,
            dynamic: flags & F_EVAL != 0,
            timeouts: flags & F_TIMEOUT != 0,
            timeout: attributes
                .find(TIMEOUT)
                .map(|a| a.u64().map(Duration::from_millis))
                .transpose()?,
            size: attributes
                .find(DESCRIPTION)
                .and_then(|a| a.nested().find(DESCRIPTION_SIZE))
                .map(|a| a.u32())
                .transpose()?,
            comment: userdata::read_comment(userdata, userdata::SET_COMMENT),
        })
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.data.is_some() { "map" } else { "set" };
        write!(
            f,
            "{kind} {} {} {} {{ key {}",
            self.family,
            self.table,
            self.name,
            Names(&self.key)
        )?;
        match &self.data {
            None => {}
            Some(SetData::Verdict) => f.write_str(" : verdict")?,
            Some(SetData::Value(fields)) => write!(f, " : {}", Names(fields))?,
        }
        for (set, name) in [
            (self.interval, "interval"),
            (self.dynamic, "dynamic"),
            (self.timeouts, "timeout"),
        ] {
            if set {
                write!(f, "; {name}")?;
            }
        }
        if let Some(timeout) = self.timeout {
            write!(f, "; timeout {}ms", timeout.as_millis())?;
        }
        if let Some(size) = self.size {
            write!(f, "; size {size}")?;
        }
        if let Some(comment) = &self.comment {
            write!(f, "; comment {comment:?}")?;
        }
        f.write_str(" }")
    }
}

struct Names<'a>(&'a [Field]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, field) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { " . " };
            write!(f, "{separator}{}", field.data_type.name())?;
        }
        Ok(())
    }
}

/// The value of these fields as `nft` prints it; hexadecimal if it has not their length.
pub(super) fn format_value(fields: &[Field], bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut rest = bytes;
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            out.push_str(" . ");
        }
        let length = field.data_type.length();
        if rest.len() < length || field.data_type.write_value(rest, &mut out).is_none() {
            return hexadecimal(bytes);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    if fields.is_empty() || !rest.is_empty() {
        hexadecimal(bytes)
    } else {
        out
    }
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::from("0x"), |mut out, byte| {
        // Writing to a String does not fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn length(fields: &[Field]) -> usize {
    match fields {
        [only] => only.data_type.length(),
        several => several
            .iter()
            .map(|field| field.data_type.length().next_multiple_of(4))
            .sum(),
    }
}

fn packed_types(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |packed, field| {
        (packed << TYPE_BITS) | field.data_type.number()
    })
}

fn byte_order(fields: &[Field]) -> u32 {
    match fields {
        [only] => only.data_type.byte_order(),
        _ => 0,
    }
}

fn put_typeof(out: &mut Vec<u8>, kind: u8, fields: &[Field]) {
    let Some(types) = fields
        .iter()
        .map(|field| field.type_of)
        .collect::<Option<Vec<_>>>()
    else {
        return;
    };
    userdata::nest(out, kind, |out| match types.as_slice() {
        [only] => only.put(out),
        several => {
            userdata::put_u32(out, 0, EXPR_CONCAT);
            userdata::nest(out, 1, |out| {
                for (index, one) in several.iter().enumerate() {
                    // A key has at most five fields.
                    userdata::nest(out, index as u8, |out| one.put(out));
                }
            });
        }
    });
}

/// The fields as far as the packed types tell them, each with its `typeof` if all have one.
fn read_fields(packed: u32, typeof_kind: u8, userdata: &[u8]) -> Result<Vec<Field>, Malformed> {
    let mut types = Vec::new();
    let mut rest = packed;
    while rest != 0 {
        types.push(DataType::from_number(rest & ((1 << TYPE_BITS) - 1))?);
        rest >>= TYPE_BITS;
    }
    types.reverse();
    let expressions = read_typeof(typeof_kind, userdata).filter(|found| found.len() == types.len());
    Ok(types
        .into_iter()
        .enumerate()
        .map(|(index, data_type)| Field {
            data_type,
            type_of: expressions.as_ref().map(|found| found[index]),
        })
        .collect())
}

fn read_typeof(kind: u8, userdata: &[u8]) -> Option<Vec<TypeOf>> {
    let bytes = userdata::entries(userdata)
        .find(|(found, _)| *found == kind)?
        .1;
    if userdata::read_u32(bytes, 0)? != EXPR_CONCAT {
        return Some(vec![TypeOf::read(bytes)?]);
    }
    let inside = userdata::entries(bytes).find(|(found, _)| *found == 1)?.1;
    userdata::entries(inside)
        .map(|(_, one)| TypeOf::read(one))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn userdata_is_what_nft_writes() {
        // Recorded from nft 1.0.6:
        // map choosers { typeof numgen random mod 65536 : verdict; }
        let map = Set::new(Family::Ip, "p", "choosers", [TypeOf::Numgen]).to_verdicts();
        let nft = "000401000000010400000000031a000417000000011200040100000001040000010002040000000004080004010000000100060400000000";
        // nft adds a `typeof` for the verdict too, which says nothing (04 08 00 04 01000000 01 00).
        let without_verdict = nft.replace("04080004010000000100", "");
        assert_eq!(hexadecimal(&map.userdata()), format!("0x{without_verdict}"));
        // map nb { typeof meta l4proto . th dport . numgen random mod 65536 : ip daddr . th dport; }
        let map = Set::new(
            Family::Ip,
            "p",
            "nb",
            [TypeOf::L4Proto, TypeOf::ThDport, TypeOf::Numgen],
        )
        .to_values([TypeOf::IpDaddr, TypeOf::ThDport]);
        let nft = "000400000000010400000000034a00040d0000000142000e00040900000001060004100000000114000407000000010c00040b000000010402000000021a0004170000000112000401000000010400000100020400000000043400040d000000012c0014000407000000010c00040c00000001040c0000000114000407000000010c00040b000000010402000000060400000000";
        assert_eq!(hexadecimal(&map.userdata()), format!("0x{nft}"));
        assert_eq!(packed_types(&map.key), 0xc344);
    }

    #[test]
    fn a_value_of_the_wrong_length_is_shown_as_bytes() {
        let fields = [DataType::Ipv4Addr.into(), DataType::InetService.into()];
        assert_eq!(
            format_value(&fields, &[10, 0, 0, 1, 0, 80, 0, 0]),
            "10.0.0.1 . 80"
        );
        assert_eq!(format_value(&fields, &[10, 0, 0]), "0x0a0000");
        assert_eq!(
            format_value(&fields, &[0; 12]),
            "0x000000000000000000000000"
        );
    }
}
