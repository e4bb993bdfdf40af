//! EndpointSlice (discovery.k8s.io/v1): the addresses of a Service as the service proxy and the DNS read them.

use std::collections::BTreeSet;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use serde_json::Value;

use super::endpoints::PROTOCOLS;
use crate::field::{FieldError, FieldErrors, immutable, one_of};
use crate::ip;
use crate::kind::{Column, Names};
use crate::metadata::{validate_labels, wrong};
use crate::names::{self, Wrong};
use crate::rules::{Judged, Rules};
use crate::table;

const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_TOPOLOGY: usize = 16;
const MAX_HINTS: usize = 8;
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

    /// The older way to say where an endpoint is can be read but not written. Source: `dropTopologyOnV1`.
    fn prepare_create(object: &mut EndpointSlice) {
        for endpoint in object.endpoints.iter_mut().flatten() {
            endpoint.deprecated_topology = None;
        }
    }

    fn prepare_update(new: &mut EndpointSlice, old: &EndpointSlice) {
        if new.endpoints != old.endpoints {
            Self::prepare_create(new);
        }
    }

    fn validate(object: &EndpointSlice) -> FieldErrors {
        let mut errors = validate_address_type(object);
        errors.extend(validate_endpoints(object));
        errors.extend(validate_ports(object.ports.as_deref().unwrap_or_default()));
        errors
    }

    fn validate_update(new: &EndpointSlice, old: &EndpointSlice) -> FieldErrors {
        immutable(&new.address_type, &old.address_type, "addressType")
    }

    /// Endpoints that were there before are not judged again. Source: `ValidateEndpointSlice`.
    fn judge_change(new: &EndpointSlice, old: &EndpointSlice) -> Option<Judged> {
        let mut errors = validate_address_type(new);
        if new.endpoints != old.endpoints {
            errors.extend(validate_endpoints(new));
        }
        errors.extend(validate_ports(new.ports.as_deref().unwrap_or_default()));
        errors.extend(Self::validate_update(new, old));
        Some(Judged {
            of_change: FieldErrors::new(),
            of_object: errors,
        })
    }

    fn warnings(
        object: &EndpointSlice,
        _written: &Value,
        _old: Option<(&EndpointSlice, &Value)>,
    ) -> Vec<String> {
        if object.address_type == "FQDN" {
            return vec!["spec.addressType: FQDN endpoints are deprecated".to_owned()];
        }
        let endpoints = object.endpoints.iter().flatten().enumerate();
        let addresses = endpoints.flat_map(|(i, endpoint)| {
            let addresses = endpoint.addresses.iter().enumerate();
            addresses.map(move |(j, address)| (format!("endpoints[{i}].addresses[{j}]"), address))
        });
        addresses
            .filter_map(|(at, address)| ip::address_warning(&at, address))
            .collect()
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

fn validate_address_type(object: &EndpointSlice) -> FieldErrors {
    match object.address_type.as_str() {
        "" => vec![FieldError::required("addressType", "")],
        kind => one_of(kind, &ADDRESS_TYPES, "addressType"),
    }
}

fn validate_endpoints(object: &EndpointSlice) -> FieldErrors {
    let endpoints = object.endpoints.as_deref().unwrap_or_default();
    if endpoints.len() > MAX_ENDPOINTS {
        return vec![FieldError::too_many(
            "endpoints",
            endpoints.len(),
            MAX_ENDPOINTS,
        )];
    }
    let judged = endpoints.iter().enumerate().flat_map(|(i, endpoint)| {
        validate_endpoint(endpoint, &object.address_type, &format!("endpoints[{i}]"))
    });
    judged.collect()
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
        errors.extend(validate_address(address, address_type, &addresses, i));
    }
    if let Some(node) = endpoint.node_name.as_deref() {
        errors.extend(wrong(
            &format!("{at}.nodeName"),
            node,
            names::dns_subdomain(node),
        ));
    }
    let topology = format!("{at}.deprecatedTopology");
    if let Some(labels) = &endpoint.deprecated_topology
        && labels.len() > MAX_TOPOLOGY
    {
        errors.push(FieldError::too_many(
            topology.clone(),
            labels.len(),
            MAX_TOPOLOGY,
        ));
    }
    errors.extend(validate_labels(
        endpoint.deprecated_topology.as_ref(),
        &topology,
    ));
    if let Some(hostname) = endpoint.hostname.as_deref() {
        errors.extend(wrong(
            &format!("{at}.hostname"),
            hostname,
            names::dns_label(hostname),
        ));
    }
    if let Some(hints) = &endpoint.hints {
        let zones = hints.for_zones.iter().flatten().map(|z| z.name.as_str());
        errors.extend(validate_hints(
            &zones.collect::<Vec<_>>(),
            names::label_value,
            &format!("{at}.hints.forZones"),
        ));
        let nodes = hints.for_nodes.iter().flatten().map(|n| n.name.as_str());
        errors.extend(validate_hints(
            &nodes.collect::<Vec<_>>(),
            names::dns_subdomain,
            &format!("{at}.hints.forNodes"),
        ));
    }
    errors
}

fn validate_address(address: &str, address_type: &str, list: &str, i: usize) -> FieldErrors {
    let at = format!("{list}[{i}]");
    let v6 = match address_type {
        "IPv4" => false,
        "IPv6" => true,
        "FQDN" => return validate_domain(address, &at),
        _ => return FieldErrors::new(),
    };
    let mut errors = wrong(&at, address, ip::address(address));
    if let Some(parsed) = ip::parse_loosely(address).filter(|_| errors.is_empty()) {
        if parsed.is_ipv6() != v6 {
            // Of the whole list, as Kubernetes has it.
            let words = format!("must be an {address_type} address");
            errors.push(FieldError::invalid(list, address, &words));
        }
        errors.extend(wrong(&at, address, names::endpoint_ip(parsed)));
    }
    errors
}

/// Source: `IsFullyQualifiedDomainName` in `k8s.io/apimachinery/pkg/util/validation`.
fn validate_domain(name: &str, at: &str) -> FieldErrors {
    if name.is_empty() {
        return vec![FieldError::required(at, "")];
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let bad = names::dns_subdomain(name);
    if !bad.is_empty() {
        return vec![FieldError::invalid(at, name, &bad.join(","))];
    }
    if !name.contains('.') {
        let words = "should be a domain with at least two segments separated by dots";
        return vec![FieldError::invalid(at, name, words)];
    }
    let labels = name
        .split('.')
        .map(|label| (label, names::dns_label(label)));
    labels
        .filter(|(_, bad)| !bad.is_empty())
        .map(|(label, bad)| FieldError::invalid(at, label, &bad.join(",")))
        .collect()
}

fn validate_hints(names: &[&str], rule: fn(&str) -> Wrong, at: &str) -> FieldErrors {
    if names.len() > MAX_HINTS {
        return vec![FieldError::too_many(at, names.len(), MAX_HINTS)];
    }
    let mut errors = FieldErrors::new();
    for (i, name) in names.iter().enumerate() {
        let at = format!("{at}[{i}].name");
        if names[..i].contains(name) {
            errors.push(FieldError::duplicate(at.clone(), name));
        }
        errors.extend(wrong(&at, *name, rule(name)));
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
            errors.push(FieldError::duplicate(format!("{at}.name"), name));
        }
        match port.protocol.as_deref() {
            None => errors.push(FieldError::required(format!("{at}.protocol"), "")),
            Some(protocol) => {
                errors.extend(one_of(protocol, &PROTOCOLS, &format!("{at}.protocol")));
            }
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
