//! Objects in the binary form that Go clients prefer (`application/vnd.kubernetes.protobuf`), read into JSON. `kubectl
//! create deployment` and everything else that uses client-go's typed clients send it and do not fall back; answers
//! are JSON, which all of them read.
//!
//! What the messages are is a table made from the Kubernetes API (`messages.txt`, see
//! `examples/describe_protobuf.rs`), so a new kind needs nothing here.
//!
//! Source: `k8s.io/apimachinery/pkg/runtime/serializer/protobuf`; the encoding, <https://protobuf.dev/programming-guides/encoding/>.

mod messages;
mod wire;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use messages::{Kind, Message, Name};
use wire::{Fields, Raw};

/// What every such body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Messages within messages; schemas of the API nest less deep, except those that are JSON inside.
const DEPTH: usize = 64;

/// The body is not an object in this form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// It does not begin as it should.
    #[error("provided data does not appear to be a protobuf message, expected prefix 6b 38 73 00")]
    Magic,
    /// The bytes are not protobuf, or not of the message that they should be.
    #[error("proto: {message}: {what}")]
    Malformed {
        /// Of which message.
        message: String,
        /// What is wrong.
        what: &'static str,
    },
    /// No such message is known.
    #[error("no kind {kind:?} is registered for version {version:?}")]
    Unknown {
        /// Kind.
        kind: String,
        /// Group and version.
        version: String,
    },
}

/// Whether the Kubernetes API has such a kind, served here or not.
pub(crate) fn knows(version: &str, kind: &str) -> bool {
    messages::find(&format!("{version}.{kind}")).is_some()
}

