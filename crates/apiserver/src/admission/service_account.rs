//! Every Pod has a ServiceAccount, and finds in its containers a token of it with the certificate by which to know the
//! API server.
//! Source: the `ServiceAccount` admission plugin; KEP-1205 for the form of the volume.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rand::Rng;
use serde_json::{Value, json};

use super::stored::Stored;
use super::{Operation, Plugin, Request, Stage, Undo};
use crate::object::text;
use crate::status::ApiError;

const DEFAULT: &str = "default";
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME: &str = "kube-api-access-";
/// A little more than an hour: Kubernetes knows by it that nobody chose it.
const TOKEN_SECONDS: u32 = 3607;
const ROOT_CA: &str = "kube-root-ca.crt";
const FILE_MODE: u32 = 0o644;
/// A static Pod of a node, whose copy in the API must not differ from it.
const MIRROR: &str = "kubernetes.io/config.mirror";
const ENFORCES_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// How long the account of a new namespace is waited for, and how often it is looked for.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

/// See the module.
pub(super) struct ServiceAccount {
    pub(super) stored: Stored,
    /// Whether Pods get a token without asking.
    pub(super) mounts: bool,
}

impl Plugin for ServiceAccount {
    fn stage(&self) -> Stage {
        Stage::Admit
    }

    /// The controllers make the account of a new namespace in a moment.
    fn wait<'a>(
        &'a self,
        request: &'a Request<'_>,
        object: &'a Value,
    ) -> Option<BoxFuture<'a, ()>> {
        let waits =
            request.is_pod(Operation::Create) && matches!(account_name(object), "" | DEFAULT);
        let has = || {
            self.stored
                .get("serviceaccounts", request.namespace, DEFAULT)
                .is_some()
        };
        // A namespace that is not there, or going, gets none.
        let comes = || {
            let namespace = self.stored.get("namespaces", "", request.namespace);
            namespace.is_some_and(|namespace| !crate::metadata::is_terminating(&namespace))
        };
        if !waits || has() {
            return None;
        }
        let wait = async move {
            while !has() && comes() {
                tokio::time::sleep(PAUSE).await;
            }
        };
        Some(tokio::time::timeout(PATIENCE, wait).map(drop).boxed())
    }

    fn admit(&self, request: &Request<'_>, object: &mut Value) -> Result<Undo, ApiError> {
        if !request.is_pod(Operation::Create) || !object["spec"].is_object() {
            return Ok(Undo::nothing());
        }
        if object["metadata"]["annotations"].get(MIRROR).is_some() {
            return check_mirror(object)
                .map(|()| Undo::nothing())
                .map_err(|why| request.forbidden(object, why));
        }
        let name = match account_name(object) {
            "" => DEFAULT.to_owned(),
            name => name.to_owned(),
        };
        // Both names of the field, as Kubernetes shows them.
        object["spec"]["serviceAccount"] = name.as_str().into();
        object["spec"]["serviceAccountName"] = name.as_str().into();
        let Some(account) = self.stored.get("serviceaccounts", request.namespace, &name) else {
            let why = format!(
                "error looking up service account {}/{name}: serviceaccount \"{name}\" not found",
                request.namespace
            );
            return Err(request.forbidden(object, &why));
        };
        if account["metadata"]["annotations"][ENFORCES_SECRETS]
            .as_str()
            .is_some_and(|on| matches!(on, "1" | "t" | "T" | "true" | "TRUE" | "True"))
        {
            check_secrets(object, &account).map_err(|why| request.forbidden(object, &why))?;
        }
        if self.mounts && mounts_token(object, &account) {
            mount_token(object);
        }
        let pull = |of: &Value| {
            of["imagePullSecrets"]
                .as_array()
                .cloned()
                .unwrap_or_default()
        };
        if pull(&object["spec"]).is_empty() && !pull(&account).is_empty() {
            object["spec"]["imagePullSecrets"] = account["imagePullSecrets"].clone();
        }
        Ok(Undo::nothing())
    }
}

fn account_name(pod: &Value) -> &str {
    text(pod, "/spec/serviceAccountName")
}

fn list<'a>(of: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    of[field].as_array().into_iter().flatten()
}

fn check_mirror(pod: &Value) -> Result<(), &'static str> {
    if !account_name(pod).is_empty() {
        return Err("a mirror pod may not reference service accounts");
    }
    let secret = |source: &Value| !source["secret"].is_null();
    let sources = |volume: &Value| {
        list(&volume["projected"], "sources")
            .any(|s| secret(s) || !s["serviceAccountToken"].is_null())
    };
    if list(&pod["spec"], "volumes").any(|volume| secret(volume) || sources(volume)) {
        return Err("a mirror pod may not reference secrets");
    }
    Ok(())
}

/// The Pod's own word counts, then that of the account.
fn mounts_token(pod: &Value, account: &Value) -> bool {
    let says = |of: &Value| of["automountServiceAccountToken"].as_bool();
    says(&pod["spec"]).or_else(|| says(account)).unwrap_or(true)
}

