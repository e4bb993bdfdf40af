//! One step of a path into an object.
//! Source: `structured-merge-diff`, `fieldpath/element.go` and `serialize-pe.go`.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

/// One step of a path: into a field, or into an element of a list.
#[derive(Debug, Clone)]
pub enum Element {
    /// A field of a struct, or a key of a map.
    Field(Arc<str>),
    /// The element of a list whose key fields are these, sorted by name.
    Key(Arc<[(Arc<str>, Value)]>),
    /// The element of a set.
    Value(Value),
    /// The element at this place; only found in what clients send.
    Index(i64),
}

/// Text that is no path element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BadElement {
    /// A kind of element that a later Kubernetes may have: it is skipped.
    Unknown,
    /// It cannot be read.
    Malformed(String),
}

impl Element {
    /// The step into a field.
    pub fn field(name: &str) -> Self {
        Self::Field(Arc::from(name))
    }

    /// Reads `f:name`, `k:{"name":"x"}`, `v:"x"` or `i:0`.
    pub(super) fn parse(text: &str) -> Result<Self, BadElement> {
        let malformed = |why: &dyn fmt::Display| BadElement::Malformed(why.to_string());
        let Some((sort, rest)) = text.split_once(':').filter(|(sort, _)| sort.len() == 1) else {
            let why = if text.len() < 2 {
                "key must be 2 characters long:".to_owned()
            } else {
                format!("missing colon: {text}")
            };
            return Err(BadElement::Malformed(why));
        };
        match sort {
            "f" => Ok(Self::field(rest)),
            "v" => serde_json::from_str(rest)
                .map(Self::Value)
                .map_err(|e| malformed(&e)),
            "k" => {
                let fields: Map<String, Value> =
                    serde_json::from_str(rest).map_err(|e| malformed(&e))?;
                let fields = fields
                    .into_iter()
                    .map(|(name, value)| (Arc::from(name), value));
                Ok(Self::key(fields.collect()))
            }
            "i" => rest.parse().map(Self::Index).map_err(|_| {
                BadElement::Malformed(format!("strconv.Atoi: parsing {rest:?}: invalid syntax"))
            }),
            _ => Err(BadElement::Unknown),
        }
    }

    /// The element of a list with these key fields.
    pub(super) fn key(mut fields: Vec<(Arc<str>, Value)>) -> Self {
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        Self::Key(fields.into())
    }

    /// As it stands in `fieldsV1`.
    pub(super) fn serialized(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(fields) => {
                let mut text = String::from("k:{");
                for (i, (name, value)) in fields.iter().enumerate() {
                    if i > 0 {
                        text.push(',');
                    }
                    text.push_str(&html_escaped(&Value::from(&**name)));
                    text.push(':');
                    text.push_str(&html_escaped(value));
                }
                text.push('}');
                text
            }
            Self::Value(value) => format!("v:{}", html_escaped(value)),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        }
    }
}

/// JSON as Go writes it: `<`, `>` and `&` escaped.
fn html_escaped(value: &Value) -> String {
    let text = value.to_string();
    if text.contains(['<', '>', '&']) {
        text.replace('<', "\\u003c")
            .replace('>', "\\u003e")
            .replace('&', "\\u0026")
    } else {
        text
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.cmp(b),
            (Self::Key(a), Self::Key(b)) => {
                for ((name, value), (other_name, other_value)) in a.iter().zip(b.iter()) {
                    let order = name
                        .cmp(other_name)
                        .then_with(|| compare(value, other_value));
                    if order != Ordering::Equal {
                        return order;
                    }
                }
                a.len().cmp(&b.len())
            }
            (Self::Value(a), Self::Value(b)) => compare(a, b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Element {}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                f.write_str("[")?;
                for (i, (name, value)) in fields.iter().enumerate() {
                    let comma = if i > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={}", shown(value))?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={}]", shown(value)),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(shown).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| format!("{key}={}", shown(value)))
            .collect(),
        plain => plain.to_string(),
    }
}

/// A total order of JSON values; numbers by their value, whatever they are written as.
fn compare(a: &Value, b: &Value) -> Ordering {
    fn rank(value: &Value) -> u8 {
        match value {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
            Value::Null => 5,
        }
    }
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => x.cmp(&y),
            _ => {
                let (x, y) = (x.as_f64().unwrap_or(0.0), y.as_f64().unwrap_or(0.0));
                x.total_cmp(&y)
            }
        },
        (Value::String(x), Value::String(y)) => x.cmp(y),
        (Value::Bool(x), Value::Bool(y)) => x.cmp(y),
        (Value::Array(x), Value::Array(y)) => x
            .iter()
            .zip(y)
            .map(|(x, y)| compare(x, y))
            .find(|o| *o != Ordering::Equal)
            .unwrap_or_else(|| x.len().cmp(&y.len())),
        (Value::Object(x), Value::Object(y)) => {
            let sorted = |map: &Map<String, Value>| {
                let mut keys: Vec<String> = map.keys().cloned().collect();
                keys.sort_unstable();
                keys
            };
            let (xs, ys) = (sorted(x), sorted(y));
            for (xk, yk) in xs.iter().zip(&ys) {
                let order = xk.cmp(yk).then_with(|| compare(&x[xk], &y[yk]));
                if order != Ordering::Equal {
                    return order;
                }
            }
            xs.len().cmp(&ys.len())
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

/// Whether two values are the same; numbers by their value.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    a == b || compare(a, b) == Ordering::Equal
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn elements_are_read_as_they_are_written() {
        for text in [
            "f:spec",
            "f:with:colon",
            r#"k:{"port":80,"protocol":"TCP"}"#,
            r#"v:"a/b""#,
            "v:3",
            "i:2",
            r#"k:{"name":"\u003ca\u003e"}"#,
        ] {
            assert_eq!(
                Element::parse(text).expect("reads").serialized(),
                text,
                "{text}"
            );
        }
    }

    #[test]
    fn key_fields_are_sorted_by_name() {
        let element = Element::parse(r#"k:{"protocol":"TCP","port":80}"#).expect("reads");
        assert_eq!(element.serialized(), r#"k:{"port":80,"protocol":"TCP"}"#);
        assert_eq!(element.to_string(), r#"[port=80,protocol="TCP"]"#);
    }

    #[test]
    fn what_is_no_element_is_refused_and_what_is_newer_than_we_are_is_known_as_such() {
        assert_eq!(Element::parse("q:x"), Err(BadElement::Unknown));
        for text in ["", "f", "spec", "k:1", "k:{", "v:", "i:x"] {
            assert!(
                matches!(Element::parse(text), Err(BadElement::Malformed(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn numbers_are_equal_by_their_value() {
        assert!(equal(&json!({"a": [1, 2.0]}), &json!({"a": [1.0, 2]})));
        assert!(!equal(&json!(1), &json!("1")));
        assert!(!equal(&json!({"a": 1}), &json!({"a": 1, "b": 1})));
    }
}
