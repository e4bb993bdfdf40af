//! Values as Go's `fmt` prints them, which Kubernetes puts into some of its messages.

use serde_json::{Map, Value};

/// `%v`: `map[a:1 b:[x y]]`.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(plain).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let entry = |key: &str, value: &Value| format!("{key}:{}", plain(value));
            format!("map[{}]", entries(map, " ", &entry))
        }
        other => other.to_string(),
    }
}

/// `%#v`: `map[string]interface {}{"a":1, "b":[]interface {}{"x", "y"}}`.
pub fn syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(text) => format!("{text:?}"),
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(map) => {
            let entry = |key: &str, value: &Value| format!("{key:?}:{}", syntax(value));
            format!(
                "map[string]interface {{}}{{{}}}",
                entries(map, ", ", &entry)
            )
        }
        other => other.to_string(),
    }
}

/// `%T` of what JSON is read as.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Go prints maps in the order of their keys.
fn entries(
    map: &Map<String, Value>,
    separator: &str,
    entry: &dyn Fn(&str, &Value) -> String,
) -> String {
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort_unstable();
    let entries: Vec<String> = keys.into_iter().map(|key| entry(key, &map[key])).collect();
    entries.join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_printed_as_go_prints_them() {
        let value = json!({"b": [1, "x", null], "a": {"c": true}});
        assert_eq!(plain(&value), "map[a:map[c:true] b:[1 x <nil>]]");
        assert_eq!(
            syntax(&value),
            "map[string]interface {}{\"a\":map[string]interface {}{\"c\":true}, \"b\":[]interface {}{1, \"x\", interface {}(nil)}}"
        );
    }
}
