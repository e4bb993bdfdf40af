//! The environment of a container, as a function of its Pod, of ConfigMaps, Secrets and Services. Pure.
//! Source: the kubelet's `makeEnvironmentVariables` (`pkg/kubelet/kubelet_pods.go`).

mod expand;
mod fields;
mod services;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};

pub use expand::expand;
pub use fields::{FieldError, PodFacts, field, resource};
pub use services::{ServiceEndpoint, ServicePort, service_variables};

/// A ConfigMap or a Secret, by the kind's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
    /// A token of the Pod's ServiceAccount.
    Token,
}

impl SourceKind {
    fn resource(self) -> &'static str {
        match self {
            SourceKind::ConfigMap => "configmap",
            SourceKind::Secret => "secret",
            SourceKind::Token => "token",
        }
    }

    fn kind(self) -> &'static str {
        match self {
            SourceKind::ConfigMap => "ConfigMap",
            SourceKind::Secret => "Secret",
            SourceKind::Token => "TokenRequest",
        }
    }
}

/// Names one ConfigMap or Secret of the Pod's namespace.
pub type SourceName = (SourceKind, String);

/// The keys of a ConfigMap or Secret.
pub type SourceData = BTreeMap<String, Vec<u8>>;

/// The ConfigMaps and Secrets that exist among those that were looked up.
pub type Sources = BTreeMap<SourceName, SourceData>;

/// The environment cannot be made; the container waits with `CreateContainerConfigError` and this message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A ConfigMap or Secret that does not exist.
    #[error("{} {name:?} not found", kind.resource())]
    NotFound {
        /// Which kind.
        kind: SourceKind,
        /// Its name.
        name: String,
    },
    /// A key that does not exist.
    #[error("couldn't find key {key} in {} {namespace}/{name}", kind.kind())]
    NoKey {
        /// Which kind.
        kind: SourceKind,
        /// Namespace of the Pod.
        namespace: String,
        /// Name of the object.
        name: String,
        /// The key.
        key: String,
    },
    /// A field that does not exist.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A way to give a value that is not here yet.
    #[error("environment variable {name}: valueFrom.{what} is not supported by seaway")]
    Unsupported {
        /// The variable.
        name: String,
        /// The field.
        what: &'static str,
    },
}

/// The environment, and what was left out of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// Name → value.
    pub variables: BTreeMap<String, String>,
    /// For each source in `envFrom`: the keys that cannot be names of variables.
    pub skipped: Vec<(SourceName, Vec<String>)>,
}

/// The ConfigMaps and Secrets that a container's environment needs.
pub fn references(container: &Container) -> BTreeSet<SourceName> {
    let mut names = BTreeSet::new();
    for source in container.env_from.iter().flatten() {
        if let Some(reference) = &source.config_map_ref {
            names.insert((SourceKind::ConfigMap, reference.name.clone()));
        }
        if let Some(reference) = &source.secret_ref {
            names.insert((SourceKind::Secret, reference.name.clone()));
        }
    }
    for variable in container.env.iter().flatten() {
        let Some(from) = &variable.value_from else {
            continue;
        };
        if let Some(reference) = &from.config_map_key_ref {
            names.insert((SourceKind::ConfigMap, reference.name.clone()));
        }
        if let Some(reference) = &from.secret_key_ref {
            names.insert((SourceKind::Secret, reference.name.clone()));
        }
    }
    names
}

