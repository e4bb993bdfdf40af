//! IngressClass (networking.k8s.io/v1): which controller looks after which Ingresses.
//!
//! Source: `pkg/apis/networking/validation`, `ValidateIngressClass`.

use k8s_openapi::api::networking::v1::{
    IngressClass, IngressClassParametersReference, IngressClassSpec,
};
use serde_json::Value;

use super::ingress::typed_reference;
use crate::field::{FieldError, FieldErrors, immutable, one_of};
use crate::kind::{Column, Names};
use crate::metadata::wrong;
use crate::names;
use crate::rules::Rules;
use crate::table;

/// On the class that Ingresses get which name none.
pub const DEFAULT_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

const CONTROLLER_MAX: usize = 250;
const CLUSTER: &str = "Cluster";
const NAMESPACE: &str = "Namespace";

pub(super) struct IngressClasses;

impl Rules for IngressClasses {
    type Object = IngressClass;

    const NAMES: Names = Names {
        group: "networking.k8s.io",
        version: "v1",
        kind: "IngressClass",
        plural: "ingressclasses",
        singular: "ingressclass",
        short_names: &[],
        categories: &[],
        namespaced: false,
    };
    const GENERATION: bool = true;

    fn default(object: &mut IngressClass) {
        let spec = object.spec.get_or_insert_default();
        if let Some(parameters) = &mut spec.parameters {
            parameters.scope.get_or_insert_with(|| CLUSTER.to_owned());
        }
    }

    fn validate(object: &IngressClass) -> FieldErrors {
        let spec = object.spec.clone().unwrap_or_default();
        let mut errors = controller(&spec);
        if let Some(parameters) = &spec.parameters {
            errors.extend(reference(parameters, "spec.parameters"));
        }
        errors
    }

    fn validate_update(new: &IngressClass, old: &IngressClass) -> FieldErrors {
        let controller = |object: &IngressClass| {
            let spec = object.spec.clone().unwrap_or_default();
            spec.controller.unwrap_or_default()
        };
        immutable(&controller(new), &controller(old), "spec.controller")
    }

    fn columns() -> Vec<Column> {
        vec![
            table::name_column(),
            table::column(
                "Controller",
                "string",
                "Controller that is responsible for handling this class",
            ),
            table::column(
                "Parameters",
                "string",
                "A reference to a resource with additional parameters",
            ),
            table::age_column(),
        ]
    }

    fn cells(object: &IngressClass, now: i64) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let parameters = spec.parameters.map(|parameters| {
            let group = parameters.api_group.map(|group| format!(".{group}"));
            let group = group.unwrap_or_default();
            format!("{}{group}/{}", parameters.kind, parameters.name)
        });
        vec![
            table::name(&object.metadata),
            Value::from(spec.controller.unwrap_or_default()),
            Value::from(parameters.unwrap_or_else(|| table::NONE.to_owned())),
            table::age(&object.metadata, now),
        ]
    }
}

fn controller(spec: &IngressClassSpec) -> FieldErrors {
    let at = "spec.controller";
    let name = spec.controller.as_deref().unwrap_or_default();
    if name.is_empty() {
        return vec![FieldError::required(at, "")];
    }
    let mut errors = FieldErrors::new();
    if name.len() > CONTROLLER_MAX {
        errors.push(FieldError::too_long(at, CONTROLLER_MAX));
    }
    for (part, why) in names::domain_prefixed_path(name) {
        errors.push(FieldError::invalid(at, part, &why));
    }
    errors
}

