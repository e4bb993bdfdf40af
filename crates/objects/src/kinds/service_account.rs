//! ServiceAccount: what Pods run as.

use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::Value;

use crate::kind::{Column, Names};
use crate::rules::Rules;
use crate::table;

pub(super) struct ServiceAccounts;

impl Rules for ServiceAccounts {
    type Object = ServiceAccount;

    const NAMES: Names = Names {
        group: "",
        version: "v1",
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short_names: &["sa"],
        categories: &[],
        namespaced: true,
    };

    fn columns() -> Vec<Column> {
        vec![
            table::name_column(),
            table::column(
                "Secrets",
                "string",
                table::documented::<ServiceAccount>("secrets"),
            ),
            table::age_column(),
        ]
    }

    fn cells(object: &ServiceAccount, now: i64) -> Vec<Value> {
        vec![
            table::name(&object.metadata),
            Value::from(object.secrets.as_ref().map_or(0, Vec::len)),
            table::age(&object.metadata, now),
        ]
    }
}