/// Makes the environment. `services` are the variables of the Services that the Pod may know.
pub fn environment(
    pod: &Pod,
    container: &Container,
    facts: &PodFacts,
    sources: &Sources,
    services: &BTreeMap<String, String>,
) -> Result<Environment, ConfigError> {
    let mut result = Environment::default();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or("");
        if let Some(reference) = &source.config_map_ref {
            let name = (SourceKind::ConfigMap, reference.name.clone());
            take_all(&mut result, sources, name, reference.optional, prefix)?;
        }
        if let Some(reference) = &source.secret_ref {
            let name = (SourceKind::Secret, reference.name.clone());
            take_all(&mut result, sources, name, reference.optional, prefix)?;
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (
            variable.value.as_deref().filter(|value| !value.is_empty()),
            &variable.value_from,
        ) {
            (Some(value), _) => expand(value, |name| {
                result
                    .variables
                    .get(name)
                    .or_else(|| services.get(name))
                    .map(String::as_str)
            }),
            (None, Some(from)) => {
                match value_from(pod, container, facts, sources, &variable.name, from)? {
                    Some(value) => value,
                    None => continue,
                }
            }
            (None, None) => String::new(),
        };
        result.variables.insert(variable.name.clone(), value);
    }
    for (name, value) in services {
        result
            .variables
            .entry(name.clone())
            .or_insert_with(|| value.clone());
    }
    Ok(result)
}

/// Adds every key of a ConfigMap or Secret.
fn take_all(
    result: &mut Environment,
    sources: &Sources,
    name: SourceName,
    optional: Option<bool>,
    prefix: &str,
) -> Result<(), ConfigError> {
    let Some(data) = sources.get(&name) else {
        if optional == Some(true) {
            return Ok(());
        }
        return Err(ConfigError::NotFound {
            kind: name.0,
            name: name.1,
        });
    };
    let mut skipped = Vec::new();
    for (key, value) in data {
        let variable = format!("{prefix}{key}");
        if valid_name(&variable) {
            result
                .variables
                .insert(variable, String::from_utf8_lossy(value).into_owned());
        } else {
            skipped.push(variable);
        }
    }
    if !skipped.is_empty() {
        result.skipped.push((name, skipped));
    }
    Ok(())
}

/// Printable ASCII without `=` (`IsRelaxedEnvVarName`).
fn valid_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=')
}

