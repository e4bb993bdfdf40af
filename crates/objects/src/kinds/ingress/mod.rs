//! Ingress (networking.k8s.io/v1): which requests from outside go to which Services.
//!
//! It is served in two older versions as well, see [`v1beta1`].

mod row;
#[cfg(test)]
mod tests;
pub(super) mod v1beta1;
mod validate;

use k8s_openapi::api::networking::v1::{Ingress, IngressStatus};
use serde_json::Value;

use self::validate::Allowed;
pub(super) use self::validate::typed_reference;
use crate::field::FieldErrors;
use crate::kind::{Column, Names};
use crate::rules::Rules;

/// Where the class of an Ingress stood before `spec.ingressClassName`.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

pub(super) struct Ingresses;

impl Rules for Ingresses {
    type Object = Ingress;

    const NAMES: Names = Names {
        group: "networking.k8s.io",
        version: "v1",
        kind: "Ingress",
        plural: "ingresses",
        singular: "ingress",
        short_names: &["ing"],
        categories: &[],
        namespaced: true,
    };
    const STATUS: bool = true;
    const GENERATION: bool = true;

    fn default(object: &mut Ingress) {
        // Plain structs in Go, so they are always there.
        object.spec.get_or_insert_default();
        show_status(object);
        let backends = object.spec.iter_mut().flat_map(|spec| {
            let paths = spec.rules.iter_mut().flatten();
            let paths = paths.filter_map(|rule| rule.http.as_mut());
            let paths = paths.flat_map(|http| &mut http.paths);
            let of_paths = paths.map(|path| &mut path.backend);
            spec.default_backend.iter_mut().chain(of_paths)
        });
        for service in backends.filter_map(|backend| backend.service.as_mut()) {
            service.port.get_or_insert_default();
        }
    }

    fn prepare_create(object: &mut Ingress) {
        show_status(object);
    }

    fn validate(object: &Ingress) -> FieldErrors {
        validate::new(object, Allowed::default())
    }

    fn validate_against(object: &Ingress, _written: &Value, old: &Ingress) -> FieldErrors {
        validate::ingress(object, Allowed::by(old))
    }

    fn validate_status(new: &Ingress, old: &Ingress) -> FieldErrors {
        validate::status(new, old)
    }

    fn warnings(
        object: &Ingress,
        _written: &Value,
        old: Option<(&Ingress, &Value)>,
    ) -> Vec<String> {
        let annotated = object.metadata.annotations.as_ref();
        let annotated = annotated.is_some_and(|all| all.contains_key(CLASS_ANNOTATION));
        let class = object
            .spec
            .as_ref()
            .and_then(|s| s.ingress_class_name.as_ref());
        if old.is_none() && annotated && class.is_none() {
            vec![format!(
                "annotation \"{CLASS_ANNOTATION}\" is deprecated, please use 'spec.ingressClassName' instead"
            )]
        } else {
            Vec::new()
        }
    }

    fn columns() -> Vec<Column> {
        row::columns()
    }

    fn cells(object: &Ingress, now: i64) -> Vec<Value> {
        row::cells(object, now)
    }
}

fn show_status(object: &mut Ingress) {
    object
        .status
        .get_or_insert_with(IngressStatus::default)
        .load_balancer
        .get_or_insert_default();
}
