//! The part of an object's metadata that belongs to the server.
//! Source: API conventions, "Metadata"; `k8s.io/apiserver/pkg/registry/rest`, `BeforeCreate` and `BeforeUpdate`.

use jiff::Timestamp;
use rand::Rng;
use serde_json::Value;

use seaway_objects::field::FieldError;
use seaway_objects::kind::Names;

use crate::object::{metadata_mut, text, version};
use crate::registry::Resource;
use crate::status::ApiError;

/// Longest name that is generated, and how much of it is random.
const GENERATED: usize = 63;
const RANDOM: usize = 5;
/// No vowels, and nothing that looks like something else.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Now, as API objects say it (RFC 3339, whole seconds).
pub(crate) fn now() -> String {
    timestamp(Timestamp::now())
}

/// A time, as API objects say it.
pub(crate) fn timestamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Takes out of a new object what the system alone may say of it.
/// Source: `WipeObjectMetaSystemFields` in `k8s.io/apiserver/pkg/registry/rest`.
pub(crate) fn forget_systems(object: &mut Value) {
    let metadata = metadata_mut(object);
    for field in [
        "creationTimestamp",
        "uid",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
    ] {
        metadata.remove(field);
    }
}

/// The system's fields of a new object. The name must be there.
pub(crate) fn prepare_create(object: &mut Value, namespace: &str) {
    forget_systems(object);
    let metadata = metadata_mut(object);
    metadata.remove("resourceVersion");
    metadata.remove("generation");
    if !namespace.is_empty() {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".to_owned(), now().into());
}

/// Carries the system's fields over to a changed object, and refuses a change that was meant for another state of it.
/// What a client may not change, but tries to, stays in the object for validation to refuse.
/// Source: `BeforeUpdate` in `k8s.io/apiserver/pkg/registry/rest`, and `Store.Update`.
pub(crate) fn prepare_update(
    resource: &Resource,
    name: &str,
    object: &mut Value,
    old: &Value,
) -> Result<(), ApiError> {
    match version(object) {
        "" | "0" if !resource.kind.unconditional_update() => {
            let error = FieldError::invalid(
                "metadata.resourceVersion",
                0,
                "must be specified for an update",
            );
            // Kubernetes names the resource here where it names the kind elsewhere.
            let names = Names {
                kind: resource.stored.plural,
                ..resource.stored.clone()
            };
            return Err(ApiError::invalid(&names, name, &vec![error]));
        }
        "" | "0" => {}
        sent if sent != version(old) => return Err(ApiError::modified(resource.stored, name)),
        _ => {}
    }
    let metadata = metadata_mut(object);
    let before = &old["metadata"];
    for field in [
        "namespace",
        "creationTimestamp",
        "generation",
        "resourceVersion",
        "selfLink",
    ] {
        match before.get(field) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    for field in ["uid", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let is_sent = metadata
            .get(field)
            .is_some_and(|v| !v.is_null() && *v != "");
        if let Some(had) = before.get(field)
            && (!is_sent || field == "deletionTimestamp")
        {
            metadata.insert(field.to_owned(), had.clone());
        }
    }
    Ok(())
}

/// A name that begins as the client wants.
pub(crate) fn generate_name(base: &str) -> String {
    let mut end = base.len().min(GENERATED - RANDOM);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut rng = rand::rng();
    let random = (0..RANDOM).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]));
    base[..end].chars().chain(random).collect()
}

/// Whether the object is being deleted.
pub(crate) fn is_terminating(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// Whether anybody wants to do something before a deleted object goes: finalizers of the object, or of what is in a
/// Namespace (`spec.finalizers`, which no other kind has).
pub(crate) fn has_finalizers(object: &Value) -> bool {
    ["/metadata/finalizers", "/spec/finalizers"]
        .iter()
        .any(|pointer| {
            object
                .pointer(pointer)
                .and_then(Value::as_array)
                .is_some_and(|list| !list.is_empty())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn generated_names_begin_as_asked_and_fit_a_label() {
        let name = generate_name(&"x".repeat(80));
        assert_eq!(name.len(), 63);
        assert!(generate_name("web-").starts_with("web-"));
        assert_ne!(generate_name("web-"), generate_name("web-"));
    }

    #[test]
    fn a_client_cannot_write_the_systems_fields() {
        let mut object = json!({"metadata": {"name": "a", "uid": "forged", "generation": 9, "deletionTimestamp": "x"}});
        prepare_create(&mut object, "d");
        assert_ne!(object["metadata"]["uid"], "forged");
        assert_eq!(object["metadata"].get("generation"), None);
        assert_eq!(object["metadata"].get("deletionTimestamp"), None);
        assert_eq!(object["metadata"]["namespace"], "d");
    }
}
