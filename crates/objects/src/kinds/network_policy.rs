//! NetworkPolicy (networking.k8s.io/v1): who may speak with which Pods.
//!
//! Source: `pkg/apis/networking/v1/defaults.go` and `pkg/apis/networking/validation` in Kubernetes.

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use crate::field::{FieldError, FieldErrors, one_of};
use crate::kind::{Column, Names};
use crate::metadata::{validate_label_selector, wrong};
use crate::rules::Rules;
use crate::selector::LabelSelector;
use crate::{ip, names, table};

const TYPES: [&str; 2] = ["Ingress", "Egress"];
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

pub(super) struct NetworkPolicies;

impl Rules for NetworkPolicies {
    type Object = NetworkPolicy;

    const NAMES: Names = Names {
        group: "networking.k8s.io",
        version: "v1",
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        singular: "networkpolicy",
        short_names: &["netpol"],
        categories: &[],
        namespaced: true,
    };
    const GENERATION: bool = true;

    fn default(object: &mut NetworkPolicy) {
        let spec = object.spec.get_or_insert_default();
        spec.pod_selector.get_or_insert_default();
        if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
            let egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
            let types = if egress { &TYPES[..] } else { &TYPES[..1] };
            spec.policy_types = Some(types.iter().map(|&t| t.to_owned()).collect());
        }
        let ingress = spec.ingress.iter_mut().flatten();
        let egress = spec.egress.iter_mut().flatten();
        let ports = ingress
            .flat_map(|rule| rule.ports.iter_mut().flatten())
            .chain(egress.flat_map(|rule| rule.ports.iter_mut().flatten()));
        for port in ports {
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
    }

    fn validate(object: &NetworkPolicy) -> FieldErrors {
        policy(object, &[])
    }

    fn validate_against(
        object: &NetworkPolicy,
        _written: &Value,
        old: &NetworkPolicy,
    ) -> FieldErrors {
        let known = cidrs(old);
        let known: Vec<&str> = known.iter().map(|(_, cidr)| *cidr).collect();
        policy(object, &known)
    }

    fn warnings(
        object: &NetworkPolicy,
        _written: &Value,
        _old: Option<(&NetworkPolicy, &Value)>,
    ) -> Vec<String> {
        let each = |(at, cidr): &(String, &str)| ip::cidr_warnings(at, cidr);
        cidrs(object).iter().flat_map(each).collect()
    }

    fn columns() -> Vec<Column> {
        let selector = table::documented::<NetworkPolicySpec>("podSelector");
        vec![
            table::name_column(),
            table::column("Pod-Selector", "string", selector),
            table::age_column(),
        ]
    }

    fn cells(object: &NetworkPolicy, now: i64) -> Vec<Value> {
        let selector = object.spec.as_ref().and_then(|s| s.pod_selector.as_ref());
        let selector = selector.cloned().unwrap_or_default();
        let text = match LabelSelector::from_object(Some(&selector)) {
            Ok(selector) => table::or_none(selector.to_string()),
            Err(_) => "<error>".to_owned(),
        };
        vec![
            table::name(&object.metadata),
            Value::from(text),
            table::age(&object.metadata, now),
        ]
    }
}

/// All ranges of a policy, with the paths of their fields.
fn cidrs(object: &NetworkPolicy) -> Vec<(String, &str)> {
    let Some(spec) = &object.spec else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for (at, peer) in peers(spec) {
        if let Some(block) = &peer.ip_block {
            all.push((format!("{at}.ipBlock.cidr"), block.cidr.as_str()));
            for (i, except) in block.except.iter().flatten().enumerate() {
                all.push((format!("{at}.ipBlock.except[{i}]"), except.as_str()));
            }
        }
    }
    all
}

/// One rule, whichever way it is for.
struct Rule<'a> {
    at: String,
    ports: &'a [NetworkPolicyPort],
    /// `from` or `to`
    side: &'static str,
    peers: &'a [NetworkPolicyPeer],
}

