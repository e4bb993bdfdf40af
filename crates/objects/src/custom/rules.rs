//! `x-kubernetes-validations`: rules in the Common Expression Language.
//!
//! Expressions are read and run by the crate `cel`, with the standard functions, those for texts, lists, numbers and
//! base64, and some of Kubernetes' own. A rule that uses a function which is not there is stored but not run, and
//! whoever writes the definition is warned of it ([`not_run`]).
//!
//! What a rule costs is not counted step by step but estimated before it runs: the length of the longest list or map
//! to the power of how deep its loops are nested.
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel`; "Validation rules" in Kubernetes' documentation.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::common::types::{CelBool, CelString};
use cel::objects::{Key, OptionalValue, Value as Cel};
use cel::{Context, Env, Program};
use serde_json::Value;

use super::schema::{Rule, Schema};
use super::structural::follow;
use super::value::counterpart;
use super::{child, formats};
use crate::field::{FieldError, FieldErrors, Reason};

/// So many steps a rule may take.
const BUDGET: f64 = 1e7;
/// A longer rule is not read.
const LONGEST: usize = 16 * 1024;
/// A longer message is not shown. Source: `celconfig`.
const LONGEST_MESSAGE: usize = 5 * 1024;

/// Functions of Kubernetes that are not there.
const MISSING: &[&str] = &[
    "url",
    "getScheme",
    "getHost",
    "getHostname",
    "getPort",
    "getEscapedPath",
    "getQuery",
    "quantity",
    "isGreaterThan",
    "isLessThan",
    "compareTo",
    "asInteger",
    "asApproximateFloat",
    "isInteger",
    "sign",
    "add",
    "sub",
    "ip",
    "cidr",
    "family",
    "isUnspecified",
    "isLoopback",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isGlobalUnicast",
    "isCanonical",
    "ip.isCanonical",
    "containsIP",
    "containsCIDR",
    "masked",
    "prefixLength",
    "isSorted",
    "sum",
    "min",
    "max",
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
    "semver",
    "isSemver",
    "major",
    "minor",
    "patch",
    "format.named",
    "validate",
    "findAll",
];

/// Names that mean something in expressions, so that fields of these names are written otherwise.
const RESERVED: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

// The macros name the types without their lifetimes.
#[allow(elided_lifetimes_in_paths)]
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    let added = env
        .add_extension(cel::extensions::strings)
        .and_then(|()| env.add_extension(cel::extensions::lists))
        .and_then(|()| env.add_extension(cel::extensions::math))
        .and_then(|()| env.add_extension(cel::extensions::encoders))
        .and_then(|()| cel::add_overload!(env, fn is_url: (CelString) -> CelBool, name = "isURL"))
        .and_then(|()| cel::add_overload!(env, fn is_ip: (CelString) -> CelBool, name = "isIP"))
        .and_then(|()| cel::add_overload!(env, fn is_cidr: (CelString) -> CelBool, name = "isCIDR"))
        .and_then(|()| {
            cel::add_overload!(env, fn is_quantity: (CelString) -> CelBool, name = "isQuantity")
        })
        .and_then(|()| {
            cel::add_member_overload!(env, fn find: (CelString, CelString) -> CelString)
        });
    debug_assert!(added.is_ok(), "{added:?}");
    Arc::new(env)
});

fn is_url(text: &CelString<'_>) -> CelBool {
    CelBool::from(formats::check("uri", text.inner()) == Some(true))
}

fn is_ip(text: &CelString<'_>) -> CelBool {
    CelBool::from(text.inner().parse::<std::net::IpAddr>().is_ok())
}

fn is_cidr(text: &CelString<'_>) -> CelBool {
    CelBool::from(formats::check("cidr", text.inner()) == Some(true))
}

fn is_quantity(text: &CelString<'_>) -> CelBool {
    CelBool::from(crate::quantity::parse(text.inner()).is_some())
}

fn find<'a>(text: &CelString<'a>, pattern: &CelString<'a>) -> CelString<'static> {
    let pattern = super::schema::Pattern::new(pattern.inner().to_owned());
    let found = pattern
        .compiled
        .ok()
        .and_then(|regex| Some(regex.find(text.inner())?.as_str().to_owned()));
    CelString::from(found.unwrap_or_default())
}

/// The rules of a schema, ready to run.
#[derive(Default)]
pub struct Rules {
    programs: HashMap<String, Compiled>,
}

/// A rule, or what is wrong with it.
enum Compiled {
    Runs {
        program: Program,
        /// How deep loops are nested.
        depth: u32,
        uses_old: bool,
    },
    /// It uses functions that are not there.
    Skipped,
    Broken(String),
}

/// Reads an expression.
///
/// # Errors
/// What is wrong with it.
pub fn check(text: &str) -> Result<(), String> {
    match compile(text) {
        Compiled::Broken(e) => Err(e),
        _ => Ok(()),
    }
}

/// The function for whose sake the expression is not run, if there is one.
pub fn not_run(text: &str) -> Option<String> {
    let program = ENVIRONMENT.compile(text).ok()?;
    missing(&program)
}

fn missing(program: &Program) -> Option<String> {
    let references = program.references();
    let functions = references.functions();
    let found = functions.iter().find(|name| MISSING.contains(name));
    found.map(|name| (*name).to_owned())
}

fn compile(text: &str) -> Compiled {
    if text.len() > LONGEST {
        return Compiled::Broken(format!("rules have at most {LONGEST} bytes"));
    }
    match ENVIRONMENT.compile(text) {
        Ok(program) if missing(&program).is_some() => Compiled::Skipped,
        Ok(program) => Compiled::Runs {
            depth: nesting(text),
            uses_old: program.references().has_variable("oldSelf"),
            program,
        },
        Err(e) => Compiled::Broken(e.to_string()),
    }
}

/// How deep calls that loop are nested in an expression.
fn nesting(text: &str) -> u32 {
    const LOOPS: [&str; 7] = [
        ".all(",
        ".exists(",
        ".exists_one(",
        ".existsOne(",
        ".map(",
        ".filter(",
        ".sortBy(",
    ];
    let (mut open, mut depth, mut deepest) = (Vec::new(), 0_u32, 0_u32);
    let mut quote = None;
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => {
                let is_loop = LOOPS.iter().any(|name| text[..=i].ends_with(name));
                open.push(is_loop);
                depth += u32::from(is_loop);
                deepest = deepest.max(depth);
            }
            (None, ')') => depth -= u32::from(open.pop().unwrap_or(false)),
            _ => {}
        }
    }
    deepest
}

impl Rules {
    /// The rules in a schema; `None` if it has none.
    pub fn of(schema: &Schema) -> Option<Self> {
        let mut rules = Self::default();
        schema.any(&mut |schema| {
            for rule in &schema.rules {
                for text in [&rule.rule, &rule.message_expression] {
                    if !text.is_empty() && !rules.programs.contains_key(text) {
                        rules.programs.insert(text.clone(), compile(text));
                    }
                }
            }
            false
        });
        (!rules.programs.is_empty()).then_some(rules)
    }

    /// What breaks a rule.
    pub fn validate(&self, value: &Value, schema: &Schema, old: Option<&Value>) -> FieldErrors {
        let mut errors = FieldErrors::new();
        self.walk(value, schema, old, "", &mut errors);
        errors
    }

    fn walk(
        &self,
        value: &Value,
        schema: &Schema,
        old: Option<&Value>,
        path: &str,
        errors: &mut FieldErrors,
    ) {
        if value.is_null() {
            return;
        }
        self.here(value, schema, old.filter(|o| !o.is_null()), path, errors);
        match value {
            Value::Object(map) => {
                let old = old.filter(|_| schema.map_type.as_deref() != Some("atomic"));
                for (key, value) in map {
                    let old = old.and_then(|old| old.get(key));
                    if let Some(field) = schema.properties.get(key) {
                        self.walk(value, field, old, &child(path, key), errors);
                    } else if let Some(additional) = schema.additional() {
                        let at = format!("{path}[{key}]");
                        self.walk(value, additional, old, &at, errors);
                    }
                }
            }
            Value::Array(list) => {
                if let Some(element) = schema.element() {
                    for (i, value) in list.iter().enumerate() {
                        let old = old.and_then(|old| counterpart(value, schema, old));
                        let at = format!("{path}[{i}]");
                        self.walk(value, element, old, &at, errors);
                    }
                }
            }
            _ => {}
        }
    }

    fn here(
        &self,
        value: &Value,
        schema: &Schema,
        old: Option<&Value>,
        path: &str,
        errors: &mut FieldErrors,
    ) {
        if schema.rules.is_empty() {
            return;
        }
        let this = to_cel(value, Some(schema));
        let longest = longest(value);
        let at = if path.is_empty() { "<nil>" } else { path };
        for rule in &schema.rules {
            let (program, depth, uses_old) = match self.programs.get(&rule.rule) {
                Some(Compiled::Runs {
                    program,
                    depth,
                    uses_old,
                }) => (program, *depth, *uses_old),
                Some(Compiled::Broken(e)) => {
                    let why = format!("rule compile error: {e}");
                    errors.push(FieldError::invalid(at, &schema.kind, &why));
                    continue;
                }
                Some(Compiled::Skipped) | None => continue,
            };
            let optional = rule.optional_old_self == Some(true);
            if uses_old && old.is_none() && !optional {
                continue;
            }
            // What did not change is not wrong now.
            if !uses_old && old == Some(value) {
                continue;
            }
            if (longest as f64).powi(depth.try_into().unwrap_or(i32::MAX)) > BUDGET {
                let why = "validation failed due to running out of cost budget, no further validation rules will be run";
                errors.push(FieldError::invalid(at, &schema.kind, why));
                return;
            }
            let context = context(&this, schema, old, optional);
            match program.execute(&context) {
                Ok(Cel::Bool(true)) => {}
                Ok(_) => errors.push(self.broken(rule, value, schema, at, &context)),
                Err(e) => {
                    let why = format!("{} evaluating rule: {}", lower(&e.to_string()), told(rule));
                    errors.push(FieldError::invalid(at, &schema.kind, &why));
                }
            }
        }
    }

    fn broken(
        &self,
        rule: &Rule,
        value: &Value,
        schema: &Schema,
        at: &str,
        context: &Context<'_, '_>,
    ) -> FieldError {
        let detail = self.message(rule, context);
        let mut field = at.to_owned();
        if !rule.field_path.is_empty()
            && let Ok((names, _)) = follow(schema, &rule.field_path)
        {
            let base = if at == "<nil>" { "" } else { at };
            field = names.iter().fold(base.to_owned(), |at, n| child(&at, n));
        }
        match rule.reason.as_deref() {
            Some("FieldValueForbidden") => FieldError::forbidden(field, &detail),
            Some("FieldValueRequired") => FieldError::required(field, &detail),
            Some("FieldValueDuplicate") => FieldError::duplicate(field, value),
            _ if value.is_object() || value.is_array() => FieldError {
                field,
                reason: Reason::Invalid,
                message: format!("Invalid value: {detail}"),
            },
            _ => FieldError::invalid(field, value, &detail),
        }
    }

    /// What the rule says of itself, computed or written.
    fn message(&self, rule: &Rule, context: &Context<'_, '_>) -> String {
        if let Some(Compiled::Runs { program, .. }) = self.programs.get(&rule.message_expression)
            && let Ok(Cel::String(text)) = program.execute(context)
        {
            let text = text.trim();
            if !text.is_empty() && !text.contains('\n') && text.len() <= LONGEST_MESSAGE {
                return text.to_owned();
            }
        }
        if rule.message.is_empty() {
            format!("failed rule: {}", told(rule))
        } else {
            rule.message.trim().to_owned()
        }
    }
}

fn told(rule: &Rule) -> String {
    if rule.message.is_empty() {
        rule.rule.trim().to_owned()
    } else {
        rule.message.trim().to_owned()
    }
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_lowercase().collect::<String>());
    first.unwrap_or_default() + chars.as_str()
}

fn context<'a>(
    this: &Cel,
    schema: &Schema,
    old: Option<&Value>,
    optional: bool,
) -> Context<'a, 'a> {
    let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
    context.add_variable_from_value("self", this.clone());
    let old = old.map(|old| to_cel(old, Some(schema)));
    if optional {
        let old = old.map_or_else(OptionalValue::none, OptionalValue::of);
        context.add_variable_from_value("oldSelf", Cel::Opaque(Arc::new(old)));
    } else if let Some(old) = old {
        context.add_variable_from_value("oldSelf", old);
    }
    context
}

/// The length of the longest list, map or text.
fn longest(value: &Value) -> usize {
    match value {
        Value::Object(map) => map.values().map(longest).max().unwrap_or(0).max(map.len()),
        Value::Array(list) => list.iter().map(longest).max().unwrap_or(0).max(list.len()),
        _ => 1,
    }
}

/// A value of the type that its schema says.
fn to_cel(value: &Value, schema: Option<&Schema>) -> Cel {
    let format = schema.map_or("", |s| s.format.as_str());
    match value {
        Value::Null => Cel::Null,
        Value::Bool(b) => Cel::Bool(*b),
        Value::Number(n) => {
            let floating = schema.is_some_and(|s| s.kind == "number");
            match n.as_i64() {
                Some(n) if !floating => Cel::Int(n),
                _ => Cel::Float(n.as_f64().unwrap_or(f64::NAN)),
            }
        }
        Value::String(text) => typed_text(text, format),
        Value::Array(list) => {
            let element = schema.and_then(Schema::element);
            let list = list.iter().map(|value| to_cel(value, element));
            Cel::List(Arc::new(list.collect()))
        }
        Value::Object(map) => {
            let fields = map.iter().map(|(key, value)| {
                let known = schema.is_some_and(|s| s.properties.contains_key(key));
                let name = if known { escaped(key) } else { key.clone() };
                let schema = schema.and_then(|s| s.field(key));
                (Key::from(name), to_cel(value, schema))
            });
            Cel::from(fields.collect::<HashMap<Key, Cel>>())
        }
    }
}

fn typed_text(text: &str, format: &str) -> Cel {
    let plain = || Cel::String(Arc::new(text.to_owned()));
    match format {
        "date-time" => {
            chrono::DateTime::parse_from_rfc3339(text).map_or_else(|_| plain(), Cel::Timestamp)
        }
        "date" => chrono::DateTime::parse_from_rfc3339(&format!("{text}T00:00:00Z"))
            .map_or_else(|_| plain(), Cel::Timestamp),
        "duration" => formats::duration(text)
            .and_then(|n| i64::try_from(n).ok())
            .map_or_else(plain, |n| Cel::Duration(chrono::Duration::nanoseconds(n))),
        _ => plain(),
    }
}

/// How expressions write the name of a field.
fn escaped(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn errors(schema: Value, value: Value, old: Option<Value>) -> Vec<String> {
        let schema = json!({"type": "object", "properties": {"spec": schema}});
        let schema = Schema::read(&schema).unwrap();
        let rules = Rules::of(&schema).expect("rules");
        let old = old.map(|old| json!({"spec": old}));
        rules
            .validate(&json!({"spec": value}), &schema, old.as_ref())
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn object(rules: Value) -> Value {
        json!({"type": "object", "x-kubernetes-validations": rules, "properties": {
            "min": {"type": "integer"}, "max": {"type": "integer"}, "name": {"type": "string"}, "in": {"type": "string"},
            "with-dash": {"type": "string"}, "wait": {"type": "string", "format": "duration"},
            "list": {"type": "array", "items": {"type": "string"}},
        }})
    }

    #[test]
    fn a_rule_that_is_broken_says_so() {
        for (rules, value, expected) in [
            (
                json!([{"rule": "self.min <= self.max", "message": "min is above max"}]),
                json!({"min": 2, "max": 1}),
                "spec: Invalid value: min is above max",
            ),
            (
                json!([{"rule": "self.min <= self.max"}]),
                json!({"min": 2, "max": 1}),
                "spec: Invalid value: failed rule: self.min <= self.max",
            ),
            (
                json!([{"rule": "self.min <= self.max", "messageExpression": "'min is ' + string(self.min)"}]),
                json!({"min": 2, "max": 1}),
                "spec: Invalid value: min is 2",
            ),
            (
                json!([{"rule": "!has(self.max)", "reason": "FieldValueForbidden", "fieldPath": ".max", "message": "not this"}]),
                json!({"max": 1}),
                "spec.max: Forbidden: not this",
            ),
            (
                json!([{"rule": "self.list.all(x, x.startsWith('a'))", "message": "a"}]),
                json!({"list": ["a", "b"]}),
                "spec: Invalid value: a",
            ),
            (
                json!([{"rule": "self.min > 0"}]),
                json!({}),
                "spec: Invalid value: \"object\": no such key: min evaluating rule: self.min > 0",
            ),
            (
                json!([{"rule": "self.__in__ == 'x' && self.with__dash__dash == 'y'", "message": "m"}]),
                json!({"in": "x", "with-dash": "z"}),
                "spec: Invalid value:",
            ),
            (
                json!([{"rule": "self.wait < duration('1m')", "message": "too long"}]),
                json!({"wait": "90s"}),
                "spec: Invalid value: too long",
            ),
        ] {
            let found = errors(object(rules.clone()), value, None);
            assert_eq!(found.len(), 1, "{rules}: {found:?}");
            assert!(found[0].starts_with(expected), "{found:?}\n{expected}");
        }
    }

    #[test]
    fn a_rule_that_holds_says_nothing() {
        for rule in [
            "self.min <= self.max",
            "has(self.name) ? self.name.matches('^[a-z]+$') : true",
            "self.list.exists(x, x == 'b') && size(self.list) == 2",
            "self.list.map(x, x.size()).all(n, n == 1)",
            "self.?name.orValue('') == 'web'",
            "isURL('https://example.com') && isIP('10.0.0.1') && self.name.find('e') == 'e'",
            "self.wait <= duration('1m')",
        ] {
            let value =
                json!({"min": 1, "max": 2, "name": "web", "list": ["a", "b"], "wait": "10s"});
            let found = errors(object(json!([{"rule": rule}])), value, None);
            assert_eq!(found, [""; 0], "{rule}");
        }
    }

    #[test]
    fn a_rule_about_the_change_needs_something_that_changed() {
        let schema = json!({"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]});
        assert_eq!(errors(schema.clone(), json!("a"), None), [""; 0]);
        assert_eq!(
            errors(schema.clone(), json!("a"), Some(json!("a"))),
            [""; 0]
        );
        assert_eq!(
            errors(schema, json!("b"), Some(json!("a"))),
            [r#"spec: Invalid value: "b": is immutable"#]
        );
        let optional = json!({"type": "string", "x-kubernetes-validations": [
            {"rule": "oldSelf.hasValue() || self == 'first'", "optionalOldSelf": true, "message": "m"}]});
        assert_eq!(errors(optional.clone(), json!("x"), None).len(), 1);
        assert_eq!(errors(optional, json!("x"), Some(json!("y"))), [""; 0]);
    }

    #[test]
    fn what_did_not_change_is_not_wrong_now() {
        let schema = object(json!([{"rule": "self.min <= self.max"}]));
        let value = json!({"min": 2, "max": 1});
        assert_eq!(errors(schema, value.clone(), Some(value)), [""; 0]);
    }

    #[test]
    fn loops_that_would_take_too_long_do_not_run() {
        let rule = "self.list.all(a, self.list.all(b, self.list.all(c, true)))";
        assert_eq!(nesting(rule), 3);
        let list: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        let found = errors(object(json!([{"rule": rule}])), json!({"list": list}), None);
        assert!(found[0].contains("running out of cost budget"), "{found:?}");
    }

    #[test]
    fn what_cannot_be_run_is_known() {
        assert!(not_run("quantity(self.a).isLessThan(quantity('1'))").is_some());
        assert_eq!(not_run("self.a == 1"), None);
        check("self.a ==").expect_err("no expression");
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in r#"[a-z.()'"\[\]?:!&|=<>+0-9, {}-]{0,40}"#) {
            let _ = check(&text);
            let schema = Schema { rules: vec![Rule { rule: text, ..Rule::default() }], ..Schema::default() };
            if let Some(rules) = Rules::of(&schema) {
                rules.validate(&json!({"a": [1, "x"]}), &schema, None);
            }
        }
    }
}
