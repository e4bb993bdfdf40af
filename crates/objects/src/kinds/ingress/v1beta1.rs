//! Ingress as `networking.k8s.io/v1beta1` and `extensions/v1beta1` have it: the two are alike but for their names.
//!
//! They differ from `v1` in this: `spec.backend` is `spec.defaultBackend`; a backend names its Service with
//! `serviceName` and `servicePort` (a number or a name); `pathType` may be left out; and they never looked at the names
//! of Secrets and at the rules for wildcard hosts.
//!
//! Source: `pkg/apis/networking/v1beta1` and `pkg/apis/networking/validation` in Kubernetes 1.20, the last but one that
//! served them.

use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::{JsonSchema as _, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::Ingresses;
use super::validate::{self, Allowed};
use crate::field::{FieldError, FieldErrors};
use crate::kind::Names;
use crate::rules::Rules as _;
use crate::version::{Deprecation, Version, schema_like};

const INSTEAD: &str = "networking.k8s.io/v1 Ingress";

/// `networking.k8s.io/v1beta1`
pub(in crate::kinds) struct Networking;

/// `extensions/v1beta1`
pub(in crate::kinds) struct Extensions;

/// What is the same for both.
macro_rules! version {
    ($version:ty, $group:literal, $package:literal, $since:literal) => {
        impl Version for $version {
            type Stored = Ingresses;

            const NAMES: Names = Names {
                group: $group,
                version: "v1beta1",
                ..Ingresses::NAMES
            };
            const DEPRECATED: Option<Deprecation> = Some(Deprecation {
                since: $since,
                gone: Some("1.22"),
                instead: Some(INSTEAD),
            });

            fn schema_name() -> String {
                concat!($package, ".Ingress").to_owned()
            }

            fn schema(generator: &mut SchemaGenerator) -> Schema {
                generator.subschema_for::<IntOrString>();
                schema_like::<Ingresses>(generator, $package, |schemas| edit(schemas, $package))
            }

            fn make_stored(object: &mut Map<String, Value>) {
                make_stored(object);
            }

            fn show_stored(object: &mut Map<String, Value>) {
                show_stored(object);
            }

            fn default(object: &mut Map<String, Value>) {
                default(object);
            }

            fn validate(object: &Ingress, _written: &Value) -> FieldErrors {
                validate::new(object, ALLOWED)
            }

            fn validate_against(object: &Ingress, _written: &Value, _old: &Ingress) -> FieldErrors {
                validate::ingress(object, ALLOWED)
            }

            fn error(error: FieldError) -> FieldError {
                named(error)
            }
        }
    };
}

version!(
    Networking,
    "networking.k8s.io",
    "io.k8s.api.networking.v1beta1",
    "1.19"
);
version!(
    Extensions,
    "extensions",
    "io.k8s.api.extensions.v1beta1",
    "1.14"
);

/// These versions took both.
const ALLOWED: Allowed = Allowed {
    invalid_secret_name: true,
    invalid_wildcard_rule: true,
};

fn make_stored(object: &mut Map<String, Value>) {
    let Some(spec) = spec(object) else {
        return;
    };
    spec.remove("defaultBackend");
    if let Some(mut backend) = spec.remove("backend") {
        backend_to_stored(&mut backend);
        spec.insert("defaultBackend".to_owned(), backend);
    }
    paths(spec).for_each(|path| {
        if let Some(backend) = path.get_mut("backend") {
            backend_to_stored(backend);
        }
    });
}

fn show_stored(object: &mut Map<String, Value>) {
    let Some(spec) = spec(object) else {
        return;
    };
    if let Some(mut backend) = spec.remove("defaultBackend") {
        backend_from_stored(&mut backend);
        spec.insert("backend".to_owned(), backend);
    }
    paths(spec).for_each(|path| {
        if let Some(backend) = path.get_mut("backend") {
            backend_from_stored(backend);
        }
    });
}

fn default(object: &mut Map<String, Value>) {
    let spec = object.entry("spec").or_insert_with(|| json!({}));
    if let Value::Object(spec) = spec {
        paths(spec).for_each(|path| {
            path.entry("pathType")
                .or_insert_with(|| "ImplementationSpecific".into());
        });
    }
}

fn spec(object: &mut Map<String, Value>) -> Option<&mut Map<String, Value>> {
    object.get_mut("spec")?.as_object_mut()
}

/// The paths of all rules.
fn paths(spec: &mut Map<String, Value>) -> impl Iterator<Item = &mut Map<String, Value>> {
    let rules = spec.get_mut("rules").and_then(Value::as_array_mut);
    let rules = rules.into_iter().flatten();
    rules
        .filter_map(|rule| rule.pointer_mut("/http/paths")?.as_array_mut())
        .flatten()
        .filter_map(Value::as_object_mut)
}

/// Source: `Convert_v1beta1_IngressBackend_To_networking_IngressBackend`.
fn backend_to_stored(backend: &mut Value) {
    let Value::Object(backend) = backend else {
        return;
    };
    let name = backend.remove("serviceName").unwrap_or_default();
    let port = backend.remove("servicePort").unwrap_or_default();
    backend.remove("service");
    let port = match port {
        Value::String(name) => Some(json!({ "name": name })),
        Value::Number(number) if number.as_i64() != Some(0) => Some(json!({ "number": number })),
        _ => None,
    };
    let name = name.as_str().unwrap_or_default();
    if !name.is_empty() || port.is_some() {
        let port = port.unwrap_or_else(|| json!({}));
        backend.insert("service".to_owned(), json!({"name": name, "port": port}));
    }
}

/// Source: `Convert_networking_IngressBackend_To_v1beta1_IngressBackend`.
fn backend_from_stored(backend: &mut Value) {
    let Value::Object(backend) = backend else {
        return;
    };
    let service = backend.remove("service").unwrap_or_default();
    let text = |pointer: &str| {
        let text = service.pointer(pointer).and_then(Value::as_str);
        text.filter(|text| !text.is_empty()).map(Value::from)
    };
    if let Some(name) = text("/name") {
        backend.insert("serviceName".to_owned(), name);
    }
    // No pointer in Go, so it is there even if there is no Service.
    let number = || service.pointer("/port/number").cloned();
    let port = text("/port/name").or_else(number);
    backend.insert("servicePort".to_owned(), port.unwrap_or_else(|| 0.into()));
}

/// The names that these versions have for fields.
fn named(mut error: FieldError) -> FieldError {
    for (stored, here) in [
        ("spec.defaultBackend", "spec.backend"),
        (".service.name", ".serviceName"),
        (".service.port.name", ".servicePort"),
        (".service.port.number", ".servicePort"),
    ] {
        error.field = error.field.replace(stored, here);
    }
    error.message = error.message.replace("`defaultBackend`", "`backend`");
    error
}

/// What the schemas of these versions have otherwise than those of `v1`.
fn edit(schemas: &mut Map<String, Value>, package: &str) {
    for gone in ["IngressServiceBackend", "ServiceBackendPort"] {
        schemas.remove(&format!("{package}.{gone}"));
    }
    let mut fields = |name: &str| -> Map<String, Value> {
        let schema = schemas.get_mut(&format!("{package}.{name}"));
        let fields = schema.and_then(|schema| schema.get_mut("properties"));
        fields
            .and_then(Value::as_object_mut)
            .map(std::mem::take)
            .unwrap_or_default()
    };
    let mut spec = fields("IngressSpec");
    if let Some(backend) = spec.remove("defaultBackend") {
        spec.insert("backend".to_owned(), backend);
    }
    let mut backend = fields("IngressBackend");
    backend.remove("service");
    backend.insert(
        "serviceName".to_owned(),
        json!({"description": "serviceName specifies the name of the referenced service.", "type": "string"}),
    );
    backend.insert(
        "servicePort".to_owned(),
        json!({
            "description": "servicePort Specifies the port of the referenced service.",
            "$ref": format!("{}{}", crate::schema::REFERENCE, IntOrString::schema_name()),
        }),
    );
    for (name, fields) in [("IngressSpec", spec), ("IngressBackend", backend)] {
        if let Some(schema) = schemas.get_mut(&format!("{package}.{name}")) {
            schema["properties"] = Value::Object(fields);
        }
    }
    if let Some(path) = schemas.get_mut(&format!("{package}.HTTPIngressPath")) {
        path["required"] = json!(["backend"]);
    }
}