fn rules(spec: &NetworkPolicySpec) -> impl Iterator<Item = Rule<'_>> {
    let ingress = spec.ingress.iter().flatten().enumerate();
    let egress = spec.egress.iter().flatten().enumerate();
    ingress
        .map(|(i, rule)| Rule {
            at: format!("spec.ingress[{i}]"),
            ports: rule.ports.as_deref().unwrap_or_default(),
            side: "from",
            peers: rule.from.as_deref().unwrap_or_default(),
        })
        .chain(egress.map(|(i, rule)| Rule {
            at: format!("spec.egress[{i}]"),
            ports: rule.ports.as_deref().unwrap_or_default(),
            side: "to",
            peers: rule.to.as_deref().unwrap_or_default(),
        }))
}

fn peers(spec: &NetworkPolicySpec) -> impl Iterator<Item = (String, &NetworkPolicyPeer)> {
    rules(spec).flat_map(|rule| {
        let named = rule.peers.iter().enumerate();
        named.map(move |(i, peer)| (format!("{}.{}[{i}]", rule.at, rule.side), peer))
    })
}

/// `known` are the ranges that the policy had before, which may stay whatever they are.
fn policy(object: &NetworkPolicy, known: &[&str]) -> FieldErrors {
    let spec = object.spec.clone().unwrap_or_default();
    let selector = spec.pod_selector.clone().unwrap_or_default();
    let mut errors = validate_label_selector(&selector, "spec.podSelector");
    for rule in rules(&spec) {
        for (i, one) in rule.ports.iter().enumerate() {
            errors.extend(port(one, &format!("{}.ports[{i}]", rule.at)));
        }
        for (i, one) in rule.peers.iter().enumerate() {
            errors.extend(peer(one, &format!("{}.{}[{i}]", rule.at, rule.side), known));
        }
    }
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.len() > TYPES.len() {
        errors.push(FieldError::invalid(
            "spec.policyTypes",
            types,
            "may not specify more than two policyTypes",
        ));
        return errors;
    }
    for (i, one) in types.iter().enumerate() {
        errors.extend(one_of(one, &TYPES, &format!("spec.policyTypes[{i}]")));
    }
    errors
}

fn port(port: &NetworkPolicyPort, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if let Some(protocol) = port.protocol.as_deref() {
        errors.extend(one_of(protocol, &PROTOCOLS, &format!("{at}.protocol")));
    }
    let (port_at, end_at) = (format!("{at}.port"), format!("{at}.endPort"));
    match (&port.port, port.end_port) {
        (Some(IntOrString::Int(number)), end) => {
            errors.extend(wrong(&port_at, *number, names::port_number(*number)));
            if let Some(end) = end {
                if end < *number {
                    // Kubernetes shows the port here, not its end.
                    let why = "must be greater than or equal to `port`";
                    errors.push(FieldError::invalid(end_at.clone(), number, why));
                }
                errors.extend(wrong(&end_at, end, names::port_number(end)));
            }
        }
        (Some(IntOrString::String(name)), end) => {
            if let Some(end) = end {
                let why = "may not be specified when `port` is non-numeric";
                errors.push(FieldError::invalid(end_at, end, why));
            }
            errors.extend(wrong(&port_at, name.as_str(), names::port_name(name)));
        }
        (None, Some(end)) => {
            let why = "may not be specified when `port` is not specified";
            errors.push(FieldError::invalid(end_at, end, why));
        }
        (None, None) => {}
    }
    errors
}

fn peer(peer: &NetworkPolicyPeer, at: &str, known: &[&str]) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let selectors = [
        ("podSelector", &peer.pod_selector),
        ("namespaceSelector", &peer.namespace_selector),
    ];
    let mut selects = false;
    for (field, selector) in selectors {
        if let Some(selector) = selector {
            selects = true;
            errors.extend(validate_label_selector(selector, &format!("{at}.{field}")));
        }
    }
    match &peer.ip_block {
        Some(block) => {
            errors.extend(ip_block(block, &format!("{at}.ipBlock"), known));
            if selects {
                let why = "may not specify both ipBlock and another peer";
                errors.push(FieldError::forbidden(at, why));
            }
        }
        None if !selects => errors.push(FieldError::required(at, "must specify a peer")),
        None => {}
    }
    errors
}

