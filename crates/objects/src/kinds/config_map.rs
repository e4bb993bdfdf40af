//! ConfigMap: configuration as text or bytes.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use crate::field::{FieldError, FieldErrors};
use crate::kind::{Column, Names};
use crate::metadata::wrong;
use crate::rules::Rules;
use crate::{names, table};

/// All values together, in bytes. Source: `MaxSecretSize`, core/v1.
pub(super) const DATA_MAX: usize = 1024 * 1024;

pub(super) struct ConfigMaps;

impl Rules for ConfigMaps {
    type Object = ConfigMap;

    const NAMES: Names = Names {
        group: "",
        version: "v1",
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short_names: &["cm"],
        categories: &[],
        namespaced: true,
    };

    fn validate(object: &ConfigMap) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let mut size = 0;
        for (key, value) in object.data.iter().flatten() {
            let at = format!("data[{key}]");
            errors.extend(wrong(&at, key.as_str(), names::config_key(key)));
            if object
                .binary_data
                .as_ref()
                .is_some_and(|b| b.contains_key(key))
            {
                errors.push(FieldError::invalid(
                    at,
                    key,
                    &format!("duplicate of key present in binaryData: {key}"),
                ));
            }
            size += value.len();
        }
        for (key, value) in object.binary_data.iter().flatten() {
            let at = format!("binaryData[{key}]");
            errors.extend(wrong(&at, key.as_str(), names::config_key(key)));
            size += value.0.len();
        }
        if size > DATA_MAX {
            errors.push(FieldError::too_long("", DATA_MAX));
        }
        errors
    }

    fn validate_update(new: &ConfigMap, old: &ConfigMap) -> FieldErrors {
        let mut errors = FieldErrors::new();
        if old.immutable == Some(true) {
            let words = "field is immutable when `immutable` is set";
            if new.immutable != Some(true) {
                errors.push(FieldError::forbidden("immutable", words));
            }
            if new.data != old.data {
                errors.push(FieldError::forbidden("data", words));
            }
            if new.binary_data != old.binary_data {
                errors.push(FieldError::forbidden("binaryData", words));
            }
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            table::name_column(),
            table::column("Data", "string", table::documented::<ConfigMap>("data")),
            table::age_column(),
        ]
    }

    fn cells(object: &ConfigMap, now: i64) -> Vec<Value> {
        let data = object.data.as_ref().map_or(0, |d| d.len());
        let binary = object.binary_data.as_ref().map_or(0, |d| d.len());
        vec![
            table::name(&object.metadata),
            Value::from(data + binary),
            table::age(&object.metadata, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn config(key: &str) -> ConfigMap {
        ConfigMap {
            data: Some([(key.to_owned(), "v".to_owned())].into()),
            ..ConfigMap::default()
        }
    }

    #[test]
    fn keys_are_file_names_and_stand_in_one_map_only() {
        assert_eq!(ConfigMaps::validate(&config("a.b_C-1")), vec![]);
        assert_eq!(ConfigMaps::validate(&config("a/b")).len(), 1);
        assert_eq!(ConfigMaps::validate(&config("..")).len(), 1);
        let mut both = config("a");
        both.binary_data = Some([("a".to_owned(), ByteString(vec![1]))].into());
        assert_eq!(
            ConfigMaps::validate(&both)[0].message,
            "Invalid value: \"a\": duplicate of key present in binaryData: a"
        );
    }

    #[test]
    fn an_immutable_one_stays_as_it_is() {
        let old = ConfigMap {
            immutable: Some(true),
            ..config("a")
        };
        assert_eq!(ConfigMaps::validate_update(&old, &old), vec![]);
        assert_eq!(ConfigMaps::validate_update(&config("b"), &old).len(), 2);
    }
}
