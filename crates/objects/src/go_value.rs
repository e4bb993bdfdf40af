//! Values as Go prints those of Kubernetes' internal types, which messages about a whole struct contain: fields in the
//! order of their declaration, under their Go names, none left out.
//!
//! [`read`] makes such a value of the JSON form of an object, after a table that says which struct has which fields.

use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;

/// A value in Go's eyes.
#[derive(Debug, Clone, PartialEq)]
pub enum Go {
    /// A scalar, or anything whose JSON form is the same in Go.
    Plain(Value),
    /// A slice that is not nil.
    List(Vec<Go>),
    /// A struct; the names are Go's.
    Struct(Vec<(String, Go)>),
    /// A map that is not nil.
    Map(BTreeMap<String, Go>),
}

impl Go {
    /// A nil pointer, slice or map.
    pub const NIL: Self = Self::Plain(Value::Null);

    /// A struct of fields with Go's names.
    pub fn fields<const N: usize>(fields: [(&str, Self); N]) -> Self {
        Self::Struct(fields.map(|(name, value)| (name.to_owned(), value)).into())
    }
}

impl<T: Into<Value>> From<T> for Go {
    fn from(value: T) -> Self {
        Self::Plain(value.into())
    }
}

impl Serialize for Go {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(value) => value.serialize(serializer),
            Self::List(items) => items.serialize(serializer),
            Self::Map(entries) => entries.serialize(serializer),
            Self::Struct(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

/// A struct and its fields: Go name and Go type. A field without a name is embedded: its fields stand in its place,
/// and in the JSON form as well. Types are `string`, `bool`, `int`, `any` (as it is in JSON; nil when absent),
/// `quantity`, `intstr`, `map`, the names of structs, and these with `*` or `[]` in front.
pub type Structs = &'static [(&'static str, &'static [(&'static str, &'static str)])];

/// The value of type `kind` whose JSON form is `json`. What a table does not describe stays as it is in JSON.
pub fn read(structs: Structs, kind: &str, json: Option<&Value>) -> Go {
    let json = json.filter(|value| !value.is_null());
    if let Some(item) = kind.strip_prefix("[]") {
        return match json {
            Some(Value::Array(items)) => Go::List(
                items
                    .iter()
                    .map(|one| read(structs, item, Some(one)))
                    .collect(),
            ),
            _ => Go::NIL,
        };
    }
    if let Some(pointee) = kind.strip_prefix('*') {
        return json.map_or(Go::NIL, |value| read(structs, pointee, Some(value)));
    }
    let plain = |zero: Value| Go::Plain(json.cloned().unwrap_or(zero));
    match kind {
        "string" => plain(Value::from("")),
        "bool" => plain(Value::from(false)),
        "int" | "intstr" => plain(Value::from(0)),
        "quantity" => plain(Value::from("0")),
        "map" | "any" => plain(Value::Null),
        _ => match structs.iter().find(|(name, _)| *name == kind) {
            Some((_, fields)) => {
                let mut made = Vec::new();
                read_fields(structs, fields, json, &mut made);
                Go::Struct(made)
            }
            None => plain(Value::Null),
        },
    }
}

fn read_fields(
    structs: Structs,
    fields: &[(&str, &str)],
    json: Option<&Value>,
    made: &mut Vec<(String, Go)>,
) {
    for (name, kind) in fields {
        if name.is_empty() {
            if let Some((_, embedded)) = structs.iter().find(|(name, _)| name == kind) {
                read_fields(structs, embedded, json, made);
            }
        } else {
            let value = json.and_then(|object| object.get(json_name(name)));
            made.push(((*name).to_owned(), read(structs, kind, value)));
        }
    }
}

/// The JSON name of a field: its initials in lower case, as Kubernetes' API conventions have it.
fn json_name(name: &str) -> String {
    match name {
        "CephFS" => return "cephfs".to_owned(),
        "StorageOS" => return "storageos".to_owned(),
        _ => {}
    }
    let bytes = name.as_bytes();
    let initials = bytes.iter().take_while(|b| b.is_ascii_uppercase()).count();
    // The last capital of several begins the next word, unless nothing follows: HTTPGet, but TTY.
    let lower = if initials > 1 && initials < bytes.len() && bytes[initials].is_ascii_lowercase() {
        initials - 1
    } else {
        initials
    };
    let (first, rest) = name.split_at(lower);
    format!("{}{rest}", first.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const STRUCTS: Structs = &[
        (
            "Outer",
            &[
                ("Name", "string"),
                ("", "Embedded"),
                ("Items", "[]Item"),
                ("Limits", "map"),
            ],
        ),
        ("Embedded", &[("HTTPGet", "*Item"), ("TTY", "bool")]),
        ("Item", &[("Port", "intstr"), ("HostIP", "string")]),
    ];

    fn text(json: Value) -> String {
        serde_json::to_string(&read(STRUCTS, "Outer", Some(&json))).expect("JSON")
    }

    #[test]
    fn nothing_is_left_out_and_the_order_is_that_of_the_declaration() {
        assert_eq!(
            text(json!({})),
            r#"{"Name":"","HTTPGet":null,"TTY":false,"Items":null,"Limits":null}"#
        );
        assert_eq!(
            text(
                json!({"items": [{"hostIP": "::1"}], "httpGet": {"port": "web"}, "limits": {"b": 1, "a": 2}})
            ),
            r#"{"Name":"","HTTPGet":{"Port":"web","HostIP":""},"TTY":false,"Items":[{"Port":0,"HostIP":"::1"}],"Limits":{"a":2,"b":1}}"#
        );
    }

    #[test]
    fn json_names_begin_in_lower_case() {
        for (go, json) in [
            ("Name", "name"),
            ("DNSPolicy", "dnsPolicy"),
            ("SELinuxOptions", "seLinuxOptions"),
            ("SetHostnameAsFQDN", "setHostnameAsFQDN"),
            ("OS", "os"),
            ("TTY", "tty"),
            ("FSGroup", "fsGroup"),
            ("APIVersion", "apiVersion"),
            ("HostIP", "hostIP"),
            ("CephFS", "cephfs"),
        ] {
            assert_eq!(json_name(go), json);
        }
    }
}