fn ip_block(block: &IPBlock, at: &str, known: &[&str]) -> FieldErrors {
    let cidr_at = format!("{at}.cidr");
    if block.cidr.is_empty() {
        return vec![FieldError::required(cidr_at, "")];
    }
    let mut errors = cidr(&cidr_at, &block.cidr, known);
    let Some((_, range)) = ip::parse_cidr_loosely(&block.cidr) else {
        return errors;
    };
    for (i, text) in block.except.iter().flatten().enumerate() {
        let at = format!("{at}.except[{i}]");
        errors.extend(cidr(&at, text, known));
        let inside = ip::parse_cidr_loosely(text).is_none_or(|(_, except)| {
            range.contains(&except.addr()) && range.prefix_len() < except.prefix_len()
        });
        if !inside {
            let why = "must be a strict subset of `cidr`";
            errors.push(FieldError::invalid(at, text, why));
        }
    }
    errors
}

/// What is wrong with a range, unless it was there before.
fn cidr(at: &str, text: &str, known: &[&str]) -> FieldErrors {
    if known.contains(&text) {
        return FieldErrors::new();
    }
    wrong(at, text, ip::cidr(text))
}

#[cfg(test)]
mod tests {
    use crate::kind::Kind;
    use crate::kinds;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn kind() -> Arc<dyn Kind> {
        kinds::find("networking.k8s.io", "v1", "networkpolicies").expect("a kind")
    }

    fn made(spec: Value) -> Value {
        let mut object = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": spec});
        kind().default(&mut object);
        object
    }

    fn wrong(spec: Value) -> Vec<String> {
        let errors = kind().validate(&made(spec));
        errors.iter().map(ToString::to_string).collect()
    }

    fn wrong_peer(peer: Value) -> Vec<String> {
        wrong(json!({"ingress": [{"from": [peer]}]}))
    }

    fn wrong_port(port: Value) -> Vec<String> {
        wrong(json!({"egress": [{"ports": [port]}]}))
    }

