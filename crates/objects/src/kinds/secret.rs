//! Secret: like a ConfigMap, but typed, and always bytes.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use super::config_map::DATA_MAX;
use crate::field::{FieldError, FieldErrors, immutable};
use crate::kind::{Column, Names};
use crate::metadata::wrong;
use crate::rules::Rules;
use crate::{names, table};

/// Keys that a type of Secret must have. Source: `ValidateSecret`.
const REQUIRED_KEYS: &[(&str, &[&str])] = &[
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

/// Names the ServiceAccount whose token a Secret holds.
const ACCOUNT: &str = "kubernetes.io/service-account.name";

pub(super) struct Secrets;

impl Rules for Secrets {
    type Object = Secret;

    const NAMES: Names = Names {
        group: "",
        version: "v1",
        kind: "Secret",
        plural: "secrets",
        singular: "secret",
        short_names: &[],
        categories: &[],
        namespaced: true,
    };

    fn default(object: &mut Secret) {
        object.type_.get_or_insert_with(|| "Opaque".to_owned());
        if let Some(texts) = object.string_data.take() {
            let data = object.data.get_or_insert_default();
            for (key, text) in texts {
                data.insert(key, ByteString(text.into_bytes()));
            }
        }
    }

    fn prepare_update(object: &mut Secret, old: &Secret) {
        if object.type_.as_deref().unwrap_or_default().is_empty() {
            object.type_.clone_from(&old.type_);
        }
    }

    fn validate(object: &Secret) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let mut size = 0;
        for (key, value) in object.data.iter().flatten() {
            errors.extend(wrong(
                &format!("data[{key}]"),
                key.as_str(),
                names::config_key(key),
            ));
            size += value.0.len();
        }
        if size > DATA_MAX {
            errors.push(FieldError::too_long("data", DATA_MAX));
        }
        let of_type = object.type_.as_deref().unwrap_or_default();
        let has = |key: &str| object.data.as_ref().is_some_and(|d| d.contains_key(key));
        for (_, keys) in REQUIRED_KEYS.iter().filter(|(name, _)| *name == of_type) {
            for key in keys.iter().filter(|key| !has(key)) {
                errors.push(FieldError::required(format!("data[{key}]"), ""));
            }
        }
        if of_type == "kubernetes.io/service-account-token" {
            let annotations = object.metadata.annotations.as_ref();
            let account = annotations.and_then(|a| a.get(ACCOUNT));
            if account.is_none_or(String::is_empty) {
                errors.push(FieldError::required(
                    format!("metadata.annotations[{ACCOUNT}]"),
                    "",
                ));
            }
        }
        if of_type == "kubernetes.io/basic-auth" && !has("username") && !has("password") {
            errors.push(FieldError::required("data[username]", ""));
            errors.push(FieldError::required("data[password]", ""));
        }
        errors
    }

    fn validate_update(new: &Secret, old: &Secret) -> FieldErrors {
        let mut errors = immutable(&new.type_, &old.type_, "type");
        if old.immutable == Some(true) {
            let words = "field is immutable when `immutable` is set";
            if new.immutable != Some(true) {
                errors.push(FieldError::forbidden("immutable", words));
            }
            if new.data != old.data {
                errors.push(FieldError::forbidden("data", words));
            }
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            table::name_column(),
            table::column("Type", "string", table::documented::<Secret>("type")),
            table::column("Data", "string", table::documented::<Secret>("data")),
            table::age_column(),
        ]
    }

    fn cells(object: &Secret, now: i64) -> Vec<Value> {
        vec![
            table::name(&object.metadata),
            Value::from(object.type_.as_deref().unwrap_or_default()),
            Value::from(object.data.as_ref().map_or(0, |d| d.len())),
            table::age(&object.metadata, now),
        ]
    }

    fn fields(object: &Secret) -> Vec<(&'static str, String)> {
        vec![("type", object.type_.clone().unwrap_or_default())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;
    use serde_json::json;

    #[test]
    fn text_becomes_bytes_and_wins_over_data() {
        let kind = kinds::find("", "v1", "secrets").expect("secrets");
        let mut secret = json!({"metadata": {"name": "s"}, "data": {"a": "b2xk", "b": "Yg=="}, "stringData": {"a": "new"}});
        kind.default(&mut secret);
        assert_eq!(secret["data"], json!({"a": "bmV3", "b": "Yg=="}));
        assert_eq!(secret["type"], "Opaque");
        assert!(secret.get("stringData").is_none());
    }

    #[test]
    fn the_type_says_which_keys_there_must_be_and_never_changes() {
        let of = |name: &str| Secret {
            type_: Some(name.to_owned()),
            ..Secret::default()
        };
        assert_eq!(Secrets::validate(&of("Opaque")), vec![]);
        let fields: Vec<String> = Secrets::validate(&of("kubernetes.io/tls"))
            .into_iter()
            .map(|e| e.field)
            .collect();
        assert_eq!(fields, ["data[tls.crt]", "data[tls.key]"]);
        assert_eq!(
            Secrets::validate_update(&of("a"), &of("Opaque"))[0].to_string(),
            "type: Invalid value: \"a\": field is immutable"
        );
    }
}
