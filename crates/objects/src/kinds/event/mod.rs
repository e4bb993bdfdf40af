//! Event (core/v1): what happened to an object, for people to read.
//!
//! It is served as `events.k8s.io/v1` as well, see [`events_v1`].

pub(super) mod events_v1;
mod validate;

use k8s_openapi::api::core::v1::{Event, ObjectReference};
use serde_json::Value;

use crate::field::FieldErrors;
use crate::kind::{Column, Names};
use crate::names::NameRule;
use crate::rules::Rules;
use crate::table;

pub(super) struct CoreEvents;

impl Rules for CoreEvents {
    type Object = Event;

    const NAMES: Names = Names {
        group: "",
        version: "v1",
        kind: "Event",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        categories: &[],
        namespaced: true,
    };

    const NAME: NameRule = NameRule::PathSegment;
    const NULLS: &'static [&'static str] = &["/eventTime", "/firstTimestamp", "/lastTimestamp"];

    fn default(object: &mut Event) {
        object.source.get_or_insert_default();
    }

    fn validate(object: &Event) -> FieldErrors {
        validate::event(object, "reportingComponent")
    }

    fn columns() -> Vec<Column> {
        vec![
            table::column(
                "Last Seen",
                "string",
                table::documented::<Event>("lastTimestamp"),
            ),
            table::column("Type", "string", table::documented::<Event>("type")),
            table::column("Reason", "string", table::documented::<Event>("reason")),
            table::column(
                "Object",
                "string",
                table::documented::<Event>("involvedObject"),
            ),
            table::wide(
                "Subobject",
                "string",
                table::documented::<ObjectReference>("fieldPath"),
            ),
            table::wide("Source", "string", table::documented::<Event>("source")),
            table::column("Message", "string", table::documented::<Event>("message")),
            table::wide(
                "First Seen",
                "string",
                table::documented::<Event>("firstTimestamp"),
            ),
            table::wide("Count", "string", table::documented::<Event>("count")),
            Column {
                priority: 1,
                ..table::name_column()
            },
        ]
    }

    fn cells(object: &Event, now: i64) -> Vec<Value> {
        let event_time = object
            .event_time
            .as_ref()
            .map(|t| table::human_duration(now - t.0.as_second()));
        let first = match (&object.first_timestamp, &event_time) {
            (None, Some(time)) => time.clone(),
            (first, _) => table::since(first.as_ref(), now),
        };
        let (last, count) = match &object.series {
            Some(series) => {
                let seen = series.last_observed_time.as_ref();
                let last = seen.map(|t| table::human_duration(now - t.0.as_second()));
                (last.unwrap_or_else(|| first.clone()), series.count)
            }
            None => {
                let last = object.last_timestamp.as_ref();
                let last = last.map(|t| table::since(Some(t), now));
                (last.unwrap_or_else(|| first.clone()), object.count)
            }
        };
        let about = &object.involved_object;
        let object_text = format!(
            "{}/{}",
            about.kind.as_deref().unwrap_or_default().to_lowercase(),
            about.name.as_deref().unwrap_or_default()
        );
        let text = |s: &Option<String>| Value::from(s.as_deref().unwrap_or_default());
        vec![
            Value::from(last),
            text(&object.type_),
            text(&object.reason),
            Value::from(object_text),
            text(&about.field_path),
            Value::from(source(object)),
            Value::from(object.message.as_deref().unwrap_or_default().trim()),
            Value::from(first),
            // Go prints the count as text; an Event that was never repeated counts one.
            Value::from(count.unwrap_or(1).max(1).to_string()),
            table::name(&object.metadata),
        ]
    }

    fn fields(object: &Event) -> Vec<(&'static str, String)> {
        let about = &object.involved_object;
        let component = object.source.as_ref().and_then(|s| s.component.clone());
        let text = |s: &Option<String>| s.clone().unwrap_or_default();
        vec![
            ("involvedObject.kind", text(&about.kind)),
            ("involvedObject.namespace", text(&about.namespace)),
            ("involvedObject.name", text(&about.name)),
            ("involvedObject.uid", text(&about.uid)),
            ("involvedObject.apiVersion", text(&about.api_version)),
            (
                "involvedObject.resourceVersion",
                text(&about.resource_version),
            ),
            ("involvedObject.fieldPath", text(&about.field_path)),
            ("reason", text(&object.reason)),
            ("reportingComponent", text(&object.reporting_component)),
            // Newer clients fill in the reporting component only.
            (
                "source",
                component.unwrap_or_else(|| text(&object.reporting_component)),
            ),
            ("type", text(&object.type_)),
        ]
    }
}

/// `component, host`, whichever there is.
fn source(object: &Event) -> String {
    let (component, host) = match &object.source {
        Some(source) => (source.component.as_deref(), source.host.as_deref()),
        None => (None, None),
    };
    let component = component
        .filter(|c| !c.is_empty())
        .or(object.reporting_component.as_deref());
    let host = host
        .filter(|h| !h.is_empty())
        .or(object.reporting_instance.as_deref());
    [component, host]
        .into_iter()
        .flatten()
        .filter(|s| !s.is_empty())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;
    use serde_json::json;

    #[test]
    fn a_row_says_what_happened_to_what() {
        let kind = kinds::find("", "v1", "events").expect("events");
        let event = json!({"metadata": {"name": "e"}, "type": "Normal", "reason": "Started", "count": 3,
            "message": " Started container c\n", "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
            "source": {"component": "kubelet", "host": "n1"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:01:00Z"});
        let now = 1_767_225_600 + 90;
        let cells = kind.cells(&event, now);
        assert_eq!(
            Value::Array(cells),
            json!([
                "30s",
                "Normal",
                "Started",
                "pod/p",
                "spec.containers{c}",
                "kubelet, n1",
                "Started container c",
                "90s",
                "3",
                "e"
            ])
        );
    }
}
