//! `metadata.managedFields`: reading and writing it.
//! Source: `k8s.io/apimachinery/pkg/util/managedfields/internal/managedfields.go`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::json;
use super::set::Set;

/// How fields came to be owned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who owns fields: what tells entries of `managedFields` apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Manager {
    /// Its name.
    pub name: String,
    /// How.
    pub operation: Operation,
    /// In which version; empty for appliers, which have one entry whatever version they apply.
    pub api_version: String,
    /// Through which subresource; empty for the object itself.
    pub subresource: String,
}

impl Manager {
    /// A manager's identity for a write in that version.
    pub fn new(name: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        Self {
            name: name.to_owned(),
            operation,
            api_version: match operation {
                Operation::Apply => String::new(),
                Operation::Update => api_version.to_owned(),
            },
            subresource: subresource.to_owned(),
        }
    }
}

/// As conflicts name it. Source: `printManager` in `internal/conflict.go`.
impl std::fmt::Display for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.name)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        match self.operation {
            Operation::Apply => Ok(()),
            Operation::Update => write!(f, " using {}", self.api_version),
        }
    }
}

/// What a manager owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// Which fields.
    pub set: Set,
    /// In which version the set is.
    pub api_version: String,
    /// Whether they were applied.
    pub applied: bool,
}

/// Managers and what they own.
pub type Managers = BTreeMap<Manager, Owned>;

/// All of `managedFields`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Managed {
    /// Who owns what.
    pub managers: Managers,
    /// When each changed it last (RFC 3339).
    pub times: BTreeMap<Manager, String>,
}

impl Managed {
    /// Reads the entries; `None` stands for a field that is not there.
    ///
    /// # Errors
    /// Why they cannot be read, in Kubernetes' words.
    pub fn read(entries: Option<&Value>) -> Result<Self, String> {
        let mut managed = Self::default();
        let entries = match entries {
            None | Some(Value::Null) => return Ok(managed),
            Some(Value::Array(entries)) => entries,
            Some(_) => return Err("managedFields must be a list".to_owned()),
        };
        for (i, entry) in entries.iter().enumerate() {
            let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err("operation must be `Apply` or `Update`".to_owned()),
            };
            let api_version = text("apiVersion");
            if api_version.is_empty() {
                return Err("apiVersion must not be empty".to_owned());
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {i}")),
                other => {
                    return Err(format!(
                        "invalid fieldsType {other:?} in managed fields entry {i}"
                    ));
                }
            }
            let set = match entry.get("fieldsV1") {
                None | Some(Value::Null) => Set::default(),
                Some(fields) => {
                    json::from_value(fields).map_err(|e| format!("error decoding set: {e}"))?
                }
            };
            let manager =
                Manager::new(text("manager"), operation, api_version, text("subresource"));
            if let Some(time) = entry.get("time").and_then(Value::as_str) {
                managed.times.insert(manager.clone(), time.to_owned());
            }
            managed.managers.insert(
                manager,
                Owned {
                    set,
                    api_version: api_version.to_owned(),
                    applied: operation == Operation::Apply,
                },
            );
        }
        Ok(managed)
    }

    /// The entries, in Kubernetes' order; `None` if nobody owns anything.
    pub fn write(&self) -> Option<Value> {
        if self.managers.is_empty() {
            return None;
        }
        let mut sorted: Vec<(&Manager, &Owned, Option<&String>)> = self
            .managers
            .iter()
            .map(|(manager, owned)| (manager, owned, self.times.get(manager)))
            .collect();
        sorted.sort_by(|(a, x, s), (b, y, t)| {
            (a.operation, s, &a.name, &x.api_version, &a.subresource).cmp(&(
                b.operation,
                t,
                &b.name,
                &y.api_version,
                &b.subresource,
            ))
        });
        let entries = sorted.into_iter().map(|(manager, owned, time)| {
            let mut entry = Map::new();
            entry.insert("manager".to_owned(), json!(manager.name));
            entry.insert("operation".to_owned(), json!(manager.operation.name()));
            entry.insert("apiVersion".to_owned(), json!(owned.api_version));
            if let Some(time) = time {
                entry.insert("time".to_owned(), json!(time));
            }
            entry.insert("fieldsType".to_owned(), json!("FieldsV1"));
            entry.insert("fieldsV1".to_owned(), json::to_value(&owned.set));
            if !manager.subresource.is_empty() {
                entry.insert("subresource".to_owned(), json!(manager.subresource));
            }
            Value::Object(entry)
        });
        Some(entries.collect())
    }
}

/// Whether a client asks for all managers to be forgotten: an empty list, or one with a single empty entry.
pub fn is_reset(entries: Option<&Value>) -> bool {
    match entries.and_then(Value::as_array).map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// Whether two lists of entries differ in nothing but their times.
pub fn same_but_for_times(a: &Value, b: &Value) -> bool {
    let (Value::Array(a), Value::Array(b)) = (a, b) else {
        return a == b;
    };
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| match (a, b) {
            (Value::Object(a), Value::Object(b)) => {
                let fields = |m: &Map<String, Value>| m.len() - usize::from(m.contains_key("time"));
                fields(a) == fields(b)
                    && a.iter()
                        .all(|(key, value)| key == "time" || b.get(key) == Some(value))
            }
            _ => a == b,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appliers_come_first_then_the_oldest() {
        let entry = |manager: &str, operation: &str, time: &str| {
            json!({"manager": manager, "operation": operation, "apiVersion": "v1", "time": time,
                "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {}}})
        };
        let entries = json!([
            entry("z", "Apply", "2026-01-02T00:00:00Z"),
            entry("b", "Update", "2026-01-01T00:00:00Z"),
            entry("a", "Update", "2026-01-03T00:00:00Z"),
        ]);
        let managed = Managed::read(Some(&entries)).expect("reads");
        assert_eq!(managed.write(), Some(entries.clone()));
        let mut later = entries.clone();
        later[0]["time"] = json!("2027-01-01T00:00:00Z");
        assert!(same_but_for_times(&entries, &later));
        later[0]["manager"] = json!("y");
        assert!(!same_but_for_times(&entries, &later));
    }

    #[test]
    fn entries_that_make_no_sense_are_refused_in_kubernetes_words() {
        for (entry, why) in [
            (json!({}), "operation must be `Apply` or `Update`"),
            (
                json!({"operation": "Apply"}),
                "apiVersion must not be empty",
            ),
            (
                json!({"operation": "Apply", "apiVersion": "v1"}),
                "missing fieldsType in managed fields entry 0",
            ),
            (
                json!({"operation": "Apply", "apiVersion": "v1", "fieldsType": "X"}),
                "invalid fieldsType \"X\" in managed fields entry 0",
            ),
        ] {
            assert_eq!(Managed::read(Some(&json!([entry]))), Err(why.to_owned()));
        }
        assert!(is_reset(Some(&json!([]))));
        assert!(is_reset(Some(&json!([{}]))));
        assert!(!is_reset(None));
    }
}