fn mount_token(pod: &mut Value) {
    let volumes: Vec<Value> = list(&pod["spec"], "volumes").cloned().collect();
    let there = volumes
        .iter()
        .map(|volume| text(volume, "/name"))
        .find(|name| name.starts_with(VOLUME))
        .map(str::to_owned);
    let name = there.clone().unwrap_or_else(volume_name);
    let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT});
    let mut mounted = false;
    for field in ["initContainers", "containers"] {
        let containers = pod["spec"].get_mut(field).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            // What is mounted there already is what the author wants there.
            if list(container, "volumeMounts").any(|m| m["mountPath"] == MOUNT) {
                continue;
            }
            let mut mounts: Vec<Value> = list(container, "volumeMounts").cloned().collect();
            mounts.push(mount.clone());
            container["volumeMounts"] = Value::Array(mounts);
            mounted = true;
        }
    }
    if mounted && there.is_none() {
        let mut volumes = volumes;
        volumes.push(volume(&name));
        pod["spec"]["volumes"] = Value::Array(volumes);
    }
}

fn volume_name() -> String {
    let mut rng = rand::rng();
    let random: String = (0..5)
        .map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]))
        .collect();
    format!("{VOLUME}{random}")
}

fn volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": FILE_MODE, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": ROOT_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}

/// An account may say that its Pods use no Secrets but those that it names.
fn check_secrets(pod: &Value, account: &Value) -> Result<(), String> {
    let of = text(account, "/metadata/name");
    let named = |field: &str, name: &str| list(account, field).any(|one| one["name"] == name);
    for volume in list(&pod["spec"], "volumes") {
        let secret = text(volume, "/secret/secretName");
        if !secret.is_empty() && !named("secrets", secret) {
            return Err(format!(
                "volume with secret.secretName=\"{secret}\" is not allowed because service account {of} does not reference that secret"
            ));
        }
    }
    for (field, what) in [
        ("initContainers", "init container"),
        ("containers", "container"),
    ] {
        for container in list(&pod["spec"], field) {
            for variable in list(container, "env") {
                let secret = text(variable, "/valueFrom/secretKeyRef/name");
                if !secret.is_empty() && !named("secrets", secret) {
                    return Err(format!(
                        "{what} {} with envVar {} referencing secret.secretName=\"{secret}\" is not allowed because service account {of} does not reference that secret",
                        text(container, "/name"),
                        text(variable, "/name")
                    ));
                }
            }
        }
    }
    for (i, secret) in list(&pod["spec"], "imagePullSecrets").enumerate() {
        let secret = text(secret, "/name");
        if !named("imagePullSecrets", secret) {
            return Err(format!(
                "imagePullSecrets[{i}].name=\"{secret}\" is not allowed because service account {of} does not reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_gets_the_token_unless_it_has_something_there() {
        let mut pod = json!({"spec": {"initContainers": [{"name": "i"}], "containers": [
            {"name": "a", "volumeMounts": [{"name": "own", "mountPath": MOUNT}]}, {"name": "b"}]}});
        mount_token(&mut pod);
        let name = text(&pod, "/spec/volumes/0/name").to_owned();
        assert!(
            name.starts_with(VOLUME) && name.len() == VOLUME.len() + 5,
            "{name}"
        );
        let mount = json!([{"name": name, "readOnly": true, "mountPath": MOUNT}]);
        assert_eq!(pod["spec"]["initContainers"][0]["volumeMounts"], mount);
        assert_eq!(
            pod["spec"]["containers"][0]["volumeMounts"]
                .as_array()
                .map(Vec::len),
            Some(1)
        );
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"], mount);

        let once = pod.clone();
        mount_token(&mut pod);
        assert_eq!(pod, once);
    }

    #[test]
    fn the_pods_word_counts_before_that_of_its_account() {
        let says = |on: Value| json!({"automountServiceAccountToken": on});
        let pod = |on: Value| json!({"spec": says(on)});
        assert!(mounts_token(&pod(Value::Null), &json!({})));
        assert!(!mounts_token(&pod(Value::Null), &says(json!(false))));
        assert!(mounts_token(&pod(json!(true)), &says(json!(false))));
        assert!(!mounts_token(&pod(json!(false)), &json!({})));
    }

    #[test]
    fn an_account_can_say_which_secrets_its_pods_use() {
        let account = json!({"metadata": {"name": "a"}, "secrets": [{"name": "good"}]});
        let pod = |secret: &str| json!({"spec": {"volumes": [{"name": "v", "secret": {"secretName": secret}}]}});
        assert_eq!(check_secrets(&pod("good"), &account), Ok(()));
        assert_eq!(
            check_secrets(&pod("bad"), &account).unwrap_err(),
            "volume with secret.secretName=\"bad\" is not allowed because service account a does not reference that secret"
        );
    }
}
