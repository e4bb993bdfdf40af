//! The machine's own name servers, for the names that are not the cluster's.

use std::net::{IpAddr, SocketAddr};

/// Name servers of a `resolv.conf` that a node can reach: not those on loopback, which are the host's alone.
/// Source: resolv.conf(5).
pub(crate) fn upstreams(resolv_conf: &str) -> Vec<SocketAddr> {
    resolv_conf
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "nameserver").then_some(())?;
            words.next()?.parse::<IpAddr>().ok()
        })
        .filter(|address| !address.is_loopback())
        .map(|address| SocketAddr::new(address, 53))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::upstreams;

    #[test]
    fn only_servers_that_a_node_can_reach_are_taken() {
        let found = upstreams(
            "# comment\nsearch example.org\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver\nnameserver x\nnameserver 2001:db8::1\n",
        );
        assert_eq!(
            found,
            [
                "192.0.2.1:53".parse().unwrap(),
                "[2001:db8::1]:53".parse().unwrap()
            ]
        );
    }
}
