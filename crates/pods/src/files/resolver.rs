//! `/etc/resolv.conf` of a Pod, from its `dnsPolicy` and `dnsConfig`. Pure.
//! Source: `pkg/kubelet/network/dns/dns.go` and "DNS for Services and Pods" in the Kubernetes documentation.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::PodSpec;

/// What the resolver library takes: more name servers are ignored by it.
const MOST_NAME_SERVERS: usize = 3;
/// More search domains are refused by validation and cut here.
const MOST_SEARCHES: usize = 32;

/// A resolver configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Addresses to ask, in this order.
    pub servers: Vec<String>,
    /// Domains to try.
    pub searches: Vec<String>,
    /// `name` or `name:value`
    pub options: Vec<String>,
}

/// What the cluster gives to Pods.
#[derive(Debug, Clone)]
pub struct ClusterDns<'a> {
    /// Address of the DNS Service.
    pub address: IpAddr,
    /// `cluster.local`
    pub domain: &'a str,
}

impl Resolver {
    /// Reads a `resolv.conf`; lines that it does not know are left out.
    pub fn parse(text: &str) -> Self {
        let mut resolver = Resolver::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or("");
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => resolver.servers.extend(words.next()),
                // The last of these wins, and `domain` is a search list of one.
                Some("search" | "domain") => {
                    resolver.searches = words
                        .map(|word| word.trim_end_matches('.').to_owned())
                        .collect();
                }
                Some("options") => resolver.options.extend(words),
                _ => {}
            }
        }
        resolver
    }

    /// The configuration of a Pod.
    pub fn of_pod(
        spec: &PodSpec,
        namespace: &str,
        cluster: &ClusterDns<'_>,
        node: &Resolver,
    ) -> Self {
        let on_host = spec.host_network == Some(true);
        let mut resolver = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
            "None" => Resolver::default(),
            "Default" => node.clone(),
            // Pods on the node's network see the cluster's names only when they ask for it.
            "ClusterFirst" if on_host => node.clone(),
            _ => Resolver {
                servers: vec![cluster.address.to_string()],
                searches: vec![
                    format!("{namespace}.svc.{}", cluster.domain),
                    format!("svc.{}", cluster.domain),
                    cluster.domain.to_owned(),
                ],
                options: vec!["ndots:5".to_owned()],
            },
        };
        if let Some(config) = &spec.dns_config {
            extend_new(
                &mut resolver.servers,
                config.nameservers.iter().flatten().cloned(),
            );
            extend_new(
                &mut resolver.searches,
                config.searches.iter().flatten().cloned(),
            );
            for option in config.options.iter().flatten() {
                let Some(name) = &option.name else { continue };
                resolver
                    .options
                    .retain(|existing| existing.split(':').next() != Some(name));
                resolver.options.push(
                    match option.value.as_deref().filter(|value| !value.is_empty()) {
                        Some(value) => format!("{name}:{value}"),
                        None => name.clone(),
                    },
                );
            }
        }
        resolver.servers.truncate(MOST_NAME_SERVERS);
        resolver.searches.truncate(MOST_SEARCHES);
        resolver
    }

    /// The file's content.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            text.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        for server in &self.servers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }
}

fn extend_new(list: &mut Vec<String>, more: impl Iterator<Item = String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NODE: &str = "# by hand\nnameserver 192.0.2.1\nnameserver 192.0.2.2 ; second\nsearch old.example\n\
                        search example.org. example.com\noptions timeout:1 rotate\n";

    fn resolv_conf(spec: Value) -> String {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let cluster = ClusterDns {
            address: "10.96.0.10".parse().unwrap(),
            domain: "cluster.local",
        };
        Resolver::of_pod(&spec, "shop", &cluster, &Resolver::parse(NODE)).render()
    }

    const CLUSTER: &str = "search shop.svc.cluster.local svc.cluster.local cluster.local\n\
                           nameserver 10.96.0.10\noptions ndots:5\n";
    const HOST: &str = "search example.org example.com\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n\
                        options timeout:1 rotate\n";

    #[test]
    fn every_policy_gives_its_file() {
        for (spec, text) in [
            (json!({}), CLUSTER),
            (json!({"dnsPolicy": "ClusterFirst"}), CLUSTER),
            (
                json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}),
                HOST,
            ),
            (
                json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}),
                CLUSTER,
            ),
            (json!({"dnsPolicy": "Default"}), HOST),
            (json!({"dnsPolicy": "None"}), ""),
        ] {
            assert_eq!(resolv_conf(spec.clone()), text, "{spec}");
        }
    }

    #[test]
    fn dns_config_is_added_and_its_options_win() {
        let config = json!({"nameservers": ["192.0.2.9", "10.96.0.10"], "searches": ["extra.example"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]});
        assert_eq!(
            resolv_conf(json!({"dnsConfig": config})),
            "search shop.svc.cluster.local svc.cluster.local cluster.local extra.example\n\
             nameserver 10.96.0.10\nnameserver 192.0.2.9\noptions ndots:2 edns0\n"
        );
        assert_eq!(
            resolv_conf(json!({"dnsPolicy": "None", "dnsConfig": config})),
            "search extra.example\nnameserver 192.0.2.9\nnameserver 10.96.0.10\noptions ndots:2 edns0\n"
        );
    }

    #[test]
    fn no_more_servers_than_a_resolver_reads() {
        let text = resolv_conf(
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"]}}),
        );
        assert_eq!(text.matches("nameserver").count(), 3);
    }
}
