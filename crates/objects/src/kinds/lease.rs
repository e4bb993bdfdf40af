//! Lease: node heartbeats and leader election.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use serde_json::Value;

use crate::field::{FieldError, FieldErrors, not_negative};
use crate::kind::{Column, Names};
use crate::rules::Rules;
use crate::table;

pub(super) struct Leases;

impl Rules for Leases {
    type Object = Lease;

    const NAMES: Names = Names {
        group: "coordination.k8s.io",
        version: "v1",
        kind: "Lease",
        plural: "leases",
        singular: "lease",
        short_names: &[],
        categories: &[],
        namespaced: true,
    };
    const UNCONDITIONAL_UPDATE: bool = false;

    fn validate(object: &Lease) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let Some(spec) = &object.spec else {
            return errors;
        };
        if let Some(seconds) = spec.lease_duration_seconds.filter(|s| *s <= 0) {
            errors.push(FieldError::invalid(
                "spec.leaseDurationSeconds",
                seconds,
                "must be greater than 0",
            ));
        }
        if let Some(transitions) = spec.lease_transitions {
            errors.extend(not_negative(transitions.into(), "spec.leaseTransitions"));
        }
        if spec.holder_identity.as_deref() == Some("") {
            errors.push(FieldError::invalid(
                "spec.holderIdentity",
                "",
                "must not be empty",
            ));
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            table::name_column(),
            table::column(
                "Holder",
                "string",
                table::documented::<LeaseSpec>("holderIdentity"),
            ),
            table::age_column(),
        ]
    }

    fn cells(object: &Lease, now: i64) -> Vec<Value> {
        let holder = object
            .spec
            .as_ref()
            .and_then(|s| s.holder_identity.as_deref());
        vec![
            table::name(&object.metadata),
            Value::from(holder.unwrap_or_default()),
            table::age(&object.metadata, now),
        ]
    }
}