/// `None` leaves the variable out: an optional source that does not exist.
fn value_from(
    pod: &Pod,
    container: &Container,
    facts: &PodFacts,
    sources: &Sources,
    variable: &str,
    from: &EnvVarSource,
) -> Result<Option<String>, ConfigError> {
    if let Some(reference) = &from.field_ref {
        return Ok(Some(field(pod, facts, &reference.field_path)?));
    }
    if let Some(reference) = &from.resource_field_ref {
        return Ok(Some(resource(pod, container, facts, reference)?));
    }
    let (kind, name, key, optional) = if let Some(reference) = &from.config_map_key_ref {
        (
            SourceKind::ConfigMap,
            &reference.name,
            &reference.key,
            reference.optional,
        )
    } else if let Some(reference) = &from.secret_key_ref {
        (
            SourceKind::Secret,
            &reference.name,
            &reference.key,
            reference.optional,
        )
    } else if from.file_key_ref.is_some() {
        return Err(ConfigError::Unsupported {
            name: variable.to_owned(),
            what: "fileKeyRef",
        });
    } else {
        return Ok(Some(String::new()));
    };
    let optional = optional == Some(true);
    let Some(data) = sources.get(&(kind, name.clone())) else {
        return if optional {
            Ok(None)
        } else {
            Err(ConfigError::NotFound {
                kind,
                name: name.clone(),
            })
        };
    };
    match data.get(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional => Ok(None),
        None => Err(ConfigError::NoKey {
            kind,
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: name.clone(),
            key: key.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn facts() -> PodFacts {
        PodFacts {
            pod_ip: "10.244.1.5".parse().unwrap(),
            host_ip: "10.87.0.2".parse().unwrap(),
            node_name: "node-1".into(),
            node_cpu: crate::quantity::Amount::whole(4),
            node_memory: crate::quantity::Amount::whole(1 << 33),
        }
    }

    fn make(container: Value, sources: &Sources) -> Result<Environment, ConfigError> {
        let mut container = container;
        container["name"] = json!("main");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": [container]},
        }))
        .unwrap();
        let services = BTreeMap::from([("WEB_SERVICE_HOST".to_owned(), "10.96.0.9".to_owned())]);
        environment(
            &pod,
            &pod.spec.as_ref().unwrap().containers[0],
            &facts(),
            sources,
            &services,
        )
    }

    fn sources() -> Sources {
        let data = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()))
                .collect::<SourceData>()
        };
        Sources::from([
            (
                (SourceKind::ConfigMap, "settings".into()),
                data(&[("COLOUR", "blue"), ("bad=key", "x"), ("A", "cm")]),
            ),
            (
                (SourceKind::Secret, "passwords".into()),
                data(&[("DB", "s3cret")]),
            ),
        ])
    }

    fn variables(container: Value) -> Vec<String> {
        let environment = make(container, &sources()).unwrap();
        environment
            .variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    #[test]
    fn values_see_earlier_variables_and_services() {
        let made = variables(json!({"env": [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)/$(LATER)/$(WEB_SERVICE_HOST)"},
            {"name": "LATER", "value": "2"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ]}));
        assert_eq!(
            made,
            [
                "A=1",
                "B=1/$(LATER)/10.96.0.9",
                "LATER=2",
                "NODE=node-1",
                "WEB_SERVICE_HOST=10.96.0.9"
            ]
        );
    }

    #[test]
    fn env_wins_over_env_from_and_over_services() {
        let made = variables(json!({
            "envFrom": [{"configMapRef": {"name": "settings"}}, {"prefix": "P_", "secretRef": {"name": "passwords"}}],
            "env": [{"name": "A", "value": "own"}, {"name": "WEB_SERVICE_HOST", "value": "mine"}],
        }));
        assert_eq!(
            made,
            [
                "A=own",
                "COLOUR=blue",
                "P_DB=s3cret",
                "WEB_SERVICE_HOST=mine"
            ]
        );
    }

    #[test]
    fn keys_that_cannot_be_names_are_reported() {
        let made = make(
            json!({"envFrom": [{"configMapRef": {"name": "settings"}}]}),
            &sources(),
        )
        .unwrap();
        assert_eq!(
            made.skipped,
            [(
                (SourceKind::ConfigMap, "settings".to_owned()),
                vec!["bad=key".to_owned()]
            )]
        );
    }

    #[test]
    fn missing_sources_are_the_kubelets_errors() {
        for (container, message) in [
            (
                json!({"envFrom": [{"configMapRef": {"name": "none"}}]}),
                "configmap \"none\" not found",
            ),
            (
                json!({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k"}}}]}),
                "secret \"none\" not found",
            ),
            (
                json!({"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "k"}}}]}),
                "couldn't find key k in ConfigMap ns/settings",
            ),
            (
                json!({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "passwords", "key": "k"}}}]}),
                "couldn't find key k in Secret ns/passwords",
            ),
        ] {
            assert_eq!(
                make(container, &sources()).unwrap_err().to_string(),
                message
            );
        }
    }

    #[test]
    fn optional_sources_leave_the_variable_out() {
        let made = variables(json!({
            "envFrom": [{"secretRef": {"name": "none", "optional": true}}],
            "env": [
                {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": true}}},
                {"name": "Y", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "k", "optional": true}}},
                {"name": "Z"},
            ],
        }));
        assert_eq!(made, ["WEB_SERVICE_HOST=10.96.0.9", "Z="]);
    }

    #[test]
    fn references_name_every_source_once() {
        let container: Container = serde_json::from_value(json!({
            "name": "main",
            "envFrom": [{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "b"}}],
            "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "k"}}}],
        }))
        .unwrap();
        let names: Vec<_> = references(&container).into_iter().collect();
        assert_eq!(
            names,
            [
                (SourceKind::ConfigMap, "a".into()),
                (SourceKind::Secret, "b".into())
            ]
        );
    }

    proptest! {
        #[test]
        fn any_value_makes_an_environment(value in ".{0,40}", name in "[A-Z$()]{1,8}") {
            let made = make(json!({"env": [{"name": name, "value": value}]}), &sources()).unwrap();
            prop_assert_eq!(made.variables.len(), 2);
        }
    }
}
