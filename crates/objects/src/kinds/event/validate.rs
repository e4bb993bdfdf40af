//! What an Event must say. Whoever uses `events.k8s.io/v1` is held to more than who uses the old core version, but an
//! Event with an `eventTime` is one of the new sort in both.
//!
//! Source: `pkg/apis/core/validation/events.go` in Kubernetes.

use k8s_openapi::api::core::v1::Event;
use serde::Serialize;

use crate::field::{FieldError, FieldErrors, immutable};
use crate::metadata::wrong;
use crate::names;

/// Most characters of the reporting instance, the action and the reason.
const SHORT: usize = 128;
/// Most characters of the note.
const NOTE: usize = 1024;

/// An Event in any version. `controller` is what the version calls the reporting controller.
pub(super) fn event(object: &Event, controller: &str) -> FieldErrors {
    let lives = object.metadata.namespace.as_deref().unwrap_or_default();
    let about = object.involved_object.namespace.as_deref();
    let about = about.unwrap_or_default();
    let mut errors = FieldErrors::new();
    // An Event lives where its object lives; objects without namespace have theirs in `default`.
    let fits = match (&object.event_time, about) {
        (None, "") => matches!(lives, "" | "default"),
        (None, about) => about == lives,
        (Some(_), "") => matches!(lives, "default" | "kube-system"),
        (Some(_), _) => true,
    };
    if !fits {
        errors.push(FieldError::invalid(
            "involvedObject.namespace",
            about,
            "does not match event.namespace",
        ));
    }
    if object.event_time.is_some() {
        errors.extend(new_style(object, controller));
    }
    errors.extend(wrong("namespace", lives, names::dns_subdomain(lives)));
    errors
}

fn new_style(object: &Event, controller: &str) -> FieldErrors {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut errors = FieldErrors::new();
    let component = text(&object.reporting_component);
    if component.is_empty() {
        errors.push(FieldError::required(controller, ""));
    }
    errors.extend(wrong(
        controller,
        component.as_str(),
        names::qualified_name(&component),
    ));
    for (field, value) in [
        ("reportingInstance", &object.reporting_instance),
        ("action", &object.action),
        ("reason", &object.reason),
    ] {
        let value = text(value);
        if value.is_empty() {
            errors.push(FieldError::required(field, ""));
        }
        errors.extend(at_most(field, &value, SHORT));
    }
    errors.extend(at_most("message", &text(&object.message), NOTE));
    errors
}

fn at_most(field: &str, value: &str, most: usize) -> FieldErrors {
    if value.len() > most {
        let why = format!("can have at most {most} characters");
        vec![FieldError::invalid(field, "", &why)]
    } else {
        FieldErrors::new()
    }
}

/// What a new Event of `events.k8s.io/v1` must be beyond [`event`].
pub(super) fn strict(object: &Event) -> FieldErrors {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let mut errors = wrong("metadata.name", name, names::dns_subdomain(name));
    errors.extend(series(object));
    if object.event_time.is_none() {
        errors.push(FieldError::required("eventTime", ""));
    }
    let sort = object.type_.as_deref().unwrap_or_default();
    if !matches!(sort, "Normal" | "Warning") {
        let why = format!("has invalid value: {sort}");
        errors.push(FieldError::invalid("type", "", &why));
    }
    let source = object.source.clone().unwrap_or_default();
    let given = |text: Option<String>| text.is_some_and(|text| !text.is_empty());
    for (field, set) in [
        ("firstTimestamp", object.first_timestamp.is_some()),
        ("lastTimestamp", object.last_timestamp.is_some()),
        ("count", object.count.is_some_and(|count| count != 0)),
        ("source", given(source.component) || given(source.host)),
    ] {
        if set {
            errors.push(FieldError::invalid(field, "", "needs to be unset"));
        }
    }
    errors
}

/// What a change through `events.k8s.io/v1` may not touch: all but the series.
pub(super) fn strict_change(new: &Event, old: &Event) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if new.series != old.series {
        errors.extend(series(new));
    }
    let mut same = |field: &str, pair: (&dyn Shown, &dyn Shown)| {
        errors.extend(immutable(&pair.0.shown(), &pair.1.shown(), field));
    };
    same(
        "involvedObject",
        (&new.involved_object, &old.involved_object),
    );
    same("reason", (&new.reason, &old.reason));
    same("message", (&new.message, &old.message));
    same("source", (&new.source, &old.source));
    same(
        "firstTimestamp",
        (&new.first_timestamp, &old.first_timestamp),
    );
    same("lastTimestamp", (&new.last_timestamp, &old.last_timestamp));
    same("count", (&new.count, &old.count));
    // Kubernetes looks at it twice.
    same("reason", (&new.reason, &old.reason));
    same("type", (&new.type_, &old.type_));
    same("eventTime", (&new.event_time, &old.event_time));
    same("action", (&new.action, &old.action));
    same("related", (&new.related, &old.related));
    same(
        "reportingController",
        (&new.reporting_component, &old.reporting_component),
    );
    same(
        "reportingInstance",
        (&new.reporting_instance, &old.reporting_instance),
    );
    errors
}

