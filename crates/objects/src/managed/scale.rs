//! `managedFields` of an object as its `scale` subresource sees them, and back.
//! Source: `k8s.io/apimachinery/pkg/util/managedfields/scalehandler.go`.

use serde_json::Value;

use super::element::Element;
use super::entries::{Managed, Owned};
use super::set::Set;

/// The version of `Scale`.
pub const SCALE_VERSION: &str = "autoscaling/v1";

/// The entries of the object that own its number of replicas, as entries of its `Scale`. `replicas` is the path of
/// the number in the object, by field names.
pub fn to_scale(entries: Option<&Value>, replicas: &[&str]) -> Option<Value> {
    let managed = Managed::read(entries).ok()?;
    let path: Vec<Element> = replicas.iter().map(|name| Element::field(name)).collect();
    let mut scale = Managed::default();
    for (manager, owned) in managed.managers {
        if owned.set.has(&path) {
            let set = Set::of_fields(&[&["spec", "replicas"]]);
            if let Some(time) = managed.times.get(&manager) {
                scale.times.insert(manager.clone(), time.clone());
            }
            let owned = Owned {
                set,
                api_version: SCALE_VERSION.to_owned(),
                ..owned
            };
            scale.managers.insert(manager, owned);
        }
    }
    scale.write()
}

/// The entries of the object after its `Scale` got these. `api_version` is the version of the object.
pub fn to_object(
    entries: Option<&Value>,
    scale: Option<&Value>,
    api_version: &str,
    replicas: &[&str],
) -> Option<Value> {
    let before = Managed::read(entries).unwrap_or_default();
    let mut scale = Managed::read(scale).unwrap_or_default();
    let path: Vec<Element> = replicas.iter().map(|name| Element::field(name)).collect();
    let only = Set::of_fields(&[replicas]);
    let mut after = Managed {
        times: before.times,
        ..Managed::default()
    };
    for (manager, mut owned) in before.managers {
        if owned.set.has(&path) && scale.managers.remove(&manager).is_none() {
            // Somebody else set the number.
            owned.set = owned.set.difference(&only);
        }
        if !owned.set.is_empty() {
            after.managers.insert(manager, owned);
        }
    }
    let in_scale = [Element::field("spec"), Element::field("replicas")];
    for (manager, owned) in scale.managers {
        if owned.set.has(&in_scale) {
            // As in Kubernetes, without a time if the object did not know this manager.
            let owned = Owned {
                set: only.clone(),
                api_version: api_version.to_owned(),
                ..owned
            };
            after.managers.insert(manager, owned);
        }
    }
    after.write()
}
