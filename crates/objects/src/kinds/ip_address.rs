//! IPAddress (networking.k8s.io/v1): one address that is taken, and by what. The name is the address.
//!
//! Source: KEP-1880; `ValidateIPAddress` in `pkg/apis/networking/validation`.

use k8s_openapi::api::networking::v1::{IPAddress, IPAddressSpec, ParentReference};
use serde::Serialize;
use serde_json::Value;

use crate::field::{FieldError, FieldErrors};
use crate::kind::{Column, Names};
use crate::metadata::wrong;
use crate::names::{self, NameRule};
use crate::rules::Rules;
use crate::table;

pub(super) struct IpAddresses;

impl Rules for IpAddresses {
    type Object = IPAddress;

    const NAMES: Names = Names {
        group: "networking.k8s.io",
        version: "v1",
        kind: "IPAddress",
        plural: "ipaddresses",
        singular: "ipaddress",
        short_names: &["ip"],
        categories: &[],
        namespaced: false,
    };
    const NAME: NameRule = NameRule::Address;

    const POINTERS: &'static [&'static str] = &["/spec/parentRef"];

    fn validate_written(object: &IPAddress, written: &Value) -> FieldErrors {
        if written
            .pointer("/spec/parentRef")
            .is_none_or(Value::is_null)
        {
            return vec![FieldError::required("spec.parentRef", "")];
        }
        validate_parent(&object.spec.parent_ref)
    }

    fn validate_update(new: &IPAddress, old: &IPAddress) -> FieldErrors {
        let parent = &new.spec.parent_ref;
        if *parent == old.spec.parent_ref {
            return FieldErrors::new();
        }
        let shown = Shown {
            group: text(&parent.group),
            resource: &parent.resource,
            namespace: text(&parent.namespace),
            name: &parent.name,
        };
        vec![FieldError::invalid(
            "spec.parentRef",
            shown,
            "field is immutable",
        )]
    }

    fn columns() -> Vec<Column> {
        vec![
            table::name_column(),
            table::column(
                "ParentRef",
                "string",
                table::documented::<IPAddressSpec>("parentRef"),
            ),
            table::age_column(),
        ]
    }

    fn cells(object: &IPAddress, now: i64) -> Vec<Value> {
        vec![
            table::name(&object.metadata),
            Value::from(table::or_none(path(&object.spec.parent_ref))),
            table::age(&object.metadata, now),
        ]
    }
}

/// A parent as the words of Kubernetes show it: its internal type.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown<'a> {
    group: &'a str,
    resource: &'a str,
    namespace: &'a str,
    name: &'a str,
}

fn text(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default()
}

fn validate_parent(parent: &ParentReference) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let at = |field: &str| format!("spec.parentRef.{field}");
    let group = text(&parent.group);
    if !group.is_empty() {
        errors.extend(wrong(&at("group"), group, names::dns_subdomain(group)));
    }
    for (field, value) in [("resource", &parent.resource), ("name", &parent.name)] {
        if value.is_empty() {
            errors.push(FieldError::required(at(field), ""));
        } else {
            errors.extend(wrong(
                &at(field),
                value.as_str(),
                names::path_segment(value),
            ));
        }
    }
    let namespace = text(&parent.namespace);
    if !namespace.is_empty() {
        errors.extend(wrong(
            &at("namespace"),
            namespace,
            names::path_segment(namespace),
        ));
    }
    errors
}

/// `services/default/web`, or `gateways.gateway.networking.k8s.io/default/web`.
fn path(parent: &ParentReference) -> String {
    let mut path = parent.resource.clone();
    for (before, part) in [
        (".", text(&parent.group)),
        ("/", text(&parent.namespace)),
        ("/", parent.name.as_str()),
    ] {
        if !part.is_empty() {
            path.push_str(before);
            path.push_str(part);
        }
        if before == "." {
            path = path.to_lowercase();
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use crate::kind::Kind;
    use crate::kinds;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn kind() -> Arc<dyn Kind> {
        kinds::find("networking.k8s.io", "v1", "ipaddresses").expect("ipaddresses")
    }

    fn errors(name: &str, parent: Value) -> Vec<String> {
        let object = json!({"metadata": {"name": name}, "spec": {"parentRef": parent}});
        let object = kind().decode(object).expect("decodes");
        kind()
            .validate(&object)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn the_name_is_a_canonical_address() {
        let parent = || json!({"resource": "services", "namespace": "d", "name": "a"});
        for good in ["10.9.8.7", "fd00::1"] {
            assert_eq!(errors(good, parent()), [""; 0], "{good}");
        }
        assert_eq!(
            errors("010.9.8.7", parent()),
            ["metadata.name: Invalid value: \"010.9.8.7\": must not have leading 0s"]
        );
        assert_eq!(
            errors("fd00:0::1", parent()),
            [
                "metadata.name: Invalid value: \"fd00:0::1\": must be in canonical form (\"fd00::1\")"
            ]
        );
    }

    #[test]
    fn it_belongs_to_something() {
        assert_eq!(
            errors("10.9.8.7", json!({})),
            [
                "spec.parentRef.resource: Required value",
                "spec.parentRef.name: Required value"
            ]
        );
        assert_eq!(
            errors(
                "10.9.8.7",
                json!({"resource": "a/b", "name": "..", "group": "A"})
            )
            .len(),
            3
        );
    }

    #[test]
    fn what_it_belongs_to_never_changes() {
        let of = |name: &str| {
            json!({"metadata": {"name": "10.9.8.7"},
                "spec": {"parentRef": {"resource": "services", "namespace": "d", "name": name}}})
        };
        assert_eq!(kind().validate_update(&of("a"), &of("a")), vec![]);
        assert_eq!(
            kind().validate_update(&of("b"), &of("a"))[0].to_string(),
            "spec.parentRef: Invalid value: {\"Group\":\"\",\"Resource\":\"services\",\"Namespace\":\"d\",\"Name\":\"b\"}: field is immutable"
        );
    }

    #[test]
    fn a_row_shows_what_it_belongs_to() {
        let row = |parent: Value| {
            kind().cells(
                &json!({"metadata": {"name": "10.9.8.7"}, "spec": {"parentRef": parent}}),
                0,
            )[1]
            .clone()
        };
        assert_eq!(
            row(json!({"resource": "services", "namespace": "d", "name": "a"})),
            "services/d/a"
        );
        assert_eq!(
            row(json!({"group": "x.io", "resource": "Gateways", "name": "g"})),
            "gateways.x.io/g"
        );
    }
}
