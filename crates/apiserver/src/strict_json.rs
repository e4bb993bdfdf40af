//! JSON that remembers which fields were given twice. The last value counts, as in Kubernetes, but the client may
//! want to know.

use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::go_syntax;

/// Reads JSON and lists the paths of fields that are given more than once. What is no UTF-8 is replaced, as Go does.
///
/// # Errors
/// Why it cannot be read, in Go's words.
pub(crate) fn parse(text: &[u8]) -> Result<(Value, Vec<String>), String> {
    let mut duplicates = Vec::new();
    match read(text, &mut duplicates, &mut None) {
        Ok(value) => Ok((value, duplicates)),
        Err(_) if std::str::from_utf8(text).is_err() => {
            parse(String::from_utf8_lossy(text).as_bytes())
        }
        Err(error) => Err(go_syntax::error(text).unwrap_or_else(|| {
            if error.to_string().starts_with("recursion limit") {
                "exceeded max depth".to_owned()
            } else {
                error.to_string()
            }
        })),
    }
}

/// The paths of all fields in the order in which they stand in the text, each as often as it is there.
pub(crate) fn paths(text: &[u8]) -> Vec<String> {
    let mut paths = Some(Vec::new());
    let text = String::from_utf8_lossy(text);
    // What cannot be read was refused before.
    let _ = read(text.as_bytes(), &mut Vec::new(), &mut paths);
    paths.unwrap_or_default()
}

fn read(
    text: &[u8],
    duplicates: &mut Vec<String>,
    paths: &mut Option<Vec<String>>,
) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Node {
        path: String::new(),
        duplicates,
        paths,
    }
    .deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

struct Node<'a> {
    path: String,
    duplicates: &'a mut Vec<String>,
    /// Every path, if anybody wants to know.
    paths: &'a mut Option<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, items.len());
            match sequence.next_element_seed(Node {
                path,
                duplicates: &mut *self.duplicates,
                paths: &mut *self.paths,
            })? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let path = if self.path.is_empty() {
                key.clone()
            } else {
                format!("{}.{key}", self.path)
            };
            if let Some(paths) = self.paths {
                paths.push(path.clone());
            }
            if map.contains_key(&key) {
                self.duplicates.push(path.clone());
            }
            let value = entries.next_value_seed(Node {
                path,
                duplicates: &mut *self.duplicates,
                paths: &mut *self.paths,
            })?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_field_given_twice_is_named_with_its_path_and_its_last_value_counts() {
        let (value, duplicates) =
            parse(br#"{"a": [{"b": 1, "b": 2}], "c": {"d": null, "d": "x"}}"#).unwrap();
        assert_eq!(value, json!({"a": [{"b": 2}], "c": {"d": "x"}}));
        assert_eq!(duplicates, ["a[0].b", "c.d"]);
    }

    proptest! {
        #[test]
        fn it_reads_what_serde_json_reads(text in r#"[\[\]{}:,"a-c0-9 .ue\\-]{0,24}"#) {
            let plain = serde_json::from_slice::<Value>(text.as_bytes());
            let ours = parse(text.as_bytes());
            prop_assert_eq!(plain.is_ok(), ours.is_ok());
            if let (Ok(plain), Ok((ours, _))) = (plain, ours) {
                prop_assert_eq!(plain, ours);
            }
        }
    }
}
