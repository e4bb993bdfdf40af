//! The host's direct way to each node's Pods: a route for each node's share of the Pod range, as the Nodes say.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::TryStreamExt as _;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::{WatchStreamExt as _, watcher};
use seaway_kernel::netns::NetNs;
use seaway_kernel::rtnl::{Route, RouteKind, RouteSocket};

use crate::error::Error;
use crate::fabric::{ROUTE_PROTOCOL, host_link};

/// Range of Pods → node that has them.
type Ways = BTreeMap<IpNet, IpAddr>;

/// What of a Node matters here: nothing until it has a range and an address.
fn way(node: &Node) -> Option<(IpNet, IpAddr)> {
    let range = node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()?;
    let address = node
        .status
        .as_ref()?
        .addresses
        .iter()
        .flatten()
        .find(|address| address.type_ == "InternalIP")?;
    Some((range, address.address.parse().ok()?))
}

/// What to do to get from the old ways to the new: those to set, those to remove.
fn diff(old: &Ways, new: &Ways) -> (Ways, Ways) {
    let but = |these: &Ways, those: &Ways, same: fn(&IpAddr, &IpAddr) -> bool| {
        these
            .iter()
            .filter(|(range, address)| !those.get(*range).is_some_and(|other| same(address, other)))
            .map(|(range, address)| (*range, *address))
            .collect()
    };
    (but(new, old, |a, b| a == b), but(old, new, |_, _| true))
}

/// Follows the Nodes for ever.
///
/// # Errors
/// What the kernel refused; the routes by the first node still lead to every Pod then.
pub(crate) async fn follow(client: kube::Client, lab: &str) -> Result<(), Error> {
    let failed = |error: seaway_kernel::Error| Error::step("setting the host's routes", error);
    let socket = NetNs::current()
        .and_then(|host| RouteSocket::open(&host))
        .map_err(failed)?;
    let link = socket.link(&host_link(lab)).await.map_err(failed)?.index;
    let route = |(range, address): (IpNet, IpAddr)| {
        Route::new(range, RouteKind::Unicast, ROUTE_PROTOCOL)
            .via(address)
            .dev(link)
    };
    let mut nodes: BTreeMap<String, (IpNet, IpAddr)> = BTreeMap::new();
    let mut current = Ways::new();
    let events =
        watcher(kube::Api::<Node>::all(client), watcher::Config::default()).default_backoff();
    futures::pin_mut!(events);
    loop {
        match events.try_next().await {
            Ok(Some(watcher::Event::Apply(node) | watcher::Event::InitApply(node))) => {
                let name = node.metadata.name.clone().unwrap_or_default();
                match way(&node) {
                    Some(way) => nodes.insert(name, way),
                    None => nodes.remove(&name),
                };
            }
            Ok(Some(watcher::Event::Delete(node))) => {
                nodes.remove(&node.metadata.name.unwrap_or_default());
            }
            Ok(Some(watcher::Event::Init)) => nodes.clear(),
            Ok(Some(watcher::Event::InitDone)) => {}
            Ok(None) => return Ok(()),
            // The watcher starts again by itself.
            Err(error) => tracing::warn!(%error, "watching nodes"),
        }
        let wanted: Ways = nodes.values().copied().collect();
        let (set, remove) = diff(&current, &wanted);
        for way in set {
            socket.ensure_route(&route(way)).await.map_err(failed)?;
        }
        for way in remove {
            socket.remove_route(&route(way)).await.map_err(failed)?;
        }
        current = wanted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(texts: &[(&str, &str)]) -> Ways {
        texts
            .iter()
            .map(|(range, address)| (range.parse().unwrap(), address.parse().unwrap()))
            .collect()
    }

    #[test]
    fn only_what_changed_is_touched() {
        let old = ways(&[
            ("10.244.0.0/24", "10.87.0.2"),
            ("10.244.1.0/24", "10.87.0.3"),
            ("10.244.2.0/24", "10.87.0.4"),
        ]);
        let new = ways(&[
            ("10.244.0.0/24", "10.87.0.2"),
            ("10.244.1.0/24", "10.87.0.9"),
        ]);
        let (set, remove) = diff(&old, &new);
        assert_eq!(set, ways(&[("10.244.1.0/24", "10.87.0.9")]));
        assert_eq!(remove, ways(&[("10.244.2.0/24", "10.87.0.4")]));
    }
}
