//! JSONPath as printer columns use it: names, indices, slices, wildcards, recursive descent and filters.
//! Source: `k8s.io/client-go/util/jsonpath`; "JSONPath Support" in Kubernetes' documentation.

use std::cmp::Ordering;

use serde_json::Value;

/// A path through an object.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    Wildcard,
    Descend,
    Filter(Filter),
}

#[derive(Debug, Clone, PartialEq)]
struct Filter {
    left: Operand,
    compare: Option<(Compare, Operand)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Path(JsonPath),
    Literal(Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl JsonPath {
    /// Reads `.spec.replicas`.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::parse_nested(text, 0)
    }

    fn parse_nested(text: &str, depth: usize) -> Result<Self, String> {
        if depth > 8 {
            return Err("filters are nested too deeply".to_owned());
        }
        let mut steps = Vec::new();
        let mut rest = text.strip_prefix(['$', '@']).unwrap_or(text);
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("..") {
                steps.push(Step::Descend);
                rest = after;
                if !rest.starts_with('[') {
                    rest = name(rest, &mut steps)?;
                }
            } else if let Some(after) = rest.strip_prefix('.') {
                rest = if after.is_empty() || after.starts_with('[') {
                    after
                } else {
                    name(after, &mut steps)?
                };
            } else if rest.starts_with('[') {
                let end = closing(rest).ok_or("unterminated array")?;
                steps.push(bracket(&rest[1..end], depth)?);
                rest = &rest[end + 1..];
            } else {
                return Err(format!("unrecognized character in action: {rest}"));
            }
        }
        Ok(Self(steps))
    }

    /// Every value that the path leads to.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.0 {
            let mut next = Vec::new();
            for value in found {
                step.follow(value, &mut next);
            }
            found = next;
        }
        found
    }

    /// The first value that the path leads to.
    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.find(value).into_iter().next()
    }
}

/// A name up to the next step; backslashes take away the meaning of what follows.
fn name<'a>(text: &'a str, steps: &mut Vec<Step>) -> Result<&'a str, String> {
    let mut found = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((i, c)) = chars.next() {
        match c {
            '\\' => found.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => {
                end = i;
                break;
            }
            c => found.push(c),
        }
    }
    match found.as_str() {
        "" => return Err("unexpected end of path".to_owned()),
        "*" => steps.push(Step::Wildcard),
        _ => steps.push(Step::Field(found)),
    }
    Ok(&text[end..])
}

/// Where the bracket that opens the text closes.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Some(i);
                }
            }
            _ => {}
        }
    }
    None
}

fn bracket(text: &str, depth: usize) -> Result<Step, String> {
    let text = text.trim();
    if text == "*" {
        return Ok(Step::Wildcard);
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        return filter_step(filter, depth);
    }
    if let Some(name) = quoted(text) {
        return Ok(Step::Field(name));
    }
    let number = |text: &str| match text.trim() {
        "" => Ok(None),
        text => text
            .parse::<i64>()
            .map(Some)
            .map_err(|_| format!("invalid array index {text}")),
    };
    if let Some((start, end)) = text.split_once(':') {
        return Ok(Step::Slice(number(start)?, number(end)?));
    }
    number(text)?
        .map(Step::Index)
        .ok_or_else(|| "invalid array index".to_owned())
}

fn quoted(text: &str) -> Option<String> {
    for quote in ['\'', '"'] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote)) {
            let mut out = String::new();
            let mut chars = inner.chars();
            while let Some(c) = chars.next() {
                match c {
                    '\\' => out.extend(chars.next()),
                    c => out.push(c),
                }
            }
            return Some(out);
        }
    }
    None
}

fn filter_step(text: &str, depth: usize) -> Result<Step, String> {
    let operators = [
        ("==", Compare::Equal),
        ("!=", Compare::NotEqual),
        ("<=", Compare::LessOrEqual),
        (">=", Compare::GreaterOrEqual),
        ("<", Compare::Less),
        (">", Compare::Greater),
    ];
    let operand = |text: &str| -> Result<Operand, String> {
        let text = text.trim();
        if text.starts_with(['@', '$', '.']) {
            return Ok(Operand::Path(JsonPath::parse_nested(text, depth + 1)?));
        }
        if let Some(text) = quoted(text) {
            return Ok(Operand::Literal(Value::from(text)));
        }
        serde_json::from_str(text)
            .map(Operand::Literal)
            .map_err(|_| format!("unrecognized filter operand {text}"))
    };
    let mut quote = None;
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, _) => {
                for (sign, compare) in operators {
                    if let Some(right) = text[i..].strip_prefix(sign) {
                        return Ok(Step::Filter(Filter {
                            left: operand(&text[..i])?,
                            compare: Some((compare, operand(right)?)),
                        }));
                    }
                }
            }
        }
    }
    Ok(Step::Filter(Filter {
        left: operand(text)?,
        compare: None,
    }))
}