    #[test]
    fn a_policy_is_for_what_it_has_rules_for_and_always_for_ingress() {
        for (spec, types) in [
            (json!({}), json!(["Ingress"])),
            (json!({"ingress": [{}]}), json!(["Ingress"])),
            (json!({"egress": [{}]}), json!(["Ingress", "Egress"])),
            (json!({"policyTypes": ["Egress"]}), json!(["Egress"])),
        ] {
            let made = made(spec);
            assert_eq!(made["spec"]["policyTypes"], types);
            assert_eq!(made["spec"]["podSelector"], json!({}));
        }
        let port = json!({"port": 53});
        let made = made(json!({"egress": [{"ports": [port]}]}));
        assert_eq!(made["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
    }

    #[test]
    fn a_policy_type_is_one_of_two() {
        assert_eq!(
            wrong(json!({"policyTypes": ["Ingress", "Sideways"]})),
            [
                "spec.policyTypes[1]: Unsupported value: \"Sideways\": supported values: \"Ingress\", \"Egress\""
            ]
        );
        assert_eq!(
            wrong(json!({"policyTypes": ["Ingress", "Egress", "Ingress"]})),
            [
                "spec.policyTypes: Invalid value: [\"Ingress\",\"Egress\",\"Ingress\"]: may not specify more than two policyTypes"
            ]
        );
    }

    #[test]
    fn a_peer_is_a_range_or_what_selectors_select() {
        let at = "spec.ingress[0].from[0]";
        for good in [
            json!({"podSelector": {}}),
            json!({"podSelector": {}, "namespaceSelector": {}}),
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}),
            json!({"ipBlock": {"cidr": "fd00::/8", "except": ["fd00:1::/64"]}}),
        ] {
            assert_eq!(wrong_peer(good), [""; 0]);
        }
        assert_eq!(
            wrong_peer(json!({})),
            [format!("{at}: Required value: must specify a peer")]
        );
        assert_eq!(
            wrong_peer(json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}})),
            [format!(
                "{at}: Forbidden: may not specify both ipBlock and another peer"
            )]
        );
        assert_eq!(
            wrong_peer(json!({"ipBlock": {}})),
            [format!("{at}.ipBlock.cidr: Required value")]
        );
        let subset = "must be a strict subset of `cidr`";
        for except in ["10.0.0.0/8", "11.0.0.0/16", "0.0.0.0/0", "fd00::/64"] {
            assert_eq!(
                wrong_peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": [except]}})),
                [format!(
                    "{at}.ipBlock.except[0]: Invalid value: \"{except}\": {subset}"
                )]
            );
        }
        assert_eq!(
            wrong_peer(json!({"podSelector": {"matchLabels": {"a b": "c"}}})).len(),
            1
        );
    }

    #[test]
    fn ports_are_numbers_with_an_end_or_names_without() {
        let at = "spec.egress[0].ports[0]";
        for good in [
            json!({}),
            json!({"port": 80, "endPort": 80}),
            json!({"port": "http", "protocol": "SCTP"}),
        ] {
            assert_eq!(wrong_port(good), [""; 0]);
        }
        for (port, words) in [
            (
                json!({"port": 90, "endPort": 80}),
                format!("{at}.endPort: Invalid value: 90: must be greater than or equal to `port`"),
            ),
            (
                json!({"port": "http", "endPort": 80}),
                format!(
                    "{at}.endPort: Invalid value: 80: may not be specified when `port` is non-numeric"
                ),
            ),
            (
                json!({"endPort": 80}),
                format!(
                    "{at}.endPort: Invalid value: 80: may not be specified when `port` is not specified"
                ),
            ),
            (
                json!({"port": 0}),
                format!("{at}.port: Invalid value: 0: must be between 1 and 65535, inclusive"),
            ),
            (
                json!({"port": 1, "endPort": 65536}),
                format!(
                    "{at}.endPort: Invalid value: 65536: must be between 1 and 65535, inclusive"
                ),
            ),
            (
                json!({"protocol": "ICMP"}),
                format!(
                    "{at}.protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\""
                ),
            ),
        ] {
            assert_eq!(wrong_port(port), [words]);
        }
    }

    #[test]
    fn a_range_that_was_taken_once_may_stay() {
        let spec = json!({"ingress": [{"from": [{"ipBlock": {"cidr": "010.0.0.1/8"}}]}]});
        assert_eq!(wrong(spec.clone()).len(), 1);
        let old = made(spec);
        let mut new = old.clone();
        new["spec"]["egress"] = json!([{"to": [{"ipBlock": {"cidr": "010.0.0.1/8"}}]}]);
        assert_eq!(kind().validate_changed(&new, &old), vec![]);
        new["spec"]["egress"] = json!([{"to": [{"ipBlock": {"cidr": "010.0.0.2/8"}}]}]);
        assert_eq!(kind().validate_changed(&new, &old).len(), 1);
        assert_eq!(
            kind().warnings(&old, Some(&old))[0],
            "spec.ingress[0].from[0].ipBlock.cidr: CIDR value \"010.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)"
        );
    }

    #[test]
    fn a_row_shows_which_pods_it_is_for() {
        let row =
            |selector: Value| kind().cells(&made(json!({ "podSelector": selector })), 0)[1].clone();
        assert_eq!(row(json!({})), "<none>");
        assert_eq!(row(json!({"matchLabels": {"a": "b", "c": "d"}})), "a=b,c=d");
        assert_eq!(
            row(
                json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "x", "operator": "In", "values": ["2", "1"]}, {"key": "y", "operator": "Exists"}]})
            ),
            "a=b,x in (1,2),y"
        );
    }
}
