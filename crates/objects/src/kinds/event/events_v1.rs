//! Event as `events.k8s.io/v1` has it: the same objects with other names for the fields, and stricter rules.
//!
//! Source: KEP-383; `pkg/apis/events/v1/conversion.go` and `pkg/apis/core/validation/events.go` in Kubernetes.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::events::v1::Event;
use schemars::{JsonSchema as _, Schema, SchemaGenerator};
use serde_json::{Map, Value};

use super::{CoreEvents, validate};
use crate::field::FieldErrors;
use crate::kind::Names;
use crate::rules::Rules as _;
use crate::version::Version;

pub(in crate::kinds) struct Events;

/// Fields that have another name: here, in the stored version.
const RENAMED: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Fields that the stored version shows when they are empty, and this one does not.
const SHOWN_EMPTY: [&str; 2] = ["reportingController", "reportingInstance"];

impl Version for Events {
    type Stored = CoreEvents;

    const NAMES: Names = Names {
        group: "events.k8s.io",
        ..CoreEvents::NAMES
    };

    fn schema_name() -> String {
        Event::schema_name().into_owned()
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Event>()
    }

    fn make_stored(object: &mut Map<String, Value>) {
        for (here, stored) in RENAMED {
            object.remove(stored);
            if let Some(value) = object.remove(here) {
                object.insert(stored.to_owned(), value);
            }
        }
    }

    fn show_stored(object: &mut Map<String, Value>) {
        for (here, stored) in RENAMED {
            if let Some(value) = object.remove(stored) {
                object.insert(here.to_owned(), value);
            }
        }
        for field in SHOWN_EMPTY {
            if object.get(field).is_some_and(|value| value == "") {
                object.remove(field);
            }
        }
    }

    fn default(object: &mut Map<String, Value>) {
        object
            .entry("deprecatedSource")
            .or_insert_with(|| Map::new().into());
    }

    fn validate(object: &core::Event, _written: &Value) -> FieldErrors {
        let mut errors = validate::event(object, "reportingController");
        errors.extend(validate::strict(object));
        errors
    }

    fn validate_against(object: &core::Event, _written: &Value, _old: &core::Event) -> FieldErrors {
        validate::event(object, "reportingController")
    }

    fn validate_update(new: &core::Event, old: &core::Event) -> FieldErrors {
        validate::strict_change(new, old)
    }

    fn field_label(label: &'static str) -> Option<&'static str> {
        match label {
            "involvedObject.kind" => Some("regarding.kind"),
            "involvedObject.namespace" => Some("regarding.namespace"),
            "involvedObject.name" => Some("regarding.name"),
            "involvedObject.uid" => Some("regarding.uid"),
            "involvedObject.apiVersion" => Some("regarding.apiVersion"),
            "involvedObject.resourceVersion" => Some("regarding.resourceVersion"),
            "involvedObject.fieldPath" => Some("regarding.fieldPath"),
            "reportingComponent" => Some("reportingController"),
            "reason" | "type" => Some(label),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds;
    use serde_json::{Value, json};

    #[test]
    fn both_versions_say_the_same_with_other_words() {
        let new = kinds::find("events.k8s.io", "v1", "events").expect("events");
        let core = kinds::find("", "v1", "events").expect("events");
        let sent = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "d"},
            "eventTime": "2026-01-01T00:00:00.000001Z", "reportingController": "c", "reportingInstance": "i",
            "action": "A", "reason": "R", "type": "Normal", "note": "n",
            "regarding": {"kind": "Pod", "name": "p", "namespace": "d"},
            "related": {"kind": "Node", "name": "n"}, "series": {"count": 3, "lastObservedTime": "2026-01-01T00:00:05.000000Z"}});
        let shown = new.decode(sent.clone()).expect("an Event");
        assert_eq!(new.validate(&shown), vec![]);
        let mut stored = shown.clone();
        new.make_stored(&mut stored);
        assert_eq!(stored["apiVersion"], "v1");
        assert_eq!(stored["message"], "n");
        assert_eq!(stored["involvedObject"]["name"], "p");
        assert_eq!(stored["reportingComponent"], "c");
        assert_eq!(core.decode(stored.clone()).expect("an Event"), stored);
        assert_eq!(core.validate(&stored), vec![]);
        assert_eq!(core.cells(&stored, 0), new.cells(&shown, 0));
        new.show_stored(&mut stored);
        assert_eq!(stored, shown);
        // Times that are not set are shown as such.
        let mut expected = sent;
        expected["deprecatedFirstTimestamp"] = Value::Null;
        expected["deprecatedLastTimestamp"] = Value::Null;
        assert_eq!(shown, expected);
        assert_eq!(stored["eventTime"], expected["eventTime"]);
        let mut defaulted = shown;
        new.default(&mut defaulted);
        assert_eq!(defaulted["deprecatedSource"], json!({}));
    }

    #[test]
    fn an_old_event_is_shown_with_its_deprecated_fields() {
        let new = kinds::find("events.k8s.io", "v1", "events").expect("events");
        let mut event = json!({"metadata": {"name": "e"}, "message": "m", "count": 2, "reportingComponent": "",
            "reportingInstance": "", "source": {"component": "kubelet"}, "involvedObject": {"kind": "Pod"}});
        new.show_stored(&mut event);
        assert_eq!(
            event,
            json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "note": "m",
                "deprecatedCount": 2, "deprecatedSource": {"component": "kubelet"}, "regarding": {"kind": "Pod"}})
        );
        let fields = new.fields(&event);
        assert!(fields.contains(&("regarding.kind", "Pod".to_owned())));
        assert!(!fields.iter().any(|(label, _)| *label == "source"));
    }

    #[test]
    fn who_uses_the_new_version_is_held_to_its_rules() {
        let new = kinds::find("events.k8s.io", "v1", "events").expect("events");
        let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "d"},
            "note": "n", "regarding": {"kind": "Pod", "namespace": "d"}});
        let texts: Vec<String> = new
            .validate(&event)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            texts,
            [
                "eventTime: Required value",
                "type: Invalid value: \"\": has invalid value: "
            ]
        );
    }
}
