//! The table form of objects: ages, label lists and columns as kubectl prints them.
//!
//! Source: `k8s.io/kubernetes/pkg/printers/internalversion` and `k8s.io/apimachinery/pkg/util/duration`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{LazyLock, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::Value;

use crate::kind::Column;

/// How kubectl shows that there is nothing.
pub const NONE: &str = "<none>";
/// How kubectl shows what is not known.
pub const UNKNOWN: &str = "<unknown>";

/// A column that is always printed.
pub fn column(name: &'static str, kind: &'static str, description: &'static str) -> Column {
    Column {
        name: name.into(),
        kind: kind.into(),
        format: "".into(),
        description: description.into(),
        priority: 0,
    }
}

/// A column that is printed with `-o wide`.
pub fn wide(name: &'static str, kind: &'static str, description: &'static str) -> Column {
    Column {
        priority: 1,
        ..column(name, kind, description)
    }
}

/// The first column of every table.
pub fn name_column() -> Column {
    Column {
        format: "name".into(),
        ..column("Name", "string", documented::<ObjectMeta>("name"))
    }
}

/// The column that most tables have last.
pub fn age_column() -> Column {
    column(
        "Age",
        "string",
        documented::<ObjectMeta>("creationTimestamp"),
    )
}

/// The columns of kinds that have no printer of their own.
pub fn name_and_created() -> Vec<Column> {
    vec![
        name_column(),
        column(
            "Created At",
            "date",
            documented::<ObjectMeta>("creationTimestamp"),
        ),
    ]
}

/// The cells for [`name_and_created`].
pub fn name_and_created_cells(meta: &ObjectMeta) -> Vec<Value> {
    let created = meta
        .creation_timestamp
        .as_ref()
        .and_then(|t| serde_json::to_value(t).ok());
    vec![name(meta), created.unwrap_or(Value::Null)]
}

/// What the API reference says of a field: the descriptions of Kubernetes' own columns are these texts.
/// Each is looked up once and then kept for the life of the process.
pub fn documented<T: schemars::JsonSchema>(field: &'static str) -> &'static str {
    type Texts = HashMap<(Cow<'static, str>, &'static str), &'static str>;
    static TEXTS: LazyLock<Mutex<Texts>> = LazyLock::new(Mutex::default);
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    texts.entry((T::schema_name(), field)).or_insert_with(|| {
        let schema = T::json_schema(&mut schemars::SchemaGenerator::default());
        let text = schema
            .as_value()
            .pointer(&format!("/properties/{field}/description"))
            .and_then(Value::as_str)
            .unwrap_or_default();
        Box::leak(text.to_owned().into_boxed_str())
    })
}

/// What the API reference says of `apiVersion` and `kind`.
pub fn documented_type(field: &'static str) -> &'static str {
    documented::<k8s_openapi::api::core::v1::ConfigMap>(field)
}

/// Name of the object, as a cell.
pub fn name(meta: &ObjectMeta) -> Value {
    Value::from(meta.name.as_deref().unwrap_or_default())
}

/// Age of the object, as a cell.
pub fn age(meta: &ObjectMeta, now: i64) -> Value {
    Value::from(since(meta.creation_timestamp.as_ref(), now))
}

/// How long ago something was, in kubectl's short form.
pub fn since(time: Option<&Time>, now: i64) -> String {
    match time {
        Some(time) => human_duration(now - time.0.as_second()),
        None => UNKNOWN.to_owned(),
    }
}

/// Seconds in kubectl's short form: two units at most, and one where the second does not matter.
pub fn human_duration(seconds: i64) -> String {
    fn two(big: i64, big_unit: &str, small: i64, small_unit: &str) -> String {
        if small == 0 {
            format!("{big}{big_unit}")
        } else {
            format!("{big}{big_unit}{small}{small_unit}")
        }
    }
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        i64::MIN..=-2 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => two(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// `a=b,c=d`, or `<none>`.
pub fn labels(map: Option<&BTreeMap<String, String>>) -> String {
    let list: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    or_none(list.join(","))
}

/// Names and images of containers, each as `a,b`.
pub fn containers(containers: &[Container]) -> (String, String) {
    let names: Vec<&str> = containers.iter().map(|c| c.name.as_str()).collect();
    let images: Vec<&str> = containers
        .iter()
        .map(|c| c.image.as_deref().unwrap_or_default())
        .collect();
    (names.join(","), images.join(","))
}

/// The text, or `<none>` if it is empty.
pub fn or_none(text: String) -> String {
    if text.is_empty() {
        NONE.to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_short_as_kubectls() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (599, "9m59s"),
            (600, "10m"),
            (179 * 60 + 59, "179m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (8 * 3600 + 60, "8h"),
            (47 * 3600, "47h"),
            (49 * 3600, "2d1h"),
            (48 * 3600, "2d"),
            (8 * 86400, "8d"),
            (729 * 86400, "729d"),
            (730 * 86400, "2y"),
            (731 * 86400, "2y1d"),
            (3000 * 86400, "8y"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn descriptions_come_from_the_api_reference() {
        assert!(documented::<ObjectMeta>("name").starts_with("Name must be unique"));
        assert_eq!(documented::<ObjectMeta>("no-such-field"), "");
    }
}
