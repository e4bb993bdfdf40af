//! EndpointSlice (discovery.k8s.io/v1): the addresses of a Service as the service proxy and the DNS read them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use serde_json::Value;

use super::endpoints::PROTOCOLS;
use crate::field::{FieldError, FieldErrors, immutable, one_of};
use crate::kind::{Column, Names};
use crate::metadata::wrong;
use crate::names::{self, NOT_AN_IP};
use crate::rules::Rules;
use crate::table;

const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
/// So many addresses or ports a row of the table shows.
const SHOWN: usize = 3;

pub(super) struct EndpointSlices;

impl Rules for EndpointSlices {
    type Object = EndpointSlice;

    const NAMES: Names = Names {
        group: "discovery.k8s.io",
        version: "v1",
        kind: "EndpointSlice",
        plural: "endpointslices",
        singular: "endpointslice",
        short_names: &[],
        categories: &[],
        namespaced: true,
    };
    const GENERATION: bool = true;

    fn default(object: &mut EndpointSlice) {
        for port in object.ports.iter_mut().flatten() {
            port.name.get_or_insert_default();
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
        for endpoint in object.endpoints.iter_mut().flatten() {
            endpoint
                .conditions
                .get_or_insert_with(EndpointConditions::default);
        }
    }

    fn wants_change(new: &Value, old: &Value) -> bool {
        ["addressType", "endpoints", "ports"]
            .iter()
            .any(|field| new.get(field) != old.get(field))
            || new.pointer("/metadata/labels") != old.pointer("/metadata/labels")
    }

    fn validate(object: &EndpointSlice) -> FieldErrors {
        let mut errors = FieldErrors::new();
        match object.address_type.as_str() {
            "" => errors.push(FieldError::required("addressType", "")),
            kind => errors.extend(one_of(kind, &ADDRESS_TYPES, "addressType")),
        }
        let endpoints = object.endpoints.as_deref().unwrap_or_default();
        if endpoints.len() > MAX_ENDPOINTS {
            errors.push(FieldError::too_many(
                "endpoints",
                endpoints.len(),
                MAX_ENDPOINTS,
            ));
            return errors;
        }
        for (i, endpoint) in endpoints.iter().enumerate() {
            errors.extend(validate_endpoint(
                endpoint,
                &object.address_type,
                &format!("endpoints[{i}]"),
            ));
        }
        errors.extend(validate_ports(object.ports.as_deref().unwrap_or_default()));
        errors
    }

    fn validate_update(new: &EndpointSlice, old: &EndpointSlice) -> FieldErrors {
        immutable(&new.address_type, &old.address_type, "addressType")
    }

    fn columns() -> Vec<Column> {
        let text = table::documented::<EndpointSlice>;
        vec![
            table::name_column(),
            table::column("AddressType", "string", text("addressType")),
            table::column("Ports", "string", text("ports")),
            table::column("Endpoints", "string", text("endpoints")),
            table::age_column(),
        ]
    }

    fn cells(object: &EndpointSlice, now: i64) -> Vec<Value> {
        vec![
            table::name(&object.metadata),
            Value::from(object.address_type.clone()),
            Value::from(shown_ports(object.ports.as_deref())),
            Value::from(shown_addresses(
                object.endpoints.as_deref().unwrap_or_default(),
            )),
            table::age(&object.metadata, now),
        ]
    }
}

fn validate_endpoint(endpoint: &Endpoint, address_type: &str, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let addresses = format!("{at}.addresses");
    if endpoint.addresses.is_empty() {
        errors.push(FieldError::required(
            addresses.clone(),
            "must contain at least 1 address",
        ));
    } else if endpoint.addresses.len() > MAX_ADDRESSES {
        errors.push(FieldError::too_many(
            addresses.clone(),
            endpoint.addresses.len(),
            MAX_ADDRESSES,
        ));
    }
    for (i, address) in endpoint.addresses.iter().enumerate() {
        let one = format!("{addresses}[{i}]");
        if address_type == "FQDN" {
            errors.extend(wrong(&one, address.as_str(), names::dns_subdomain(address)));
            continue;
        }
        match (address.parse::<IpAddr>(), address_type) {
            (Err(_), _) => errors.push(FieldError::invalid(one, address, NOT_AN_IP)),
            (Ok(IpAddr::V6(_)), "IPv4") => {
                errors.push(FieldError::invalid(
                    addresses.clone(),
                    address,
                    "must be an IPv4 address",
                ));
            }
            (Ok(IpAddr::V4(_)), "IPv6") => {
                errors.push(FieldError::invalid(
                    addresses.clone(),
                    address,
                    "must be an IPv6 address",
                ));
            }
            (Ok(ip), _) => errors.extend(wrong(&one, address.as_str(), names::endpoint_ip(ip))),
        }
    }
    if let Some(node) = endpoint.node_name.as_deref() {
        errors.extend(wrong(
            &format!("{at}.nodeName"),
            node,
            names::dns_subdomain(node),
        ));
    }
    if let Some(hostname) = endpoint.hostname.as_deref() {
        errors.extend(wrong(
            &format!("{at}.hostname"),
            hostname,
            names::dns_label(hostname),
        ));
    }
    errors
}

fn validate_ports(ports: &[EndpointPort]) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if ports.len() > MAX_PORTS {
        return vec![FieldError::too_many("ports", ports.len(), MAX_PORTS)];
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = format!("ports[{i}]");
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            errors.extend(wrong(&format!("{at}.name"), name, names::dns_label(name)));
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate("ports", name));
        }
        match port.protocol.as_deref().unwrap_or_default() {
            "" => errors.push(FieldError::required(format!("{at}.protocol"), "")),
            protocol => errors.extend(one_of(protocol, &PROTOCOLS, &format!("{at}.protocol"))),
        }
        if let Some(app) = port.app_protocol.as_deref() {
            errors.extend(wrong(
                &format!("{at}.appProtocol"),
                app,
                names::qualified_name(app),
            ));
        }
    }
    errors
}

