//! What a Pod calls itself: host name, domain, and the `/etc/hosts` that says so. Pure.
//! Source: the kubelet's `GeneratePodHostNameAndDomain` and `managedHostsFileContent`.

use std::fmt::Write as _;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::PodSpec;

/// What the kernel allows a host name to have, and DNS a label.
const LONGEST_LABEL: usize = 63;

/// The names of a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNames {
    /// What `hostname` prints.
    pub hostname: String,
    /// First label of the Pod's own names in `/etc/hosts`.
    pub short: String,
    /// `<subdomain>.<namespace>.svc.<cluster domain>`, with a `subdomain` only.
    pub domain: Option<String>,
}

/// The names of a Pod on its own network; on the node's it has the node's name.
pub fn pod_names(
    spec: &PodSpec,
    pod: &str,
    namespace: &str,
    node: &str,
    cluster_domain: &str,
) -> PodNames {
    if spec.host_network == Some(true) {
        return PodNames {
            hostname: node.to_owned(),
            short: node.to_owned(),
            domain: None,
        };
    }
    if let Some(name) = spec
        .hostname_override
        .as_deref()
        .filter(|name| !name.is_empty())
    {
        return PodNames {
            hostname: name.to_owned(),
            short: name.to_owned(),
            domain: None,
        };
    }
    let own = spec
        .hostname
        .as_deref()
        .filter(|name| !name.is_empty())
        .unwrap_or(pod);
    let short = own
        .get(..LONGEST_LABEL)
        .unwrap_or(own)
        .trim_end_matches(['-', '.'])
        .to_owned();
    let domain = spec
        .subdomain
        .as_deref()
        .filter(|subdomain| !subdomain.is_empty())
        .map(|subdomain| format!("{subdomain}.{namespace}.svc.{cluster_domain}"));
    let hostname = match &domain {
        Some(domain) if spec.set_hostname_as_fqdn == Some(true) => format!("{short}.{domain}"),
        _ => short.clone(),
    };
    PodNames {
        hostname,
        short,
        domain,
    }
}

/// `/etc/hosts` of a Pod. `node_hosts` is the node's own file, which a Pod on the node's network gets.
pub fn hosts_file(spec: &PodSpec, names: &PodNames, pod_ip: IpAddr, node_hosts: &str) -> String {
    let mut text = if spec.host_network == Some(true) {
        format!("# Kubernetes-managed hosts file (host network).\n{node_hosts}")
    } else {
        let mut text = String::from(
            "# Kubernetes-managed hosts file.\n\
             127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\n\
             fe00::1\tip6-allnodes\n\
             fe00::2\tip6-allrouters\n",
        );
        // Writing to a String cannot fail.
        let _ = match &names.domain {
            Some(domain) => writeln!(
                text,
                "{pod_ip}\t{short}.{domain}\t{short}",
                short = names.short
            ),
            None => writeln!(text, "{pod_ip}\t{}", names.short),
        };
        text
    };
    let aliases = spec.host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let _ = writeln!(
                text,
                "{}\t{}",
                alias.ip,
                alias.hostnames.as_deref().unwrap_or_default().join("\t")
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(value: Value) -> PodSpec {
        let mut value = value;
        value["containers"] = json!([]);
        serde_json::from_value(value).unwrap()
    }

    fn names(value: Value, pod: &str) -> PodNames {
        pod_names(&spec(value), pod, "shop", "node-1", "cluster.local")
    }

    #[test]
    fn the_host_name_is_the_pods_unless_the_spec_says_otherwise() {
        let long = "a".repeat(62) + "-bcd";
        for (value, pod, hostname) in [
            (json!({}), "web-0", "web-0"),
            (json!({}), long.as_str(), &long[..62]),
            (json!({"hostname": "db"}), "web-0", "db"),
            (json!({"subdomain": "peers"}), "web-0", "web-0"),
            (
                json!({"subdomain": "peers", "setHostnameAsFQDN": true}),
                "web-0",
                "web-0.peers.shop.svc.cluster.local",
            ),
            (
                json!({"hostNetwork": true, "hostname": "db"}),
                "web-0",
                "node-1",
            ),
            (
                json!({"hostnameOverride": "what.ever"}),
                "web-0",
                "what.ever",
            ),
        ] {
            assert_eq!(names(value.clone(), pod).hostname, hostname, "{value}");
        }
    }

    #[test]
    fn hosts_has_the_pods_address_its_names_and_the_aliases() {
        let value = json!({"hostname": "db", "subdomain": "peers",
            "hostAliases": [{"ip": "127.0.0.2", "hostnames": ["a.local", "b.local"]}]});
        let text = hosts_file(
            &spec(value.clone()),
            &names(value, "p"),
            "10.244.1.5".parse().unwrap(),
            "",
        );
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with(
            "10.244.1.5\tdb.peers.shop.svc.cluster.local\tdb\n\n\
             # Entries added by HostAliases.\n127.0.0.2\ta.local\tb.local\n"
        ));
    }

    #[test]
    fn a_pod_on_the_nodes_network_has_the_nodes_file() {
        let value = json!({"hostNetwork": true});
        let text = hosts_file(
            &spec(value.clone()),
            &names(value, "p"),
            "10.87.0.2".parse().unwrap(),
            "127.0.0.1 localhost\n",
        );
        assert_eq!(
            text,
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n"
        );
    }
}
