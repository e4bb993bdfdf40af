//! An Ingress that names no class gets the one that the cluster has for such, the newest if there are several.
//! Source: the `DefaultIngressClass` admission plugin.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde_json::Value;

use seaway_objects::kinds::ingress_class::DEFAULT_ANNOTATION;

use super::{Operation, Plugin, Request, Stage, Undo};
use crate::object::text;
use crate::status::ApiError;

/// Where the class of an Ingress stood before it had a field.
const ANNOTATION: &str = "kubernetes.io/ingress.class";

/// See the module.
#[derive(Default)]
pub(super) struct DefaultIngressClass {
    /// The classes that are marked as the default, by name, and when they were made.
    classes: Mutex<BTreeMap<String, String>>,
}

impl DefaultIngressClass {
    /// The newest class; of several that are as new, the first by name.
    fn chosen(&self) -> Option<String> {
        let classes = self.classes.lock();
        // Times are all written alike, so their texts compare as they do. The last of equal ones would win.
        let newest = classes.iter().rev().max_by_key(|(_, created)| *created);
        newest.map(|(name, _)| name.clone())
    }
}

impl Plugin for DefaultIngressClass {
    fn stage(&self) -> Stage {
        Stage::Admit
    }

    fn admit(&self, request: &Request<'_>, object: &mut Value) -> Result<Undo, ApiError> {
        let ingress =
            (request.kind.group, request.kind.plural) == ("networking.k8s.io", "ingresses");
        if !ingress || request.operation != Operation::Create || !request.subresource.is_empty() {
            return Ok(Undo::nothing());
        }
        let annotations = object.pointer("/metadata/annotations");
        let annotated = annotations.is_some_and(|all| all.get(ANNOTATION).is_some());
        let named = object.pointer("/spec/ingressClassName").is_some();
        if let (false, false, Some(class)) = (annotated, named, self.chosen()) {
            object["spec"]["ingressClassName"] = class.into();
        }
        Ok(Undo::nothing())
    }

    fn committed(&self, old: Option<&Value>, new: Option<&Value>) {
        let Some(object) = new.or(old) else {
            return;
        };
        if (text(object, "/apiVersion"), text(object, "/kind"))
            != ("networking.k8s.io/v1", "IngressClass")
        {
            return;
        }
        let name = text(object, "/metadata/name").to_owned();
        let annotations = new.and_then(|new| new.pointer("/metadata/annotations"));
        let is_default = annotations
            .and_then(|all| all.get(DEFAULT_ANNOTATION))
            .is_some_and(|value| value == "true");
        let mut classes = self.classes.lock();
        if is_default {
            let created = text(object, "/metadata/creationTimestamp").to_owned();
            classes.insert(name, created);
        } else {
            classes.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn class(name: &str, created: &str, default: &str) -> Value {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": name,
            "creationTimestamp": created, "annotations": {DEFAULT_ANNOTATION: default}}})
    }

    #[test]
    fn the_newest_default_class_is_chosen() {
        let plugin = DefaultIngressClass::default();
        assert_eq!(plugin.chosen(), None);
        let old = class("old", "2026-01-01T00:00:00Z", "true");
        plugin.committed(None, Some(&old));
        plugin.committed(None, Some(&class("b", "2026-01-02T00:00:00Z", "true")));
        plugin.committed(None, Some(&class("a", "2026-01-02T00:00:00Z", "true")));
        plugin.committed(None, Some(&class("new", "2026-01-03T00:00:00Z", "false")));
        assert_eq!(plugin.chosen().as_deref(), Some("a"));
        for name in ["a", "b"] {
            let before = class(name, "2026-01-02T00:00:00Z", "true");
            let after = class(name, "2026-01-02T00:00:00Z", "yes");
            plugin.committed(Some(&before), Some(&after));
        }
        assert_eq!(plugin.chosen().as_deref(), Some("old"));
        plugin.committed(Some(&old), None);
        assert_eq!(plugin.chosen(), None);
    }
}
