//! Environment variables that tell a container of Services, in Kubernetes' and in Docker's old style.
//! Source: `pkg/kubelet/envvars/envvars.go` and "Accessing the Service" in the Kubernetes documentation.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;

/// What the variables need of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEndpoint {
    /// `metadata.name`
    pub name: String,
    /// Its cluster address.
    pub cluster_ip: String,
    /// Its ports, at least one.
    pub ports: Vec<ServicePort>,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty when it has none.
    pub name: String,
    /// `TCP`, `UDP`, `SCTP`
    pub protocol: String,
    /// Port at the cluster address.
    pub port: i32,
}

impl ServiceEndpoint {
    /// The Service, if it has a cluster address: headless and external ones have no variables.
    pub fn of(service: &Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let cluster_ip = spec
            .cluster_ip
            .as_deref()
            .filter(|ip| !ip.is_empty() && *ip != "None")?;
        let ports: Vec<_> = spec
            .ports
            .iter()
            .flatten()
            .map(|port| ServicePort {
                name: port.name.clone().unwrap_or_default(),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: port.port,
            })
            .collect();
        (!ports.is_empty()).then(|| ServiceEndpoint {
            name: service.metadata.name.clone().unwrap_or_default(),
            cluster_ip: cluster_ip.to_owned(),
            ports,
        })
    }
}

/// The variables of some Services.
pub fn service_variables<'a>(
    services: impl IntoIterator<Item = &'a ServiceEndpoint>,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for service in services {
        let prefix = variable_name(&service.name);
        let Some(first) = service.ports.first() else {
            continue;
        };
        variables.insert(format!("{prefix}_SERVICE_HOST"), service.cluster_ip.clone());
        variables.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
        for port in service.ports.iter().filter(|port| !port.name.is_empty()) {
            let name = format!("{prefix}_SERVICE_PORT_{}", variable_name(&port.name));
            variables.insert(name, port.port.to_string());
        }
        variables.insert(format!("{prefix}_PORT"), url(service, first));
        for port in &service.ports {
            let name = format!(
                "{prefix}_PORT_{}_{}",
                port.port,
                port.protocol.to_uppercase()
            );
            variables.insert(format!("{name}_PROTO"), port.protocol.to_lowercase());
            variables.insert(format!("{name}_PORT"), port.port.to_string());
            variables.insert(format!("{name}_ADDR"), service.cluster_ip.clone());
            variables.insert(name, url(service, port));
        }
    }
    variables
}

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

fn url(service: &ServiceEndpoint, port: &ServicePort) -> String {
    let protocol = port.protocol.to_lowercase();
    if service.cluster_ip.contains(':') {
        format!("{protocol}://[{}]:{}", service.cluster_ip, port.port)
    } else {
        format!("{protocol}://{}:{}", service.cluster_ip, port.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(value: serde_json::Value) -> Service {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn both_styles_are_there_for_every_port() {
        let endpoint = ServiceEndpoint::of(&service(json!({
            "metadata": {"name": "node-js"},
            "spec": {"clusterIP": "10.96.0.7", "ports": [
                {"name": "http", "port": 80},
                {"name": "dns-udp", "port": 53, "protocol": "UDP"},
            ]},
        })))
        .unwrap();
        let variables: Vec<_> = service_variables([&endpoint])
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            variables,
            [
                "NODE_JS_PORT=tcp://10.96.0.7:80",
                "NODE_JS_PORT_53_UDP=udp://10.96.0.7:53",
                "NODE_JS_PORT_53_UDP_ADDR=10.96.0.7",
                "NODE_JS_PORT_53_UDP_PORT=53",
                "NODE_JS_PORT_53_UDP_PROTO=udp",
                "NODE_JS_PORT_80_TCP=tcp://10.96.0.7:80",
                "NODE_JS_PORT_80_TCP_ADDR=10.96.0.7",
                "NODE_JS_PORT_80_TCP_PORT=80",
                "NODE_JS_PORT_80_TCP_PROTO=tcp",
                "NODE_JS_SERVICE_HOST=10.96.0.7",
                "NODE_JS_SERVICE_PORT=80",
                "NODE_JS_SERVICE_PORT_DNS_UDP=53",
                "NODE_JS_SERVICE_PORT_HTTP=80",
            ]
        );
    }

    #[test]
    fn a_version_six_address_is_bracketed_in_urls_only() {
        let endpoint = ServiceEndpoint::of(&service(json!({
            "metadata": {"name": "six"}, "spec": {"clusterIP": "fd00::7", "ports": [{"port": 80}]},
        })))
        .unwrap();
        let variables = service_variables([&endpoint]);
        assert_eq!(variables["SIX_PORT"], "tcp://[fd00::7]:80");
        assert_eq!(variables["SIX_SERVICE_HOST"], "fd00::7");
    }

    #[test]
    fn services_without_an_address_have_no_variables() {
        for spec in [
            json!({"clusterIP": "None", "ports": [{"port": 80}]}),
            json!({"clusterIP": "", "ports": [{"port": 80}]}),
            json!({"type": "ExternalName", "externalName": "example.org"}),
            json!({"clusterIP": "10.96.0.1"}),
        ] {
            assert_eq!(
                ServiceEndpoint::of(&service(json!({"metadata": {"name": "x"}, "spec": spec}))),
                None
            );
        }
    }
}
