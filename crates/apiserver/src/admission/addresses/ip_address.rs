//! The IPAddress object that says which Service has an address.
//!
//! Source: KEP-1880; `newIPAddress` in `pkg/registry/core/service/ipallocator`.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::pools::Family;
use crate::object::text;

/// Label: the family of the address.
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
/// Label: who made the object.
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`].
const MANAGER: &str = "ipallocator.k8s.io";

/// Group, version and plural of IPAddresses.
pub(crate) const IP_ADDRESSES: (&str, &str, &str) = ("networking.k8s.io", "v1", "ipaddresses");

/// The object for an address of a Service, without what the server fills in.
pub(crate) fn of(ip: IpAddr, namespace: &str, service: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": ip.to_string(),
            "labels": {FAMILY: Family::of(ip).text(), MANAGED_BY: MANAGER},
        },
        "spec": {"parentRef": {
            "group": "", "resource": "services", "namespace": namespace, "name": service,
        }},
    })
}

/// Whether the object was made for a Service, as far as it says itself.
pub(crate) fn is_managed(object: &Value) -> bool {
    label(object, MANAGED_BY) == MANAGER
}

/// Whether its labels are as [`of`] makes them.
pub(crate) fn is_labelled(object: &Value) -> bool {
    let family = address(object).map(|ip| Family::of(ip).text());
    is_managed(object) && family == Some(label(object, FAMILY))
}

/// The address, which is the name.
pub(crate) fn address(object: &Value) -> Option<IpAddr> {
    text(object, "/metadata/name").parse().ok()
}

/// Namespace and name of the Service that it belongs to; `None` if it belongs to something else.
pub(crate) fn service(object: &Value) -> Option<(&str, &str)> {
    let of_service = text(object, "/spec/parentRef/group").is_empty()
        && text(object, "/spec/parentRef/resource") == "services";
    of_service.then(|| {
        (
            text(object, "/spec/parentRef/namespace"),
            text(object, "/spec/parentRef/name"),
        )
    })
}

fn label<'a>(object: &'a Value, name: &str) -> &'a str {
    object["metadata"]["labels"][name]
        .as_str()
        .unwrap_or_default()
}
