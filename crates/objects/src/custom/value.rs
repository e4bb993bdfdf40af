//! Whether a value is what its schema says, in the words of Kubernetes.
//! Source: `k8s.io/kube-openapi/pkg/validation/validate` and `errors`;
//! `k8s.io/apiextensions-apiserver/pkg/apiserver/validation`; KEP-4008 (ratcheting).

use serde_json::{Number, Value};

use super::schema::{Additional, Items, Schema};
use super::{child, formats, lists};
use crate::field::{FieldError, FieldErrors, Reason};

/// What is wrong with `value`. `at` is the field it is, empty for a whole object. What is as it was in `old` is not
/// looked at again: a schema that became stricter does not get in the way of changes elsewhere.
pub fn validate(value: &Value, schema: &Schema, old: Option<&Value>, at: &str) -> FieldErrors {
    let found = check(value, schema, "", old);
    let problems = found.problems.into_iter();
    problems.map(|p| p.into_error(at)).collect()
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq)]
struct Problem {
    /// Relative to the value that is validated; `None` for those that Kubernetes tells without a field.
    field: Option<String>,
    reason: Reason,
    /// After `field: `.
    message: String,
}

impl Problem {
    fn into_error(self, at: &str) -> FieldError {
        let field = match self.field {
            Some(field) => match field.trim_start_matches('.') {
                "" if at.is_empty() => "<nil>".to_owned(),
                "" => at.to_owned(),
                field => child(at, field),
            },
            None if at.is_empty() => "<nil>".to_owned(),
            None => at.to_owned(),
        };
        FieldError {
            field,
            reason: self.reason,
            message: self.message,
        }
    }
}

/// What a check found, and how much of the schema fitted: of several schemas of which one must hold, the errors of the
/// one that fitted best are told.
#[derive(Debug, Default)]
struct Found {
    problems: Vec<Problem>,
    matched: usize,
}

impl Found {
    fn add(&mut self, problem: Problem) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn merge(&mut self, other: Found) {
        for problem in other.problems {
            self.add(problem);
        }
        self.matched += other.matched;
    }

    fn is_valid(&self) -> bool {
        self.problems.is_empty()
    }

    fn wrong(&mut self, path: &str, value: &Value, why: &str) {
        let message = FieldError::invalid("", value, why).message;
        self.add(Problem {
            field: Some(path.to_owned()),
            reason: Reason::Invalid,
            message,
        });
    }

    fn wrong_type(&mut self, path: &str, value: &str, why: &str) {
        let message = FieldError::invalid("", value, why).message;
        self.add(Problem {
            field: Some(path.to_owned()),
            reason: Reason::TypeInvalid,
            message,
        });
    }

    /// An error that Kubernetes tells without a field.
    fn composite(&mut self, why: &str) {
        let message = FieldError::invalid("", "", why).message;
        self.add(Problem {
            field: None,
            reason: Reason::Invalid,
            message,
        });
    }
}

/// Checks a field or an element: what did not change is not wrong.
fn check_place(value: &Value, schema: &Schema, path: &str, old: Option<&Value>) -> Found {
    let found = check(value, schema, path, old);
    if !found.is_valid() && old == Some(value) {
        return Found {
            problems: Vec::new(),
            matched: found.matched,
        };
    }
    found
}

fn check(value: &Value, schema: &Schema, path: &str, old: Option<&Value>) -> Found {
    let mut found = Found::default();
    if value.is_null() {
        check_type(value, schema, path, &mut found);
        check_enum(value, schema, path, &mut found);
        return found;
    }
    if !types(schema).is_empty() || format_of(schema).is_some() {
        check_type(value, schema, path, &mut found);
        found.matched += 1;
    }
    junctors(value, schema, path, old, &mut found);
    found.matched += 1;
    match value {
        Value::String(text) => {
            check_text(text, schema, path, &mut found);
            found.matched += 1;
            if let Some(format) = format_of(schema) {
                if formats::check(format, text) == Some(false) {
                    let why = format!("{path} in body must be of type {format}: {text:?}");
                    found.wrong_type(path, text, &why);
                }
                found.matched += 1;
            }
        }
        Value::Number(number) => {
            check_number(number, schema, path, &mut found);
            found.matched += 2;
        }
        Value::Array(list) => {
            check_list(list, schema, path, old, &mut found);
            found.matched += 2;
        }
        _ => {}
    }
    check_enum(value, schema, path, &mut found);
    found.matched += 1;
    if value.is_object() {
        check_object(value, schema, path, old, &mut found);
        found.matched += 1;
    }
    found.matched += 1;
    found
}