/// Reads an object; its type comes with it.
pub(crate) fn read(body: &[u8]) -> Result<Value, Error> {
    let envelope = body.strip_prefix(MAGIC).ok_or(Error::Magic)?;
    let (mut type_meta, mut raw): (&[u8], &[u8]) = (&[], &[]);
    each(envelope, "runtime.Unknown", |number, value| {
        match (number, value) {
            (1, Raw::Bytes(bytes)) => type_meta = bytes,
            (2, Raw::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
        Ok(())
    })?;
    let (mut version, mut kind) = (String::new(), String::new());
    each(type_meta, "runtime.TypeMeta", |number, value| {
        match (number, value) {
            (1, Raw::Bytes(bytes)) => version = text(bytes, "runtime.TypeMeta")?,
            (2, Raw::Bytes(bytes)) => kind = text(bytes, "runtime.TypeMeta")?,
            _ => {}
        }
        Ok(())
    })?;
    let message = messages::find(&format!("{version}.{kind}"))
        // Options are of every group.
        .or_else(|| messages::find(&format!("meta.{kind}")))
        .ok_or_else(|| Error::Unknown {
            kind: kind.clone(),
            version: version.clone(),
        })?;
    let mut object = match message_value(message, raw, 0)? {
        Value::Object(map) => map,
        _ => return Err(malformed(message, "not an object")),
    };
    object.insert("apiVersion".to_owned(), version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

fn message_value(message: &Message, bytes: &[u8], depth: usize) -> Result<Value, Error> {
    if depth > DEPTH {
        return Err(malformed(message, "nested too deep"));
    }
    let mut object = Map::new();
    let mut whole = None;
    each(bytes, message.name, |number, raw| {
        // A field of a newer API: dropped, as an unknown field in JSON is.
        let Some(field) = message.field(number) else {
            return Ok(());
        };
        if field.list {
            // Numbers in a list may come packed.
            if let (Raw::Bytes(packed), true) = (&raw, field.kind.is_varint()) {
                let mut rest = *packed;
                while !rest.is_empty() {
                    let number = wire::varint(&mut rest)
                        .ok_or_else(|| malformed(message, "bad packed list"))?;
                    push(
                        &mut object,
                        &mut whole,
                        &field.name,
                        value(message, &field.kind, Raw::Varint(number), depth)?,
                    );
                }
            } else {
                push(
                    &mut object,
                    &mut whole,
                    &field.name,
                    value(message, &field.kind, raw, depth)?,
                );
            }
            return Ok(());
        }
        if let Kind::Map(kind) = &field.kind {
            let (key, entry) = entry(message, kind, raw, depth)?;
            if let Name::Of { json, .. } = field.name {
                let map = object
                    .entry(json)
                    .or_insert_with(|| Value::Object(Map::new()));
                map[key] = entry;
            }
            return Ok(());
        }
        let value = value(message, &field.kind, raw, depth)?;
        match field.name {
            Name::Whole => whole = Some(value),
            Name::Inline => {
                if let Value::Object(inner) = value {
                    object.extend(inner);
                }
            }
            Name::Of { omitted: true, .. } if is_zero(&value) => {}
            // A time that is not set.
            Name::Of { .. } if value.is_null() => {}
            Name::Of { json, .. } => {
                object.insert(json.to_owned(), value);
            }
        }
        Ok(())
    })?;
    Ok(whole.unwrap_or(Value::Object(object)))
}

fn push(object: &mut Map<String, Value>, whole: &mut Option<Value>, name: &Name, value: Value) {
    let list = match name {
        Name::Of { json, .. } => object
            .entry(*json)
            .or_insert_with(|| Value::Array(Vec::new())),
        Name::Whole | Name::Inline => whole.get_or_insert_with(|| Value::Array(Vec::new())),
    };
    if let Value::Array(list) = list {
        list.push(value);
    }
}

fn entry(
    message: &Message,
    kind: &Kind,
    raw: Raw<'_>,
    depth: usize,
) -> Result<(String, Value), Error> {
    let Raw::Bytes(bytes) = raw else {
        return Err(malformed(message, "bad map"));
    };
    let (mut key, mut found) = (String::new(), None);
    each(bytes, message.name, |number, raw| {
        match (number, raw) {
            (1, Raw::Bytes(bytes)) => key = text(bytes, message.name)?,
            (2, raw) => found = Some(value(message, kind, raw, depth)?),
            _ => {}
        }
        Ok(())
    })?;
    let found = match found {
        Some(value) => value,
        // Left out because it is empty.
        None => value(message, kind, Raw::Bytes(&[]), depth)?,
    };
    Ok((key, found))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "protobuf keeps 32 bit numbers sign-extended in 64 bits"
)]
#[expect(
    clippy::cast_possible_wrap,
    reason = "the bits are those of a signed number"
)]
fn value(message: &Message, kind: &Kind, raw: Raw<'_>, depth: usize) -> Result<Value, Error> {
    match (kind, raw) {
        (Kind::Text, Raw::Bytes(bytes)) => Ok(text(bytes, message.name)?.into()),
        (Kind::Bytes, Raw::Bytes(bytes)) => Ok(STANDARD.encode(bytes).into()),
        (Kind::Bool, Raw::Varint(number)) => Ok((number != 0).into()),
        (Kind::Int32, Raw::Varint(number)) => Ok((number as i32).into()),
        (Kind::Int64, Raw::Varint(number)) => Ok((number as i64).into()),
        (Kind::Json, Raw::Bytes(bytes)) => json(message, bytes),
        (Kind::IntOrString, Raw::Bytes(bytes)) => int_or_string(message, bytes),
        (Kind::Quantity, Raw::Bytes(bytes)) => {
            let mut quantity = String::new();
            each(bytes, message.name, |number, raw| {
                if let (1, Raw::Bytes(bytes)) = (number, raw) {
                    quantity = text(bytes, message.name)?;
                }
                Ok(())
            })?;
            // An empty Quantity is zero.
            Ok(if quantity.is_empty() {
                "0".into()
            } else {
                quantity.into()
            })
        }
        (Kind::Time { micros }, Raw::Bytes(bytes)) => time(message, bytes, *micros),
        (Kind::Message(name), Raw::Bytes(bytes)) => {
            let inner = messages::find(name)
                .ok_or_else(|| malformed(message, "a field of a type that is not known"))?;
            message_value(inner, bytes, depth + 1)
        }
        _ => Err(malformed(message, "wrong wire type")),
    }
}

/// JSON inside protobuf (`RawExtension`, `FieldsV1`).
fn json(message: &Message, bytes: &[u8]) -> Result<Value, Error> {
    let mut found = Value::Null;
    each(bytes, message.name, |number, raw| {
        if let (1, Raw::Bytes(bytes)) = (number, raw) {
            found =
                serde_json::from_slice(bytes).map_err(|_| malformed(message, "bad JSON inside"))?;
        }
        Ok(())
    })?;
    Ok(found)
}

fn int_or_string(message: &Message, bytes: &[u8]) -> Result<Value, Error> {
    let (mut is_text, mut number, mut string) = (false, Value::from(0), Value::from(""));
    each(bytes, message.name, |field, raw| {
        match (field, raw) {
            (1, Raw::Varint(kind)) => is_text = kind == 1,
            (2, raw) => number = value(message, &Kind::Int32, raw, 0)?,
            (3, raw) => string = value(message, &Kind::Text, raw, 0)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(if is_text { string } else { number })
}

/// Null for a time that is not set.
fn time(message: &Message, bytes: &[u8], micros: bool) -> Result<Value, Error> {
    let (mut seconds, mut nanos) = (None, None);
    each(bytes, message.name, |field, raw| {
        match (field, raw) {
            (1, raw) => seconds = value(message, &Kind::Int64, raw, 0)?.as_i64(),
            (2, raw) => nanos = value(message, &Kind::Int32, raw, 0)?.as_i64(),
            _ => {}
        }
        Ok(())
    })?;
    let Some(seconds) = seconds else {
        return Ok(Value::Null);
    };
    let nanos = i32::try_from(nanos.unwrap_or(0)).unwrap_or(0);
    let time =
        Timestamp::new(seconds, nanos).map_err(|_| malformed(message, "a time that cannot be"))?;
    let format = if micros {
        "%Y-%m-%dT%H:%M:%S.%6fZ"
    } else {
        "%Y-%m-%dT%H:%M:%SZ"
    };
    Ok(time.strftime(format).to_string().into())
}

/// Go writes the zero of fields that are no pointers; JSON leaves it out.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn each<'a>(
    bytes: &'a [u8],
    message: &str,
    mut take: impl FnMut(u32, Raw<'a>) -> Result<(), Error>,
) -> Result<(), Error> {
    for field in Fields::new(bytes) {
        let (number, raw) = field.ok_or_else(|| Error::Malformed {
            message: message.to_owned(),
            what: "cut off or damaged",
        })?;
        take(number, raw)?;
    }
    Ok(())
}

fn text(bytes: &[u8], message: &str) -> Result<String, Error> {
    let text = std::str::from_utf8(bytes);
    text.map(str::to_owned).map_err(|_| Error::Malformed {
        message: message.to_owned(),
        what: "text that is not UTF-8",
    })
}

fn malformed(message: &Message, what: &'static str) -> Error {
    Error::Malformed {
        message: message.name.to_owned(),
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [
            &[number << 3 | 2, u8::try_from(bytes.len()).unwrap()],
            bytes,
        ]
        .concat()
    }

    fn object(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let type_meta = [field(1, version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &type_meta), field(2, raw)].concat()
    }

    #[test]
    fn a_service_is_read_with_its_names_maps_and_target_ports() {
        let port = [
            field(1, b""),
            field(2, b"TCP"),
            vec![3 << 3, 80],
            field(4, &[vec![1 << 3, 1, 2 << 3, 0], field(3, b"web")].concat()),
        ]
        .concat();
        let selector = [field(1, b"app"), field(2, b"a")].concat();
        let spec = [field(1, &port), field(2, &selector), field(4, b"")].concat();
        let metadata = [field(1, b"s"), field(8, b"")].concat();
        let body = object(
            "v1",
            "Service",
            &[
                field(1, &metadata),
                field(2, &spec),
                field(3, &field(1, b"")),
            ]
            .concat(),
        );
        assert_eq!(
            read(&body).unwrap(),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
                "spec": {"ports": [{"protocol": "TCP", "port": 80, "targetPort": "web"}], "selector": {"app": "a"}}})
        );
    }

    #[test]
    fn options_are_read_whatever_group_they_come_in() {
        let body = object(
            "apps/v1",
            "DeleteOptions",
            &[vec![1 << 3, 0], field(4, b"Foreground")].concat(),
        );
        let options = read(&body).unwrap();
        assert_eq!(
            options["gracePeriodSeconds"], 0,
            "a zero that was given counts"
        );
        assert_eq!(options["propagationPolicy"], "Foreground");
    }

    #[test]
    fn what_is_inlined_in_json_is_inlined() {
        let get = field(
            2,
            &[field(1, b"/ready"), field(2, &[1 << 3, 0, 2 << 3, 81])].concat(),
        );
        let probe = [field(1, &get), vec![2 << 3, 5]].concat();
        let message = messages::find("v1.Probe").unwrap();
        assert_eq!(
            message_value(message, &probe, 0).unwrap(),
            json!({"httpGet": {"path": "/ready", "port": 81}, "initialDelaySeconds": 5})
        );
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let body = object("v1", "ConfigMap", &field(1, &field(1, b"name")));
        assert!(read(&body).is_ok());
        assert!(read(&body[..body.len() - 1]).is_err());
        assert_eq!(read(b"{}"), Err(Error::Magic));
    }

    proptest! {
        #[test]
        fn reading_never_panics(raw in prop::collection::vec(any::<u8>(), 0..100)) {
            let message = messages::find("v1.Pod").unwrap();
            let _ = message_value(message, &raw, 0);
            let _ = read(&[MAGIC, &raw].concat());
        }
    }
}