fn shown_ports(ports: Option<&[EndpointPort]>) -> String {
    let Some(ports) = ports else {
        return "*".to_owned();
    };
    let list = ports
        .iter()
        .map(|port| match (port.port, port.name.as_deref()) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) if !name.is_empty() => name.to_owned(),
            (None, _) => "*".to_owned(),
        });
    first_few(list)
}

fn shown_addresses(endpoints: &[Endpoint]) -> String {
    first_few(endpoints.iter().flat_map(|e| e.addresses.iter().cloned()))
}

fn first_few(list: impl Iterator<Item = String>) -> String {
    let list: Vec<String> = list.collect();
    match list.len() {
        0 => "<unset>".to_owned(),
        n if n > SHOWN => format!("{} + {} more...", list[..SHOWN].join(","), n - SHOWN),
        _ => list.join(","),
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds;
    use serde_json::{Value, json};

    fn errors(endpoint: Value, address_type: &str, port: Value) -> Vec<String> {
        let kind = kinds::find("discovery.k8s.io", "v1", "endpointslices").expect("endpointslices");
        let mut object = json!({"metadata": {"name": "s", "namespace": "d"}, "addressType": address_type,
            "endpoints": [endpoint], "ports": [port]});
        kind.default(&mut object);
        kind.validate(&object)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn what_no_endpoint_can_be_is_refused() {
        let port = || json!({"port": 80});
        assert_eq!(
            errors(json!({"addresses": ["10.1.2.3"]}), "IPv4", port()),
            [""; 0]
        );
        for (endpoint, kind, port, message) in [
            (
                json!({"addresses": ["nope"]}),
                "IPv4",
                port(),
                "endpoints[0].addresses[0]: Invalid value: \"nope\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ),
            (
                json!({"addresses": ["fd00::1"]}),
                "IPv4",
                port(),
                "endpoints[0].addresses: Invalid value: \"fd00::1\": must be an IPv4 address",
            ),
            (
                json!({"addresses": []}),
                "IPv4",
                port(),
                "endpoints[0].addresses: Required value: must contain at least 1 address",
            ),
            (
                json!({"addresses": ["10.1.2.3"]}),
                "IPv5",
                port(),
                "addressType: Unsupported value: \"IPv5\": supported values: \"FQDN\", \"IPv4\", \"IPv6\"",
            ),
            (
                json!({"addresses": ["127.0.0.1"]}),
                "IPv4",
                port(),
                "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ),
        ] {
            assert_eq!(errors(endpoint, kind, port), [message]);
        }
        assert_eq!(
            errors(
                json!({"addresses": ["10.1.2.3"]}),
                "IPv4",
                json!({"name": "A_B"})
            )
            .len(),
            1
        );
    }

    #[test]
    fn a_change_of_the_endpoints_raises_the_generation() {
        let kind = kinds::find("discovery.k8s.io", "v1", "endpointslices").expect("endpointslices");
        let old = json!({"metadata": {"name": "s", "generation": 3}, "addressType": "IPv4"});
        let mut same = old.clone();
        same["metadata"]["annotations"] = json!({"a": "b"});
        kind.prepare_update(&mut same, &old);
        assert_eq!(same["metadata"]["generation"], 3);
        let mut more = old.clone();
        more["endpoints"] = json!([{"addresses": ["10.0.0.1"]}]);
        kind.prepare_update(&mut more, &old);
        assert_eq!(more["metadata"]["generation"], 4);
    }
}