fn reference(to: &IngressClassParametersReference, at: &str) -> FieldErrors {
    let mut errors = typed_reference(to.api_group.as_deref(), &to.kind, &to.name, at);
    let scope_at = format!("{at}.scope");
    let namespace_at = format!("{at}.namespace");
    match (to.scope.as_deref(), to.namespace.as_deref()) {
        (None, _) => errors.push(FieldError::required(scope_at, "")),
        (Some(NAMESPACE), None) => errors.push(FieldError::required(
            namespace_at,
            "`parameters.scope` is set to 'Namespace'",
        )),
        (Some(NAMESPACE), Some(namespace)) => {
            errors.extend(wrong(&namespace_at, namespace, names::dns_label(namespace)))
        }
        (Some(CLUSTER), Some(_)) => errors.push(FieldError::forbidden(
            namespace_at,
            "`parameters.scope` is set to 'Cluster'",
        )),
        (Some(CLUSTER), None) => {}
        (Some(other), _) => errors.extend(one_of(other, &[CLUSTER, NAMESPACE], &scope_at)),
    }
    errors
}

#[cfg(test)]
mod tests {
    use crate::kinds;
    use serde_json::{Value, json};

    fn class(spec: Value) -> Value {
        let kind = kinds::find("networking.k8s.io", "v1", "ingressclasses").expect("a kind");
        let mut object = json!({"metadata": {"name": "c"}, "spec": spec});
        kind.default(&mut object);
        object
    }

    fn wrong(spec: Value) -> Vec<String> {
        let kind = kinds::find("networking.k8s.io", "v1", "ingressclasses").expect("a kind");
        let errors = kind.validate(&class(spec));
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_controller_is_a_path_in_a_domain_and_stays_the_same() {
        assert_eq!(wrong(json!({"controller": "a.io/b/c"})), [""; 0]);
        assert_eq!(wrong(json!({})), ["spec.controller: Required value"]);
        assert_eq!(
            wrong(json!({"controller": "a.io"})),
            [
                "spec.controller: Invalid value: \"a.io\": must be a domain-prefixed path (such as \\\"acme.io/foo\\\")".replace("\\\"", "\"")
            ]
        );
        assert_eq!(
            wrong(json!({"controller": "a.io/b c"})),
            [
                "spec.controller: Invalid value: \"b c\": Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')"
            ]
        );
        assert_eq!(
            wrong(json!({"controller": format!("a.io/{}", "x".repeat(250))})),
            ["spec.controller: Too long: may not be more than 250 bytes"]
        );
        let kind = kinds::find("networking.k8s.io", "v1", "ingressclasses").expect("a kind");
        let (old, new) = (
            class(json!({"controller": "a.io/b"})),
            class(json!({"controller": "a.io/c"})),
        );
        let errors = kind.validate_update(&new, &old);
        assert_eq!(
            errors[0].to_string(),
            "spec.controller: Invalid value: \"a.io/c\": field is immutable"
        );
    }

    #[test]
    fn parameters_are_of_the_cluster_or_of_a_namespace() {
        let parameters = |more: Value| {
            let mut parameters = json!({"kind": "K", "name": "n"});
            for (key, value) in more.as_object().expect("a map") {
                parameters[key] = value.clone();
            }
            wrong(json!({"controller": "a.io/b", "parameters": parameters}))
        };
        assert_eq!(parameters(json!({})), [""; 0]);
        assert_eq!(
            parameters(json!({"scope": "Namespace", "namespace": "x"})),
            [""; 0]
        );
        assert_eq!(
            parameters(json!({"scope": "Namespace"})),
            ["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"]
        );
        assert_eq!(
            parameters(json!({"namespace": "x"})),
            ["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"]
        );
        assert_eq!(
            parameters(json!({"scope": "World", "kind": ""})),
            [
                "spec.parameters.kind: Required value: kind is required",
                "spec.parameters.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespace\"",
            ]
        );
    }

    #[test]
    fn a_row_shows_where_the_parameters_are() {
        let kind = kinds::find("networking.k8s.io", "v1", "ingressclasses").expect("a kind");
        let object = class(
            json!({"controller": "a.io/b", "parameters": {"apiGroup": "x.io", "kind": "K", "name": "n"}}),
        );
        assert_eq!(
            kind.cells(&object, 0)[..3],
            [json!("c"), json!("a.io/b"), json!("K.x.io/n")]
        );
    }
}