impl Step {
    fn follow<'a>(&self, value: &'a Value, found: &mut Vec<&'a Value>) {
        match self {
            Self::Field(name) => found.extend(value.get(name)),
            Self::Index(index) => {
                if let Some(list) = value.as_array() {
                    let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
                    let index = if *index < 0 { length + index } else { *index };
                    let index = usize::try_from(index).ok();
                    found.extend(index.and_then(|i| list.get(i)));
                }
            }
            Self::Slice(start, end) => {
                if let Some(list) = value.as_array() {
                    let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
                    let place = |at: Option<i64>, missing: i64| {
                        let at = at.unwrap_or(missing);
                        let at = if at < 0 { length + at } else { at };
                        usize::try_from(at.clamp(0, length)).unwrap_or(0)
                    };
                    let (start, end) = (place(*start, 0), place(*end, length));
                    found.extend(list.get(start..end).into_iter().flatten());
                }
            }
            Self::Wildcard => children(value, found),
            Self::Descend => descend(value, found),
            Self::Filter(filter) => {
                let mut candidates = Vec::new();
                children(value, &mut candidates);
                found.extend(candidates.into_iter().filter(|one| filter.holds(one)));
            }
        }
    }
}

fn children<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Array(list) => found.extend(list),
        Value::Object(map) => found.extend(map.values()),
        _ => {}
    }
}

fn descend<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    found.push(value);
    let mut below = Vec::new();
    children(value, &mut below);
    for value in below {
        descend(value, found);
    }
}

impl Operand {
    fn value<'a>(&'a self, value: &'a Value) -> Option<&'a Value> {
        match self {
            Self::Path(path) => path.first(value),
            Self::Literal(literal) => Some(literal),
        }
    }
}

impl Filter {
    fn holds(&self, value: &Value) -> bool {
        let left = self.left.value(value);
        let Some((compare, right)) = &self.compare else {
            return left.is_some();
        };
        let (Some(left), Some(right)) = (left, right.value(value)) else {
            return false;
        };
        let order = match (left, right) {
            (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (a, b) if a == b => Some(Ordering::Equal),
            _ => None,
        };
        match compare {
            Compare::Equal => order == Some(Ordering::Equal),
            Compare::NotEqual => order != Some(Ordering::Equal),
            Compare::Less => order == Some(Ordering::Less),
            Compare::LessOrEqual => order.is_some_and(Ordering::is_le),
            Compare::Greater => order == Some(Ordering::Greater),
            Compare::GreaterOrEqual => order.is_some_and(Ordering::is_ge),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn paths_lead_where_they_say() {
        let object = json!({"metadata": {"labels": {"app.kubernetes.io/name": "x"}}, "spec": {"list": [1, 2, 3], "a": {"b": "c"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False", "n": 2}]}});
        for (path, found) in [
            (".spec.a.b", json!(["c"])),
            (".spec.nothing.at.all", json!([])),
            (".spec.list[0]", json!([1])),
            (".spec.list[-1]", json!([3])),
            (".spec.list[1:]", json!([2, 3])),
            (".spec.list[*]", json!([1, 2, 3])),
            (r".metadata.labels.app\.kubernetes\.io/name", json!(["x"])),
            (
                r".metadata.labels['app\.kubernetes\.io/name']",
                json!(["x"]),
            ),
            (
                r#".status.conditions[?(@.type=="Ready")].status"#,
                json!(["True"]),
            ),
            (
                r".status.conditions[?(@.type=='Other')].status",
                json!(["False"]),
            ),
            (".status.conditions[?(@.n > 1)].type", json!(["Other"])),
            (".status.conditions[?(@.n)].type", json!(["Other"])),
            ("..b", json!(["c"])),
        ] {
            let parsed = JsonPath::parse(path).expect(path);
            assert_eq!(json!(parsed.find(&object)), found, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in [".a[", ".a[x]", "a", ".a[?(@.b ==)]"] {
            JsonPath::parse(path).expect_err(path);
        }
    }

    proptest! {
        #[test]
        fn reading_and_finding_never_panics(text in r#"[.\[\]a-c'"?()@=<0-9:*\\-]{0,30}"#) {
            if let Ok(path) = JsonPath::parse(&text) {
                path.find(&json!({"a": [{"b": 1}, {"c": "x"}], "b": {"a": 1}}));
            }
        }
    }
}
