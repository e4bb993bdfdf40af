//! Making the plan true: routes over rtnetlink, masquerade over nf_tables.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::{IpNet, Ipv4Net};
use seaway_kernel::NetNs;
use seaway_kernel::rtnl::{MAIN_TABLE, Route, RouteKind, RouteSocket};

use crate::ROUTE_PROTOCOL;
use crate::error::Error;
use crate::masquerade::Masquerade;
use crate::plan::{Change, Plan, Target, diff};

/// What this node has for the Pods of all nodes.
#[derive(Debug)]
pub(crate) struct Applied {
    socket: RouteSocket,
    node_ip: std::net::IpAddr,
    /// The routes in the kernel; `None` while they are not known.
    routes: Option<BTreeMap<Ipv4Net, Target>>,
    masquerade: Arc<Mutex<Masquerade>>,
}

impl Applied {
    /// Opens the sockets. Changes nothing yet.
    pub(crate) fn open(
        node: &NetNs,
        socket: RouteSocket,
        node_ip: std::net::IpAddr,
        pods: &[IpNet],
        services: &[IpNet],
    ) -> Result<Self, Error> {
        let masquerade =
            Masquerade::open(node, pods, services).map_err(Error::kernel("masquerade for Pods"))?;
        Ok(Self {
            socket,
            node_ip,
            routes: None,
            masquerade: Arc::new(Mutex::new(masquerade)),
        })
    }

    /// Makes `plan` true. The first time, and after a failure or [`Applied::doubt`], it reads back what the kernel
    /// has; later it only does what has changed. Does all it can, and reports all that failed.
    pub(crate) async fn apply(&mut self, plan: &Plan) -> Result<(), Error> {
        let mut errors = Vec::new();
        if let Err(error) = self.apply_routes(plan).await {
            errors.push(error);
        }
        let (masquerade, nodes) = (Arc::clone(&self.masquerade), plan.node_addresses.clone());
        let masqueraded = tokio::task::spawn_blocking(move || {
            masquerade
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .ensure(&nodes)
        });
        match masqueraded.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => errors.push(Error::kernel("masquerade for Pods")(error)),
            Err(_) => errors.push(Error::Ending),
        }
        Error::all(errors)
    }

    /// Forgets what the kernel has, so that the next [`Applied::apply`] reads it and repairs what others changed.
    pub(crate) fn doubt(&mut self) {
        self.routes = None;
        self.masquerade
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .doubt();
    }

    async fn apply_routes(&mut self, plan: &Plan) -> Result<(), Error> {
        let mut there = match self.routes.take() {
            Some(routes) => routes,
            None => self.read().await?,
        };
        let mut errors = Vec::new();
        for change in diff(&there, &plan.routes) {
            match change {
                Change::Set(range, target) => {
                    match self.socket.ensure_route(&self.to_set(range, target)).await {
                        Ok(()) => drop(there.insert(range, target)),
                        Err(error) => errors.push(Error::kernel(format!(
                            "route to the Pods of {range}"
                        ))(error)),
                    }
                }
                Change::Remove(range, target) => {
                    match self.socket.remove_route(&to_remove(range, target)).await {
                        Ok(_) => drop(there.remove(&range)),
                        Err(error) => errors.push(Error::kernel(format!(
                            "route to the Pods of {range}"
                        ))(error)),
                    }
                }
            }
        }
        if errors.is_empty() {
            self.routes = Some(there);
        }
        Error::all(errors)
    }

    /// The routes in the kernel that an agent of this node made. A Pod's own route has a device and no gateway.
    async fn read(&self) -> Result<BTreeMap<Ipv4Net, Target>, Error> {
        let routes = self
            .socket
            .routes()
            .await
            .map_err(Error::kernel("routes to Pods"))?;
        let ours = routes
            .into_iter()
            .filter(|route| route.protocol == ROUTE_PROTOCOL && route.table == MAIN_TABLE);
        Ok(ours.filter_map(|route| planned(&route)).collect())
    }

    fn to_set(&self, range: Ipv4Net, target: Target) -> Route {
        let route = to_remove(range, target);
        match target {
            // The node's own packets carry its own address, whatever other addresses it has.
            Target::Node(_) => route.src(self.node_ip),
            Target::Nowhere => route,
        }
    }
}

/// Without a source address: the kernel takes that as any, and one that lacks it or has an old one must go as well.
fn to_remove(range: Ipv4Net, target: Target) -> Route {
    let range = IpNet::V4(range);
    match target {
        Target::Node(gateway) => {
            Route::new(range, RouteKind::Unicast, ROUTE_PROTOCOL).via(gateway.into())
        }
        Target::Nowhere => Route::new(range, RouteKind::Unreachable, ROUTE_PROTOCOL),
    }
}

fn planned(route: &Route) -> Option<(Ipv4Net, Target)> {
    let IpNet::V4(range) = route.destination else {
        return None;
    };
    match (route.kind, route.gateway) {
        (RouteKind::Unicast, Some(std::net::IpAddr::V4(gateway))) => {
            Some((range, Target::Node(gateway)))
        }
        (RouteKind::Unreachable, _) => Some((range, Target::Nowhere)),
        _ => None,
    }
}
