//! Endpoints (core/v1): the addresses of a Service, in the old form that people still write by hand.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use serde_json::Value;

use crate::field::{FieldError, FieldErrors, one_of};
use crate::ip;
use crate::kind::{Column, Names};
use crate::metadata::wrong;
use crate::names;
use crate::rules::{Judged, Rules};
use crate::table;
use crate::version::Deprecation;

/// Protocols, in the order in which Kubernetes lists them.
pub(super) const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
/// So many addresses a row of the table shows.
const SHOWN: usize = 3;

pub(super) struct EndpointsKind;

impl Rules for EndpointsKind {
    type Object = Endpoints;

    const NAMES: Names = Names {
        group: "",
        version: "v1",
        kind: "Endpoints",
        plural: "endpoints",
        singular: "endpoints",
        short_names: &["ep"],
        categories: &[],
        namespaced: true,
    };

    const DEPRECATED: Option<Deprecation> = Some(Deprecation {
        since: "1.33",
        gone: None,
        instead: Some("discovery.k8s.io/v1 EndpointSlice"),
    });

    fn default(object: &mut Endpoints) {
        for port in object
            .subsets
            .iter_mut()
            .flatten()
            .flat_map(|s| s.ports.iter_mut().flatten())
        {
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
    }

    fn validate(object: &Endpoints) -> FieldErrors {
        validate_subsets(object, &BTreeSet::new())
    }

    /// What was there before is not judged again. Source: `ValidateEndpoints`.
    fn judge_change(new: &Endpoints, old: &Endpoints) -> Option<Judged> {
        let of_object = if new.subsets == old.subsets {
            FieldErrors::new()
        } else {
            validate_subsets(new, &addresses(old).map(|(_, a)| a.ip.as_str()).collect())
        };
        Some(Judged {
            of_change: FieldErrors::new(),
            of_object,
        })
    }

    fn warnings(
        object: &Endpoints,
        _written: &Value,
        _old: Option<(&Endpoints, &Value)>,
    ) -> Vec<String> {
        addresses(object)
            .filter_map(|(at, address)| ip::address_warning(&format!("{at}.ip"), &address.ip))
            .collect()
    }

    fn columns() -> Vec<Column> {
        vec![
            table::name_column(),
            table::column(
                "Endpoints",
                "string",
                table::documented::<Endpoints>("subsets"),
            ),
            table::age_column(),
        ]
    }

    fn cells(object: &Endpoints, now: i64) -> Vec<Value> {
        vec![
            table::name(&object.metadata),
            Value::from(shown(object.subsets.as_deref().unwrap_or_default())),
            table::age(&object.metadata, now),
        ]
    }
}

/// All addresses, each with its path.
fn addresses<'a>(object: &'a Endpoints) -> impl Iterator<Item = (String, &'a EndpointAddress)> {
    let subsets = object.subsets.iter().flatten().enumerate();
    subsets.flat_map(|(i, subset)| {
        let list = |name: &'static str, list: &'a Option<Vec<EndpointAddress>>| {
            let list = list.iter().flatten().enumerate();
            list.map(move |(j, address)| (format!("subsets[{i}].{name}[{j}]"), address))
        };
        list("addresses", &subset.addresses)
            .chain(list("notReadyAddresses", &subset.not_ready_addresses))
    })
}

fn validate_subsets(object: &Endpoints, before: &BTreeSet<&str>) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (i, subset) in object.subsets.iter().flatten().enumerate() {
        let at = format!("subsets[{i}]");
        let ready = subset.addresses.as_deref().unwrap_or_default();
        let not_ready = subset.not_ready_addresses.as_deref().unwrap_or_default();
        if ready.is_empty() && not_ready.is_empty() {
            errors.push(FieldError::required(
                at.clone(),
                "must specify `addresses` or `notReadyAddresses`",
            ));
        }
        for (list, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
            for (j, address) in addresses.iter().enumerate() {
                let known = before.contains(address.ip.as_str());
                errors.extend(validate_address(
                    address,
                    known,
                    &format!("{at}.{list}[{j}]"),
                ));
            }
        }
        let ports = subset.ports.as_deref().unwrap_or_default();
        for (j, port) in ports.iter().enumerate() {
            errors.extend(validate_port(
                port,
                ports.len() > 1,
                &format!("{at}.ports[{j}]"),
            ));
        }
    }
    errors
}

