//! The schema of a version of a custom resource.
//! Source: API reference, `JSONSchemaProps` (apiextensions.k8s.io/v1).

use std::collections::BTreeMap;

use regex::Regex;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// How deep schemas may be nested; deeper ones are refused, as their walk would be.
pub const MAX_DEPTH: usize = 100;

/// A schema. What is missing in the definition is `None`, empty or `false`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Schema {
    /// `object`, `array`, `string`, `integer`, `number`, `boolean`; empty for any.
    #[serde(rename = "type")]
    pub kind: String,
    /// What texts have to look like, `date-time` for example.
    pub format: String,
    /// For people.
    pub description: String,
    /// For people.
    pub title: String,
    /// Whether `null` is a value.
    pub nullable: bool,
    /// What a missing value is.
    pub default: Option<Value>,
    /// For people.
    pub example: Option<Value>,
    /// Largest number.
    pub maximum: Option<f64>,
    /// Whether the largest number is not allowed itself.
    pub exclusive_maximum: bool,
    /// Smallest number.
    pub minimum: Option<f64>,
    /// Whether the smallest number is not allowed itself.
    pub exclusive_minimum: bool,
    /// Longest text, in characters.
    pub max_length: Option<i64>,
    /// Shortest text, in characters.
    pub min_length: Option<i64>,
    /// What texts have to match somewhere.
    #[serde(deserialize_with = "pattern")]
    pub pattern: Option<Pattern>,
    /// Longest list.
    pub max_items: Option<i64>,
    /// Shortest list.
    pub min_items: Option<i64>,
    /// Whether list elements must differ.
    pub unique_items: bool,
    /// What numbers have to be a multiple of.
    pub multiple_of: Option<f64>,
    /// Largest number of fields.
    pub max_properties: Option<i64>,
    /// Smallest number of fields.
    pub min_properties: Option<i64>,
    /// The only values.
    #[serde(rename = "enum")]
    pub values: Option<Vec<Value>>,
    /// Fields that must be there.
    pub required: Vec<String>,
    /// Fields.
    pub properties: BTreeMap<String, Schema>,
    /// All other fields.
    pub additional_properties: Option<Additional>,
    /// Elements of a list.
    pub items: Option<Items>,
    /// All of these must hold.
    pub all_of: Vec<Schema>,
    /// At least one of these must hold.
    pub any_of: Vec<Schema>,
    /// Exactly one of these must hold.
    pub one_of: Vec<Schema>,
    /// This must not hold.
    pub not: Option<Box<Schema>>,
    /// Whether fields that are not listed stay.
    #[serde(rename = "x-kubernetes-preserve-unknown-fields")]
    pub preserve_unknown_fields: Option<bool>,
    /// Whether the value is an object of some kind, with metadata.
    #[serde(rename = "x-kubernetes-embedded-resource")]
    pub embedded_resource: bool,
    /// Whether the value is a number or a text.
    #[serde(rename = "x-kubernetes-int-or-string")]
    pub int_or_string: bool,
    /// `atomic`, `set` or `map`.
    #[serde(rename = "x-kubernetes-list-type")]
    pub list_type: Option<String>,
    /// The keys of a list of type `map`.
    #[serde(rename = "x-kubernetes-list-map-keys")]
    pub list_map_keys: Vec<String>,
    /// `atomic` or `granular`.
    #[serde(rename = "x-kubernetes-map-type")]
    pub map_type: Option<String>,
    /// Rules in the Common Expression Language.
    #[serde(rename = "x-kubernetes-validations")]
    pub rules: Vec<Rule>,
    /// Not supported.
    pub id: String,
    /// Not supported.
    #[serde(rename = "$schema")]
    pub schema: String,
    /// Not supported.
    #[serde(rename = "$ref")]
    pub reference: Option<String>,
    /// Not supported.
    pub definitions: Map<String, Value>,
    /// Not supported.
    pub dependencies: Map<String, Value>,
    /// Not supported.
    pub pattern_properties: Map<String, Value>,
    /// Not supported.
    pub additional_items: Option<Value>,
    /// For people.
    pub external_docs: Option<Value>,
}

/// The schema of fields that are not listed.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Additional {
    /// Whether there may be any.
    Allowed(bool),
    /// What they are.
    Schema(Box<Schema>),
}

impl Additional {
    /// The schema, if there is one.
    pub fn schema(&self) -> Option<&Schema> {
        match self {
            Self::Allowed(_) => None,
            Self::Schema(schema) => Some(schema),
        }
    }
}

/// The schema of list elements.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Items {
    /// Of all elements.
    One(Box<Schema>),
    /// One schema for each element. Not supported.
    Each(Vec<Schema>),
}

/// A regular expression.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// As written.
    pub text: String,
    /// As compiled, or what is wrong with it.
    pub compiled: Result<Regex, String>,
}

/// A rule. Source: API reference, `ValidationRule`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    /// What must be true.
    pub rule: String,
    /// What to say if it is not.
    pub message: String,
    /// An expression for what to say.
    pub message_expression: String,
    /// Sort of the error.
    pub reason: Option<String>,
    /// Which field the error is about, relative to the schema of the rule.
    pub field_path: String,
    /// Whether the rule also runs when there is no old value.
    pub optional_old_self: Option<bool>,
}

fn pattern<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Pattern>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.filter(|t| !t.is_empty()).map(Pattern::new))
}

impl Pattern {
    /// Compiles. A pattern whose automaton would be huge does not compile.
    pub fn new(text: String) -> Self {
        let compiled = regex::RegexBuilder::new(&text)
            .size_limit(1 << 20)
            .build()
            .map_err(|e| e.to_string());
        Self { text, compiled }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    /// What is not a schema, or nested deeper than [`MAX_DEPTH`].
    pub fn read(schema: &Value) -> Result<Self, String> {
        if depth(schema) > MAX_DEPTH * 3 {
            return Err(format!("schemas nest at most {MAX_DEPTH} deep"));
        }
        Self::deserialize(schema).map_err(|e| e.to_string())
    }

    /// The schema of the elements.
    pub fn element(&self) -> Option<&Schema> {
        match &self.items {
            Some(Items::One(schema)) => Some(schema),
            _ => None,
        }
    }

    /// The schema of fields that are not listed.
    pub fn additional(&self) -> Option<&Schema> {
        self.additional_properties.as_ref()?.schema()
    }

    /// The schema of a field.
    pub fn field(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).or_else(|| self.additional())
    }

    /// Whether fields that are not listed stay.
    pub fn preserves(&self) -> bool {
        self.preserve_unknown_fields == Some(true)
    }

    /// Every schema in this one, itself included, those of logical junctors too.
    pub fn any(&self, test: &mut dyn FnMut(&Schema) -> bool) -> bool {
        if test(self) {
            return true;
        }
        let items: &[Schema] = match &self.items {
            Some(Items::One(one)) => std::slice::from_ref(one),
            Some(Items::Each(each)) => each,
            None => &[],
        };
        let parts = items
            .iter()
            .chain(&self.all_of)
            .chain(&self.any_of)
            .chain(&self.one_of)
            .chain(self.not.as_deref())
            .chain(self.properties.values())
            .chain(self.additional());
        for part in parts {
            if part.any(test) {
                return true;
            }
        }
        false
    }
}

/// How deep JSON is nested.
fn depth(value: &Value) -> usize {
    match value {
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