/// The types that the schema allows; none means any.
fn types(schema: &Schema) -> Vec<&str> {
    if schema.int_or_string {
        vec!["integer", "string"]
    } else if schema.kind.is_empty() {
        Vec::new()
    } else {
        vec![&schema.kind]
    }
}

/// The format, if it means anything.
fn format_of(schema: &Schema) -> Option<&str> {
    let format = schema.format.as_str();
    (!format.is_empty() && formats::check(format, "").is_some()).then_some(format)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_whole(number: &Number) -> bool {
    number.as_f64().is_some_and(|f| f.fract() == 0.0)
}

fn check_type(value: &Value, schema: &Schema, path: &str, found: &mut Found) {
    let allowed = types(schema);
    let is = type_of(value);
    if value.is_null() {
        if !allowed.is_empty() && !schema.nullable {
            let wanted = allowed.join(",");
            found.wrong_type(
                path,
                is,
                &format!("{path} in body must be of type {wanted}: \"null\""),
            );
        } else {
            found.matched += 1;
        }
        return;
    }
    let numeric = allowed.contains(&"number") || allowed.contains(&"integer");
    let fits = allowed.contains(&is)
        || (is == "number"
            && allowed.contains(&"integer")
            && value.as_number().is_some_and(is_whole))
        || (is == "integer" && allowed.contains(&"number"));
    let texty = value.is_string() || value.is_array();
    if let Some(format) = format_of(schema) {
        if !texty && !fits {
            let is = match value {
                Value::Number(n) if n.is_f64() => "float64",
                Value::Number(_) => "int64",
                _ => "",
            };
            let why = format!("{path} in body must be of type {format}: {is:?}");
            return found.wrong_type(path, is, &why);
        }
        if texty && !numeric {
            found.matched += 1;
            return;
        }
    }
    if fits || allowed.is_empty() {
        found.matched += 1;
    } else {
        let wanted = allowed.join(",");
        let why = format!("{path} in body must be of type {wanted}: {is:?}");
        found.wrong_type(path, is, &why);
    }
}

fn check_enum(value: &Value, schema: &Schema, path: &str, found: &mut Found) {
    let Some(values) = schema.values.as_ref().filter(|v| !v.is_empty()) else {
        return;
    };
    if values.iter().any(|one| same(one, value)) {
        return;
    }
    let supported: Vec<String> = values
        .iter()
        .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
        .collect();
    let supported: Vec<&str> = supported.iter().map(String::as_str).collect();
    found.add(Problem {
        field: Some(path.to_owned()),
        reason: Reason::NotSupported,
        message: FieldError::not_supported("", value, &supported).message,
    });
}

/// Equal; numbers by their value.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn check_text(text: &str, schema: &Schema, path: &str, found: &mut Found) {
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let value = Value::from(text);
    if let Some(max) = schema.max_length.filter(|max| length > *max) {
        found.add(Problem {
            field: Some(path.to_owned()),
            reason: Reason::TooLong,
            message: FieldError::too_long("", usize::try_from(max).unwrap_or(0)).message,
        });
    } else if let Some(min) = schema.min_length.filter(|min| length < *min) {
        let why = format!("{path} in body should be at least {min} chars long");
        found.wrong(path, &value, &why);
    } else if let Some(pattern) = &schema.pattern {
        let why = match &pattern.compiled {
            Ok(regex) if regex.is_match(text) => return,
            Ok(_) => format!("{path} in body should match '{}'", pattern.text),
            Err(e) => format!(
                "{path} in body should match '{}, but pattern is invalid: {e}'",
                pattern.text
            ),
        };
        found.wrong(path, &value, &why);
    }
}

/// A number as Go's `%v` prints it.
fn shown(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e21 {
        format!("{number:.0}")
    } else {
        number.to_string()
    }
}

fn check_number(number: &Number, schema: &Schema, path: &str, found: &mut Found) {
    let Some(value) = number.as_f64() else {
        return;
    };
    let written = Value::Number(number.clone());
    if let Some(factor) = schema.multiple_of {
        if factor <= 0.0 {
            let why = format!(
                "factor MultipleOf declared for {path} must be positive: {}",
                shown(factor)
            );
            found.wrong(path, &shown_number(factor), &why);
        } else {
            let quotient = if factor < 1.0 {
                1.0 / factor * value
            } else {
                value / factor
            };
            if (quotient - quotient.round()).abs() > 1e-9 * quotient.abs().max(1.0) {
                let why = format!("{path} in body should be a multiple of {}", shown(factor));
                found.wrong(path, &written, &why);
            }
        }
    }
    if let Some(max) = schema.maximum {
        let exclusive = schema.exclusive_maximum;
        if value > max || (exclusive && value >= max) {
            let than = if exclusive {
                "less than"
            } else {
                "less than or equal to"
            };
            let why = format!("{path} in body should be {than} {}", shown(max));
            found.wrong(path, &written, &why);
        }
    }
    if let Some(min) = schema.minimum {
        let exclusive = schema.exclusive_minimum;
        if value < min || (exclusive && value <= min) {
            let than = if exclusive {
                "greater than"
            } else {
                "greater than or equal to"
            };
            let why = format!("{path} in body should be {than} {}", shown(min));
            found.wrong(path, &written, &why);
        }
    }
}

