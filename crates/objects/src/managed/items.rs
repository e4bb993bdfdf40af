//! Telling the elements of a list apart. Source: `structured-merge-diff`, `typed/helpers.go`.

use serde_json::Value;

use super::element::Element;
use super::schema::{List, Relation};

/// Which element of its list a value is.
///
/// # Errors
/// Why it cannot be told apart from others, in Kubernetes' words.
pub(super) fn element(list: &List, item: &Value) -> Result<Element, String> {
    match &list.relation {
        Relation::Atomic => Err("invalid indexing of non-associative list".to_owned()),
        Relation::Set => match item {
            Value::Object(_) => {
                Err("associative list without keys has an element that's a map type".to_owned())
            }
            Value::Array(_) => {
                Err("not supported: associative list with lists as elements".to_owned())
            }
            Value::Null => Err(
                "associative list without keys has an element that's an explicit null".to_owned(),
            ),
            plain => Ok(Element::Value(plain.clone())),
        },
        Relation::Map(keys) => {
            let map = match item {
                Value::Object(map) => map,
                Value::Null => {
                    return Err("associative list with keys may not have a null element".to_owned());
                }
                _ => {
                    return Err(
                        "associative list with keys may not have non-map elements".to_owned()
                    );
                }
            };
            let fields: Vec<_> = keys
                .iter()
                .filter_map(|(key, default)| {
                    let value = map.get(&**key).or(default.as_ref())?;
                    Some((key.clone(), value.clone()))
                })
                .collect();
            if fields.is_empty() && !keys.is_empty() {
                let names: Vec<String> = keys.iter().map(|(key, _)| format!("{key:?}")).collect();
                return Err(format!(
                    "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                    names.join(" ")
                ));
            }
            Ok(Element::key(fields))
        }
    }
}