fn validate_address(address: &EndpointAddress, known: bool, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let field = format!("{at}.ip");
    if !known {
        errors.extend(wrong(&field, address.ip.as_str(), ip::address(&address.ip)));
    }
    if let Some(hostname) = address.hostname.as_deref().filter(|h| !h.is_empty()) {
        errors.extend(wrong(
            &format!("{at}.hostname"),
            hostname,
            names::dns_label(hostname),
        ));
    }
    if let Some(node) = address.node_name.as_deref() {
        errors.extend(wrong(
            &format!("{at}.nodeName"),
            node,
            names::dns_subdomain(node),
        ));
    }
    match ip::parse_loosely(&address.ip) {
        Some(parsed) => errors.extend(wrong(
            &field,
            address.ip.as_str(),
            names::endpoint_ip(parsed),
        )),
        // Kubernetes says it twice, once for the field and once for what an endpoint may be.
        None => errors.push(FieldError::invalid(
            field,
            &address.ip,
            "must be a valid IP address",
        )),
    }
    errors
}

fn validate_port(port: &EndpointPort, name_needed: bool, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    match port.name.as_deref().unwrap_or_default() {
        "" if name_needed => errors.push(FieldError::required(format!("{at}.name"), "")),
        "" => {}
        name => errors.extend(wrong(&format!("{at}.name"), name, names::dns_label(name))),
    }
    errors.extend(wrong(
        &format!("{at}.port"),
        port.port,
        names::port_number(port.port),
    ));
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
    errors
}

fn shown(subsets: &[EndpointSubset]) -> String {
    let mut list: Vec<String> = Vec::new();
    let mut count = 0;
    for subset in subsets {
        let addresses = subset.addresses.as_deref().unwrap_or_default();
        let ports = subset.ports.as_deref().unwrap_or_default();
        if ports.is_empty() {
            count += addresses.len();
            list.extend(addresses.iter().map(|a| a.ip.clone()));
        }
        for port in ports {
            count += addresses.len();
            list.extend(addresses.iter().map(|a| host_port(&a.ip, port.port)));
        }
    }
    list.truncate(SHOWN);
    let text = list.join(",");
    if count > SHOWN {
        format!("{text} + {} more...", count - SHOWN)
    } else {
        table::or_none(text)
    }
}

fn host_port(ip: &str, port: i32) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds;
    use serde_json::{Value, json};

    #[test]
    fn a_row_shows_three_addresses_and_counts_the_rest() {
        let kind = kinds::find("", "v1", "endpoints").expect("endpoints");
        let row = |subsets: Value| {
            kind.cells(&json!({"metadata": {"name": "e"}, "subsets": subsets}), 0)[1].clone()
        };
        let addresses = |n: usize| {
            (1..=n)
                .map(|i| json!({"ip": format!("10.0.0.{i}")}))
                .collect::<Vec<_>>()
        };
        assert_eq!(row(json!([])), "<none>");
        assert_eq!(
            row(json!([{"addresses": addresses(1), "ports": [{"port": 80}]}])),
            "10.0.0.1:80"
        );
        assert_eq!(
            row(json!([{"addresses": addresses(5), "ports": [{"port": 80}]}])),
            "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more..."
        );
        assert_eq!(
            row(json!([{"addresses": [{"ip": "fd00::1"}], "ports": [{"port": 80}]}])),
            "[fd00::1]:80"
        );
    }

    #[test]
    fn what_no_endpoint_can_be_is_refused() {
        let kind = kinds::find("", "v1", "endpoints").expect("endpoints");
        let errors = |subset: Value| {
            let mut object =
                json!({"metadata": {"name": "e", "namespace": "d"}, "subsets": [subset]});
            kind.default(&mut object);
            kind.validate(&object)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            errors(json!({"addresses": [{"ip": "10.0.0.9"}], "ports": [{"port": 80}]})),
            [""; 0]
        );
        assert_eq!(
            errors(json!({"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": 0}]})),
            [
                "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ]
        );
        assert_eq!(
            errors(json!({"ports": [{"port": 80}]})),
            ["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"]
        );
        assert_eq!(
            errors(
                json!({"addresses": [{"ip": "10.0.0.9"}], "ports": [{"port": 80}, {"port": 81}]})
            )
            .len(),
            2
        );
    }
}
