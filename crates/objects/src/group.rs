//! In which order groups are offered: where two of them have a kind of the same name, clients take the first.
//!
//! Source: `kube-aggregator`'s priorities of the built-in groups (`pkg/controlplane/apiserver/aggregator.go` in
//! Kubernetes).

/// The built-in groups, the first ones first. `extensions` has the place that it had while Kubernetes served it.
const ORDER: [&str; 21] = [
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "extensions",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// Sorts groups: the built-in ones by their priority, then all others by their names.
pub fn order(group: &str) -> (usize, &str) {
    let place = ORDER.iter().position(|known| *known == group);
    (place.unwrap_or(ORDER.len()), group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_that_clients_should_take_comes_first() {
        let mut groups = vec![
            "example.com",
            "extensions",
            "a.example.com",
            "networking.k8s.io",
            "apps",
            "",
        ];
        groups.sort_by_key(|group| order(group));
        assert_eq!(
            groups,
            [
                "",
                "apps",
                "networking.k8s.io",
                "extensions",
                "a.example.com",
                "example.com"
            ]
        );
    }
}
