//! YAML that remembers which keys were given twice, and on which line. The last value counts, as in Kubernetes.

use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;
use serde_saphyr::options::DuplicateKeyPolicy;

/// Reads YAML (or JSON, which is YAML), and lists what was given twice in Go's words:
/// `line 3: key "port" already set in map`.
///
/// # Errors
/// Why it cannot be read, as Go's YAML parser begins its messages.
pub(crate) fn parse(text: &[u8]) -> Result<(Value, Vec<String>), String> {
    let text =
        std::str::from_utf8(text).map_err(|_| "yaml: invalid leading UTF-8 octet".to_owned())?;
    if text.trim().is_empty() {
        return Ok((Value::Null, Vec::new()));
    }
    let mut duplicates = Vec::new();
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
    };
    let node = Node {
        duplicates: &mut duplicates,
    };
    let value = serde_saphyr::with_deserializer_from_str_with_options(text, options, |de| {
        node.deserialize(de)
    })
    .map_err(|e| {
        let message = e.without_snippet().to_string();
        match e.location().map(|l| l.line()) {
            Some(line) if line > 0 => format!("yaml: line {line}: {message}"),
            _ => format!("yaml: {message}"),
        }
    })?;
    Ok((value, duplicates))
}

struct Node<'a> {
    duplicates: &'a mut Vec<String>,
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
        f.write_str("a YAML value")
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
        while let Some(item) = sequence.next_element_seed(Node {
            duplicates: &mut *self.duplicates,
        })? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            if map.contains_key(&key.value) {
                self.duplicates.push(format!(
                    "line {}: key {:?} already set in map",
                    key.referenced.line(),
                    key.value
                ));
            }
            let value = entries.next_value_seed(Node {
                duplicates: &mut *self.duplicates,
            })?;
            map.insert(key.value, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_given_twice_is_named_with_its_line_and_its_last_value_counts() {
        let (value, duplicates) = parse(b"a: 1\nb:\n  c: [x, y]\n  c: z\na: 2\n").expect("reads");
        assert_eq!(value, json!({"a": 2, "b": {"c": "z"}}));
        assert_eq!(
            duplicates,
            [
                "line 4: key \"c\" already set in map",
                "line 5: key \"a\" already set in map"
            ]
        );
    }

    #[test]
    fn json_is_yaml() {
        let text = br#"{"kind": "Service", "spec": {"ports": [{"port": 80, "name": "a: b"}], "x": null}, "t": true}"#;
        let (value, duplicates) = parse(text).expect("reads");
        assert_eq!(value, serde_json::from_slice::<Value>(text).expect("json"));
        assert_eq!(duplicates, Vec::<String>::new());
    }

    #[test]
    fn what_is_no_yaml_is_refused() {
        for text in [&b"a: b: c"[..], b"{", b"\xff\xfe", b"a: [1, 2"] {
            let error = parse(text).expect_err("no YAML");
            assert!(error.starts_with("yaml: "), "{error}");
        }
    }
}
