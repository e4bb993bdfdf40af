//! ServiceCIDR (networking.k8s.io/v1): a range that Services get their addresses from.
//!
//! Source: KEP-1880; `ValidateServiceCIDR` in `pkg/apis/networking/validation`.

use k8s_openapi::api::networking::v1::{ServiceCIDR, ServiceCIDRSpec};
use serde_json::Value;

use crate::field::{FieldError, FieldErrors};
use crate::ip;
use crate::kind::{Column, Names};
use crate::metadata::wrong;
use crate::rules::Rules;
use crate::table;

const AT: &str = "spec.cidrs";
const IMMUTABLE: &str = "field is immutable";

pub(super) struct ServiceCidrs;

impl Rules for ServiceCidrs {
    type Object = ServiceCIDR;

    const NAMES: Names = Names {
        group: "networking.k8s.io",
        version: "v1",
        kind: "ServiceCIDR",
        plural: "servicecidrs",
        singular: "servicecidr",
        short_names: &[],
        categories: &[],
        namespaced: false,
    };
    const STATUS: bool = true;

    fn validate(object: &ServiceCIDR) -> FieldErrors {
        let spec = object.spec.clone().unwrap_or_default();
        let cidrs = spec.cidrs.as_deref().unwrap_or_default();
        match cidrs {
            [] => return vec![FieldError::required(AT, "at least one CIDR required")],
            [_] => {}
            [first, second] if is_dual(first, second) => {}
            [_, _] => {
                return vec![FieldError::invalid(
                    AT,
                    shown(&spec),
                    "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
                )];
            }
            _ => {
                return vec![FieldError::invalid(
                    AT,
                    shown(&spec),
                    "may only hold up to 2 values",
                )];
            }
        }
        let each = cidrs.iter().enumerate().flat_map(|(i, cidr)| {
            wrong(
                &format!("{AT}[{i}]"),
                cidr.as_str(),
                ip::canonical_cidr(cidr),
            )
        });
        each.collect()
    }

    /// The ranges stay; only a second one of the other family may come.
    fn validate_update(new: &ServiceCIDR, old: &ServiceCIDR) -> FieldErrors {
        let list = |object: &ServiceCIDR| {
            let cidrs = object.spec.clone().and_then(|spec| spec.cidrs);
            cidrs.unwrap_or_default()
        };
        let (new, old) = (list(new), list(old));
        if new.len() != old.len() && (new.len(), old.len()) != (2, 1) {
            return vec![FieldError::invalid(AT, &new, IMMUTABLE)];
        }
        let changed = std::iter::zip(&new, &old)
            .enumerate()
            .filter(|(_, (new, old))| new != old);
        changed
            .map(|(i, (new, _))| FieldError::invalid(format!("{AT}[{i}]"), new, IMMUTABLE))
            .collect()
    }

    fn columns() -> Vec<Column> {
        vec![
            table::name_column(),
            table::column(
                "CIDRs",
                "string",
                table::documented::<ServiceCIDRSpec>("cidrs"),
            ),
            table::age_column(),
        ]
    }

    fn cells(object: &ServiceCIDR, now: i64) -> Vec<Value> {
        let cidrs = object.spec.as_ref().and_then(|spec| spec.cidrs.as_ref());
        vec![
            table::name(&object.metadata),
            Value::from(cidrs.map(|c| c.join(",")).unwrap_or_default()),
            table::age(&object.metadata, now),
        ]
    }
}

/// The words show Kubernetes' internal type.
fn shown(spec: &ServiceCIDRSpec) -> Value {
    serde_json::json!({"CIDRs": spec.cidrs})
}

/// Two ranges, one of each family. Source: `IsDualStackCIDRStrings` in `k8s.io/utils/net`.
fn is_dual(first: &str, second: &str) -> bool {
    match (
        ip::parse_cidr_loosely(first),
        ip::parse_cidr_loosely(second),
    ) {
        (Some((first, _)), Some((second, _))) => first.is_ipv6() != second.is_ipv6(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::Kind;
    use crate::kinds;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn kind() -> Arc<dyn Kind> {
        kinds::find("networking.k8s.io", "v1", "servicecidrs").expect("servicecidrs")
    }

    fn of(cidrs: Value) -> Value {
        json!({"metadata": {"name": "c"}, "spec": {"cidrs": cidrs}})
    }

    #[test]
    fn each_refusal_names_its_field_and_reason() {
        for (cidrs, message) in [
            (json!(["10.9.8.0/24"]), ""),
            (json!(["fd00:1::/64", "10.9.8.0/24"]), ""),
            (
                json!([]),
                "spec.cidrs: Required value: at least one CIDR required",
            ),
            (
                json!(["10.9.8.0/24", "10.9.9.0/24"]),
                "spec.cidrs: Invalid value: {\"CIDRs\":[\"10.9.8.0/24\",\"10.9.9.0/24\"]}: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
            ),
            (
                json!(["a/1", "b/2", "c/3"]),
                "spec.cidrs: Invalid value: {\"CIDRs\":[\"a/1\",\"b/2\",\"c/3\"]}: may only hold up to 2 values",
            ),
            (
                json!(["10.9.8.1/24"]),
                "spec.cidrs[0]: Invalid value: \"10.9.8.1/24\": must not have bits set beyond the prefix length",
            ),
            (
                json!(["FD00:1::/64"]),
                "spec.cidrs[0]: Invalid value: \"FD00:1::/64\": must be in canonical form (\"fd00:1::/64\")",
            ),
            (
                json!(["nonsense"]),
                "spec.cidrs[0]: Invalid value: \"nonsense\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ),
        ] {
            let errors = kind().validate(&of(cidrs.clone()));
            let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(text.join("; "), message, "{cidrs}");
        }
    }

    #[test]
    fn only_a_second_family_may_come_later() {
        let change = |old: Value, new: Value| {
            let errors = kind().validate_update(&of(new), &of(old));
            let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
            text.join("; ")
        };
        let v4 = "10.9.8.0/24";
        assert_eq!(change(json!([v4]), json!([v4, "fd00::/64"])), "");
        assert_eq!(
            change(json!([v4]), json!(["10.9.9.0/24"])),
            "spec.cidrs[0]: Invalid value: \"10.9.9.0/24\": field is immutable"
        );
        assert_eq!(
            change(json!([v4, "fd00::/64"]), json!([v4])),
            "spec.cidrs: Invalid value: [\"10.9.8.0/24\"]: field is immutable"
        );
    }

    #[test]
    fn a_row_shows_the_ranges() {
        let cells = kind().cells(&of(json!(["10.9.8.0/24", "fd00::/64"])), 0);
        assert_eq!(cells[1], "10.9.8.0/24,fd00::/64");
    }
}