fn shown_number(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

fn check_list(list: &[Value], schema: &Schema, path: &str, old: Option<&Value>, found: &mut Found) {
    if let Some(Items::One(element)) = &schema.items {
        for (i, value) in list.iter().enumerate() {
            let old = old.and_then(|old| counterpart(value, schema, old));
            found.merge(check_place(value, element, &format!("{path}[{i}]"), old));
        }
    }
    let size = i64::try_from(list.len()).unwrap_or(i64::MAX);
    if let Some(min) = schema.min_items.filter(|min| size < *min) {
        let why = format!("{path} in body should have at least {min} items");
        found.wrong(path, &Value::from(size), &why);
    }
    if let Some(max) = schema.max_items.filter(|max| size > *max) {
        found.add(too_many(path, size, max));
    }
    if schema.unique_items
        && list
            .iter()
            .enumerate()
            .any(|(i, value)| list[..i].contains(value))
    {
        let why = format!("{path} in body shouldn't contain duplicates");
        found.wrong(path, &Value::from(""), &why);
    }
}

/// The element of the old list that has the same key.
pub(super) fn counterpart<'a>(value: &Value, schema: &Schema, old: &'a Value) -> Option<&'a Value> {
    if schema.list_type.as_deref() != Some("map") || schema.list_map_keys.is_empty() {
        return None;
    }
    let key = lists::key_of(value, schema);
    old.as_array()?
        .iter()
        .find(|old| lists::key_of(old, schema) == key)
}

fn too_many(path: &str, size: i64, max: i64) -> Problem {
    let (size, max) = (
        usize::try_from(size).unwrap_or(0),
        usize::try_from(max).unwrap_or(0),
    );
    Problem {
        field: Some(path.to_owned()),
        reason: Reason::TooMany,
        message: FieldError::too_many("", size, max).message,
    }
}

fn check_object(
    value: &Value,
    schema: &Schema,
    path: &str,
    old: Option<&Value>,
    found: &mut Found,
) {
    let Some(map) = value.as_object() else {
        return;
    };
    let size = i64::try_from(map.len()).unwrap_or(i64::MAX);
    if let Some(min) = schema.min_properties.filter(|min| size < *min) {
        let why = format!("{path} in body should have at least {min} properties");
        found.wrong(path, &Value::from(size), &why);
    }
    if let Some(max) = schema.max_properties.filter(|max| size > *max) {
        found.add(too_many(path, size, max));
    }
    // An atomic map changes as a whole.
    let old = old.filter(|_| schema.map_type.as_deref() != Some("atomic"));
    let before = |key: &str| old.and_then(|old| old.get(key));
    for (key, value) in map {
        if schema.properties.contains_key(key) {
            continue;
        }
        match &schema.additional_properties {
            Some(Additional::Schema(additional)) => {
                let at = format!("{path}.{key}");
                found.merge(check_place(value, additional, &at, before(key)));
            }
            Some(Additional::Allowed(false)) => {
                let why = format!("{path}.{key} in body is a forbidden property");
                found.wrong(path, &Value::from(key.as_str()), &why);
            }
            _ => {}
        }
    }
    for (key, field) in &schema.properties {
        if let Some(value) = map.get(key) {
            found.merge(check_place(value, field, &child(path, key), before(key)));
        }
    }
    for key in &schema.required {
        if !map.contains_key(key) {
            found.add(Problem {
                field: Some(format!("{path}.{key}")),
                reason: Reason::Required,
                message: FieldError::required("", "").message,
            });
        }
    }
}

