//! Field selectors (`spec.nodeName=node-1,status.phase!=Failed`): equality only, over the few fields that a kind offers.
//!
//! Source: `k8s.io/apimachinery/pkg/fields`.

use serde_json::Value;

use crate::kind::Kind;

/// Which fields are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector(Vec<Term>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: String,
    value: String,
    equal: bool,
}

/// A field selector that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldSelectorError {
    /// The text cannot be read.
    #[error("invalid selector: '{selector}'; can't understand '{part}'")]
    Syntax {
        /// The whole text.
        selector: String,
        /// The part that is wrong.
        part: String,
    },
    /// A backslash before something that needs none.
    #[error("invalid field selector: invalid escape sequence: \\{0}")]
    Escape(String),
    /// The kind does not offer the field.
    #[error("field label not supported: {0}")]
    Unsupported(String),
}

impl FieldSelector {
    /// Selects every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// The selector of a query (`fieldSelector=`); the empty text selects everything.
    ///
    /// # Errors
    /// A text that is no selector.
    pub fn parse(text: &str) -> Result<Self, FieldSelectorError> {
        let mut terms = Vec::new();
        for part in split(text) {
            if part.is_empty() {
                continue;
            }
            let (field, value, equal) = term(part).ok_or_else(|| FieldSelectorError::Syntax {
                selector: text.to_owned(),
                part: part.to_owned(),
            })?;
            terms.push(Term {
                field: field.to_owned(),
                value: unescape(value)?,
                equal,
            });
        }
        Ok(Self(terms))
    }

    /// Whether it selects every object.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the kind offers all fields that are asked for.
    ///
    /// # Errors
    /// The first field that it does not offer.
    pub fn check(&self, kind: &dyn Kind) -> Result<(), FieldSelectorError> {
        let offered = kind.fields(&Value::Object(serde_json::Map::new()));
        for term in &self.0 {
            let known = metadata_field(&term.field).is_some()
                || offered.iter().any(|(label, _)| *label == term.field);
            if !known {
                return Err(FieldSelectorError::Unsupported(term.field.clone()));
            }
        }
        Ok(())
    }

    /// The name that an object must have, if the selector asks for exactly one: a list can then be a single read.
    pub fn wanted_name(&self) -> Option<&str> {
        self.0
            .iter()
            .find(|t| t.equal && t.field == "metadata.name")
            .map(|t| t.value.as_str())
    }

    /// Whether the object is selected. A field that the kind does not offer selects nothing.
    pub fn matches(&self, kind: &dyn Kind, object: &Value) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let mut fields = None;
        self.0.iter().all(|term| {
            let value = match metadata_field(&term.field) {
                Some(pointer) => Some(text(object, pointer)),
                None => fields
                    .get_or_insert_with(|| kind.fields(object))
                    .iter()
                    .find(|(label, _)| *label == term.field)
                    .map(|(_, value)| value.clone()),
            };
            value.is_some_and(|value| (value == term.value) == term.equal)
        })
    }
}

fn metadata_field(field: &str) -> Option<&'static str> {
    match field {
        "metadata.name" => Some("/metadata/name"),
        "metadata.namespace" => Some("/metadata/namespace"),
        _ => None,
    }
}

fn text(object: &Value, pointer: &str) -> String {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// Splits at commas that no backslash precedes.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn term(part: &str) -> Option<(&str, &str, bool)> {
    let at = part.find(['=', '!'])?;
    let (field, rest) = part.split_at(at);
    if let Some(value) = rest.strip_prefix("!=") {
        Some((field, value, false))
    } else if let Some(value) = rest.strip_prefix("==") {
        Some((field, value, true))
    } else {
        Some((field, rest.strip_prefix('=')?, true))
    }
}

fn unescape(value: &str) -> Result<String, FieldSelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    return Err(FieldSelectorError::Escape(
                        other.map(String::from).unwrap_or_default(),
                    ));
                }
            },
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn pods_are_selected_by_their_fields() {
        let pods = kinds::find("", "v1", "pods").expect("pods");
        let pod = json!({"metadata": {"name": "a", "namespace": "ns"},
            "spec": {"nodeName": "n1", "containers": []}, "status": {"phase": "Running"}});
        for (query, selected) in [
            ("", true),
            ("metadata.name=a", true),
            ("metadata.namespace!=ns", false),
            ("spec.nodeName==n1,status.phase=Running", true),
            ("spec.nodeName!=", true),
            ("status.phase!=Running", false),
            ("spec.restartPolicy=", true),
        ] {
            let selector = FieldSelector::parse(query).expect(query);
            selector.check(pods.as_ref()).expect(query);
            assert_eq!(selector.matches(pods.as_ref(), &pod), selected, "{query}");
        }
    }

    #[test]
    fn a_field_that_is_not_offered_is_refused_and_selects_nothing() {
        let services = kinds::find("", "v1", "services").expect("services");
        let selector = FieldSelector::parse("spec.flavour!=b").expect("readable");
        let error = selector.check(services.as_ref()).expect_err("unknown");
        assert_eq!(error.to_string(), "field label not supported: spec.flavour");
        assert!(!selector.matches(services.as_ref(), &json!({})));
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for query in ["a", "a!b", "a=b\\x", "a=b,c"] {
            FieldSelector::parse(query).expect_err(query);
        }
        assert_eq!(
            FieldSelector::parse("a=x\\,y\\=z").expect("escapes").0[0].value,
            "x,y=z"
        );
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in ".{0,40}") {
            let _ = FieldSelector::parse(&text);
        }
    }
}