/// A value as an error shows it.
trait Shown {
    fn shown(&self) -> serde_json::Value;
}

impl<T: Serialize> Shown for T {
    fn shown(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

fn series(object: &Event) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let Some(series) = &object.series else {
        return errors;
    };
    if series.count.unwrap_or_default() < 2 {
        errors.push(FieldError::invalid(
            "series.count",
            "",
            "should be at least 2",
        ));
    }
    if series.last_observed_time.is_none() {
        errors.push(FieldError::required("series.lastObservedTime", ""));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn texts(errors: FieldErrors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    fn read(object: Value) -> Event {
        serde_json::from_value(object).expect("an Event")
    }

    /// An Event of the new sort, with what `more` says.
    fn good(more: Value) -> Event {
        let mut object = json!({"metadata": {"name": "e", "namespace": "d"}, "eventTime": "2026-01-01T00:00:00.000000Z",
            "reportingComponent": "example.com/c", "reportingInstance": "c-1", "action": "Binding", "reason": "Scheduled",
            "type": "Normal", "involvedObject": {"kind": "Pod", "name": "p", "namespace": "d"}});
        for (key, value) in more.as_object().expect("a map") {
            object[key] = value.clone();
        }
        read(object)
    }

    #[test]
    fn an_event_lives_with_its_object() {
        let event_in = |lives: &str, about: &str| {
            let object = read(
                json!({"metadata": {"namespace": lives}, "involvedObject": {"namespace": about}}),
            );
            texts(event(&object, "reportingComponent"))
        };
        assert_eq!(event_in("default", "default"), [""; 0]);
        assert_eq!(event_in("default", ""), [""; 0]);
        assert_eq!(
            event_in("default", "other"),
            ["involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"]
        );
        assert_eq!(event_in("kube-system", "").len(), 1);
        let everywhere = good(json!({"involvedObject": {"kind": "Node", "name": "n"}}));
        assert_eq!(event(&everywhere, "reportingComponent").len(), 1);
    }

    #[test]
    fn an_event_with_a_time_says_who_saw_what() {
        assert_eq!(event(&good(json!({})), "reportingController"), vec![]);
        let bare = good(
            json!({"reportingComponent": "", "reportingInstance": "", "action": "", "reason": ""}),
        );
        let errors = texts(event(&bare, "reportingController"));
        assert_eq!(errors[0], "reportingController: Required value");
        assert!(
            errors[1].starts_with(
                "reportingController: Invalid value: \"\": name part must be non-empty"
            )
        );
        assert_eq!(
            errors[3..],
            [
                "reportingInstance: Required value",
                "action: Required value",
                "reason: Required value"
            ]
        );
        let long = good(json!({"action": "x".repeat(129), "message": "x".repeat(1025)}));
        assert_eq!(
            texts(event(&long, "reportingController")),
            [
                "action: Invalid value: \"\": can have at most 128 characters",
                "message: Invalid value: \"\": can have at most 1024 characters",
            ]
        );
    }

    #[test]
    fn a_new_event_has_none_of_the_old_fields() {
        assert_eq!(strict(&good(json!({}))), vec![]);
        let old = read(
            json!({"metadata": {"name": "e"}, "type": "Odd", "count": 1, "source": {"host": "h"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z"}),
        );
        assert_eq!(
            texts(strict(&old)),
            [
                "eventTime: Required value",
                "type: Invalid value: \"\": has invalid value: Odd",
                "firstTimestamp: Invalid value: \"\": needs to be unset",
                "lastTimestamp: Invalid value: \"\": needs to be unset",
                "count: Invalid value: \"\": needs to be unset",
                "source: Invalid value: \"\": needs to be unset",
            ]
        );
    }

    #[test]
    fn only_the_series_of_a_new_event_goes_on() {
        let old = good(json!({}));
        let seen = json!({"count": 2, "lastObservedTime": "2026-01-01T00:00:09.000000Z"});
        assert_eq!(
            strict_change(&good(json!({ "series": seen })), &old),
            vec![]
        );
        assert_eq!(
            texts(strict_change(&good(json!({"series": {"count": 1}})), &old)),
            [
                "series.count: Invalid value: \"\": should be at least 2",
                "series.lastObservedTime: Required value"
            ]
        );
        assert_eq!(
            texts(strict_change(&good(json!({"action": "Other"})), &old)),
            ["action: Invalid value: \"Other\": field is immutable"]
        );
    }
}