/// `anyOf`, `oneOf`, `allOf` and `not`.
fn junctors(value: &Value, schema: &Schema, path: &str, old: Option<&Value>, found: &mut Found) {
    let mut best: Option<Found> = None;
    let better = |best: &mut Option<Found>, one: Found| {
        if best.as_ref().is_none_or(|b| one.matched > b.matched) {
            *best = Some(one);
        }
    };
    if !schema.any_of.is_empty() {
        let mut good = None;
        for one in &schema.any_of {
            let result = check(value, one, path, old);
            if result.is_valid() {
                good = Some(result);
                break;
            }
            better(&mut best, result);
        }
        if good.is_none() {
            found.composite(&format!(
                "{path:?} must validate at least one schema (anyOf)"
            ));
        }
        if let Some(result) = good.or(best.take()) {
            found.merge(result);
        }
    }
    best = None;
    if !schema.one_of.is_empty() {
        let mut good = Vec::new();
        for one in &schema.one_of {
            let result = check(value, one, path, old);
            if result.is_valid() {
                best = None;
                good.push(result);
            } else if good.is_empty() {
                better(&mut best, result);
            }
        }
        let count = good.len();
        match (count, good.into_iter().next()) {
            (1, Some(result)) => found.merge(result),
            _ => {
                let how = if count == 0 {
                    "Found none valid".to_owned()
                } else {
                    format!("Found {count} valid alternatives")
                };
                found.composite(&format!(
                    "{path:?} must validate one and only one schema (oneOf). {how}"
                ));
                if let Some(result) = best {
                    found.merge(result);
                }
            }
        }
    }
    let mut valid = 0;
    for one in &schema.all_of {
        let result = check(value, one, path, old);
        valid += usize::from(result.is_valid());
        found.merge(result);
    }
    if valid != schema.all_of.len() {
        let how = if valid == 0 { ". None validated" } else { "" };
        found.composite(&format!(
            "{path:?} must validate all the schemas (allOf){how}"
        ));
    }
    if let Some(not) = &schema.not
        && check(value, not, path, None).is_valid()
    {
        found.composite(&format!("{path:?} must not validate the schema (not)"));
    }
    found.matched += 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn errors(schema: Value, value: Value) -> Vec<String> {
        let schema = json!({"type": "object", "properties": {"spec": schema}});
        let schema = Schema::read(&schema).unwrap();
        validate(&json!({"spec": value}), &schema, None, "")
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn what_is_wrong_is_told_in_the_words_of_kubernetes() {
        for (schema, value, expected) in [
            (
                json!({"type": "integer"}),
                json!("x"),
                r#"spec: Invalid value: "string": spec in body must be of type integer: "string""#,
            ),
            (
                json!({"type": "integer", "format": "int32"}),
                json!(1.5),
                r#"spec: Invalid value: "number": spec in body must be of type integer: "number""#,
            ),
            (
                json!({"type": "string"}),
                json!(null),
                r#"spec: Invalid value: "null": spec in body must be of type string: "null""#,
            ),
            (
                json!({"x-kubernetes-int-or-string": true}),
                json!(true),
                r#"spec: Invalid value: "boolean": spec in body must be of type integer,string: "boolean""#,
            ),
            (
                json!({"type": "string", "format": "date-time"}),
                json!("x"),
                r#"spec: Invalid value: "x": spec in body must be of type date-time: "x""#,
            ),
            (
                json!({"type": "string", "format": "date-time"}),
                json!(1),
                r#"spec: Invalid value: "int64": spec in body must be of type date-time: "int64""#,
            ),
            (
                json!({"type": "string", "enum": ["b", "a"]}),
                json!("c"),
                r#"spec: Unsupported value: "c": supported values: "b", "a""#,
            ),
            (
                json!({"type": "integer", "enum": [1, 2]}),
                json!(3),
                r#"spec: Unsupported value: 3: supported values: "1", "2""#,
            ),
            (
                json!({"type": "string", "maxLength": 2}),
                json!("abc"),
                "spec: Too long: may not be more than 2 bytes",
            ),
            (
                json!({"type": "string", "minLength": 2}),
                json!("a"),
                r#"spec: Invalid value: "a": spec in body should be at least 2 chars long"#,
            ),
            (
                json!({"type": "string", "pattern": "^a+$"}),
                json!("b"),
                r#"spec: Invalid value: "b": spec in body should match '^a+$'"#,
            ),
            (
                json!({"type": "integer", "maximum": 10}),
                json!(11),
                "spec: Invalid value: 11: spec in body should be less than or equal to 10",
            ),
            (
                json!({"type": "integer", "maximum": 10, "exclusiveMaximum": true}),
                json!(10),
                "spec: Invalid value: 10: spec in body should be less than 10",
            ),
            (
                json!({"type": "number", "minimum": 0.5}),
                json!(0.25),
                "spec: Invalid value: 0.25: spec in body should be greater than or equal to 0.5",
            ),
            (
                json!({"type": "integer", "multipleOf": 5}),
                json!(7),
                "spec: Invalid value: 7: spec in body should be a multiple of 5",
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
                json!([]),
                "spec: Invalid value: 0: spec in body should have at least 1 items",
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
                json!(["a", "b"]),
                "spec: Too many: 2: must have at most 1 item",
            ),
            (
                json!({"type": "array", "items": {"type": "string"}}),
                json!(["a", 1]),
                r#"spec[1]: Invalid value: "integer": spec[1] in body must be of type string: "integer""#,
            ),
            (
                json!({"type": "object", "required": ["a"]}),
                json!({}),
                "spec.a: Required value",
            ),
            (
                json!({"type": "object", "maxProperties": 1, "additionalProperties": {"type": "string"}}),
                json!({"a": "b", "c": "d"}),
                "spec: Too many: 2: must have at most 1 item",
            ),
            (
                json!({"type": "object", "minProperties": 1}),
                json!({}),
                "spec: Invalid value: 0: spec in body should have at least 1 properties",
            ),
            (
                json!({"type": "object", "additionalProperties": {"type": "string"}}),
                json!({"k": 1}),
                r#"spec.k: Invalid value: "integer": spec.k in body must be of type string: "integer""#,
            ),
        ] {
            assert_eq!(errors(schema.clone(), value), [expected], "{schema}");
        }
    }

    #[test]
    fn junctors_tell_what_must_hold_and_the_nearest_miss() {
        let object = |rest: Value| {
            let mut schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}});
            for (key, value) in rest.as_object().unwrap() {
                schema[key] = value.clone();
            }
            schema
        };
        let either = json!([{"required": ["a"]}, {"required": ["b"]}]);
        assert_eq!(
            errors(object(json!({"oneOf": either})), json!({})),
            [
                r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found none valid"#,
                "spec.a: Required value",
            ]
        );
        assert_eq!(
            errors(object(json!({"oneOf": either})), json!({"a": "", "b": ""})),
            [
                r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#
            ]
        );
        assert_eq!(
            errors(object(json!({"anyOf": either})), json!({})),
            [
                r#"<nil>: Invalid value: "": "spec" must validate at least one schema (anyOf)"#,
                "spec.a: Required value",
            ]
        );
        assert_eq!(
            errors(object(json!({"allOf": either})), json!({"a": ""})),
            [
                "spec.b: Required value",
                r#"<nil>: Invalid value: "": "spec" must validate all the schemas (allOf)"#,
            ]
        );
        assert_eq!(
            errors(
                object(json!({"not": {"required": ["a"]}})),
                json!({"a": ""})
            ),
            [r#"<nil>: Invalid value: "": "spec" must not validate the schema (not)"#]
        );
        assert_eq!(
            errors(object(json!({"oneOf": either})), json!({"b": ""})),
            [""; 0]
        );
    }

    #[test]
    fn what_fits_is_left_alone() {
        for (schema, value) in [
            (json!({"type": "string", "nullable": true}), json!(null)),
            (json!({"type": "number"}), json!(1)),
            (json!({"type": "integer"}), json!(1.0)),
            (json!({"x-kubernetes-int-or-string": true}), json!("50%")),
            (
                json!({"x-kubernetes-preserve-unknown-fields": true}),
                json!({"a": [1]}),
            ),
            (
                json!({"type": "string", "format": "unheard-of"}),
                json!("x"),
            ),
            (json!({"type": "integer", "format": "int32"}), json!(1)),
        ] {
            assert_eq!(errors(schema.clone(), value), [""; 0], "{schema}");
        }
    }

    #[test]
    fn what_did_not_change_is_not_wrong_now() {
        let schema = Schema::read(&json!({"type": "object", "properties": {
            "a": {"type": "string", "maxLength": 1}, "b": {"type": "string"},
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "v": {"type": "string", "maxLength": 1}}}},
        }}))
        .unwrap();
        let old = json!({"a": "long", "list": [{"name": "x", "v": "long"}]});
        let new = json!({"a": "long", "b": "new", "list": [{"name": "y", "v": "s"}, {"name": "x", "v": "long"}]});
        assert_eq!(validate(&new, &schema, Some(&old), ""), []);
        assert_eq!(validate(&new, &schema, None, "").len(), 2);
        let new = json!({"a": "longer"});
        assert_eq!(validate(&new, &schema, Some(&old), "").len(), 1);
    }

    #[test]
    fn a_status_is_told_of_under_its_own_name() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
        let schema = Schema::read(&schema).unwrap();
        let errors = validate(&json!({"n": "x"}), &schema, None, "status");
        assert_eq!(
            errors[0].to_string(),
            r#"status.n: Invalid value: "string": n in body must be of type integer: "string""#
        );
    }
}
