//! Gives Services their cluster addresses and node ports, and keeps others from taking them.
//!
//! What is taken follows from the stored Services alone: it is learned from them at start, so nothing leaks and
//! nothing is given twice after a crash. A write reserves what it adds before it is stored and gives it back if it is
//! not; what a write takes away is released after it was stored.
//!
//! Source: `pkg/registry/core/service` in Kubernetes; KEP-3070 and KEP-3668 for the two bands.

mod bands;
mod families;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::Ipv4Net;
use parking_lot::Mutex;
use seaway_objects::field::{FieldError, FieldErrors};
use serde_json::{Map, Value, json};

use self::bands::{Bands, Refusal};
use self::families::texts;
use super::{Operation, Plugin, Request, Stage, Undo};
use crate::status::ApiError;

/// The plugin that hands out cluster addresses and node ports.
pub(crate) struct Addresses {
    pools: Arc<Mutex<Pools>>,
}

/// What there is to give, and what is given.
struct Pools {
    cidr: Ipv4Net,
    /// By distance from the network address plus one: the network address itself is never given.
    ips: Bands,
    node_ports: RangeInclusive<u16>,
    ports: Bands,
    /// Whether Services are still being learned from the store.
    learning: bool,
}

/// Something that a Service has of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Share {
    Ip(Ipv4Addr),
    Port(i64),
}

impl Addresses {
    /// Cluster addresses out of `cidr`, node ports out of `node_ports`.
    pub(crate) fn new(cidr: Ipv4Net, node_ports: RangeInclusive<u16>) -> Self {
        let size = 1_u64 << (32 - u32::from(cidr.prefix_len()));
        // Neither the network nor the broadcast address.
        let usable = u32::try_from(size.saturating_sub(2)).unwrap_or(u32::MAX);
        let static_ips = static_band(size, 16, 256).saturating_sub(1);
        let count = u32::try_from(node_ports.len()).unwrap_or(0);
        let static_ports = static_band(u64::from(count), 32, 128);
        Self {
            pools: Arc::new(Mutex::new(Pools {
                cidr,
                ips: Bands::new(usable, static_ips),
                node_ports,
                ports: Bands::new(count, static_ports),
                learning: true,
            })),
        }
    }
}

/// How much of a range is kept for those who ask by name: a share of it, at least 16, nothing of a tiny range.
fn static_band(size: u64, share: u64, most: u64) -> u32 {
    const LEAST: u64 = 16;
    if size <= LEAST {
        return 0;
    }
    u32::try_from((size / share).clamp(LEAST, most)).unwrap_or(0)
}

impl Pools {
    fn claim(&mut self, share: Share, owner: &str) -> Result<(), Refusal> {
        match share {
            Share::Ip(ip) => {
                let number = self.ip_number(ip).ok_or(Refusal::OutOfRange)?;
                self.ips.claim(number, owner)
            }
            Share::Port(port) => {
                let number = self.port_number(port).ok_or(Refusal::OutOfRange)?;
                self.ports.claim(number, owner)
            }
        }
    }

    fn release(&mut self, share: Share, owner: &str) {
        match share {
            Share::Ip(ip) => {
                if let Some(number) = self.ip_number(ip) {
                    self.ips.release(number, owner);
                }
            }
            Share::Port(port) => {
                if let Some(number) = self.port_number(port) {
                    self.ports.release(number, owner);
                }
            }
        }
    }

    fn pick_ip(&mut self, owner: &str) -> Result<Ipv4Addr, Refusal> {
        let number = self.ips.pick(owner)?;
        Ok(Ipv4Addr::from(u32::from(self.cidr.network()) + 1 + number))
    }

    fn pick_port(&mut self, owner: &str) -> Result<i64, Refusal> {
        let number = self.ports.pick(owner)?;
        Ok(i64::from(*self.node_ports.start()) + i64::from(number))
    }

    fn ip_number(&self, ip: Ipv4Addr) -> Option<u32> {
        u32::from(ip).checked_sub(u32::from(self.cidr.network()) + 1)
    }

    fn port_number(&self, port: i64) -> Option<u32> {
        u32::try_from(port - i64::from(*self.node_ports.start())).ok()
    }

    /// Why a share cannot be had, as Kubernetes words it.
    fn words(&self, share: Share, refusal: Refusal) -> String {
        match (refusal, share) {
            (Refusal::Full, _) => "range is full".to_owned(),
            (Refusal::Taken, Share::Ip(_)) => "provided IP is already allocated".to_owned(),
            (Refusal::Taken, Share::Port(_)) => "provided port is already allocated".to_owned(),
            (Refusal::OutOfRange, Share::Ip(ip)) => format!(
                "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}",
                self.cidr
            ),
            (Refusal::OutOfRange, Share::Port(_)) => format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                self.node_ports.start(),
                self.node_ports.end()
            ),
        }
    }
}

impl Plugin for Addresses {
    fn stage(&self) -> Stage {
        Stage::Reserve
    }

    fn admit(&self, request: &Request<'_>, object: &mut Value) -> Result<Undo, ApiError> {
        let service = request.kind.group.is_empty() && request.kind.kind == "Service";
        if !service || !request.subresource.is_empty() || request.operation == Operation::Delete {
            return Ok(Undo::nothing());
        }
        let owner = format!("{}/{}", request.namespace, request.name);
        let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
            return Ok(Undo::nothing());
        };
        let had = request.old.map(shares).unwrap_or_default();
        let mut pools = self.pools.lock();
        pools.learning = false;
        let mut reservation = Reservation {
            pools: &mut pools,
            owner: &owner,
            had: &had,
            added: Vec::new(),
        };
        let done = reservation.settle(spec);
        let added = reservation.added;
        if done.is_err() || request.dry_run {
            for share in added {
                pools.release(share, &owner);
            }
            return match done {
                Ok(()) => Ok(Undo::nothing()),
                Err(failure) => Err(failure.into_status(request)),
            };
        }
        drop(pools);
        let pools = Arc::clone(&self.pools);
        Ok(Undo::new(move || {
            let mut pools = pools.lock();
            for share in added {
                pools.release(share, &owner);
            }
        }))
    }

    fn committed(&self, old: Option<&Value>, new: Option<&Value>) {
        let Some(any) = new.or(old).filter(|o| is_service(o)) else {
            return;
        };
        let owner = owner(any);
        let before = old.map(shares).unwrap_or_default();
        let after = new.map(shares).unwrap_or_default();
        let mut pools = self.pools.lock();
        if pools.learning {
            for share in after {
                // A Service from before a change of the ranges keeps what it has, outside of them.
                if let Err(refusal) = pools.claim(share, &owner) {
                    tracing::warn!(
                        service = owner,
                        ?share,
                        ?refusal,
                        "a stored Service has what cannot be given out"
                    );
                }
            }
            return;
        }
        // What is new was reserved when it was admitted.
        for share in before.into_iter().filter(|s| !after.contains(s)) {
            pools.release(share, &owner);
        }
    }
}

/// Why a Service cannot have what it needs.
enum Failure {
    /// The Service asks for something that it cannot have.
    Fields(FieldErrors),
    /// There is nothing left.
    Exhausted(String),
}

impl Failure {
    fn into_status(self, request: &Request<'_>) -> ApiError {
        match self {
            Self::Fields(errors) => ApiError::invalid(request.kind, request.name, &errors),
            Self::Exhausted(message) => ApiError::internal(message),
        }
    }
}

/// One write on its way.
struct Reservation<'a> {
    pools: &'a mut Pools,
    owner: &'a str,
    /// What the stored version has: it need not be reserved again.
    had: &'a [Share],
    /// What this write adds.
    added: Vec<Share>,
}

impl Reservation<'_> {
    fn settle(&mut self, spec: &mut Map<String, Value>) -> Result<(), Failure> {
        let kind = spec
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        if !matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
            return Ok(());
        }
        let errors = families::settle(spec);
        if !errors.is_empty() {
            return Err(Failure::Fields(errors));
        }
        self.settle_ip(spec)?;
        let balancer = kind == "LoadBalancer";
        let wanted = match kind.as_str() {
            "NodePort" => true,
            "LoadBalancer" => {
                spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false))
            }
            _ => false,
        };
        if wanted || balancer {
            self.settle_node_ports(spec, wanted)?;
        }
        if balancer && spec.get("externalTrafficPolicy").and_then(Value::as_str) == Some("Local") {
            self.settle_health_check(spec)?;
        }
        Ok(())
    }

    fn settle_ip(&mut self, spec: &mut Map<String, Value>) -> Result<(), Failure> {
        let mut asked = texts(spec.get("clusterIPs"));
        if asked.is_empty() {
            asked.extend(
                spec.get("clusterIP")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
            );
        }
        asked.retain(|ip| !ip.is_empty());
        let ip = match asked.first().map(String::as_str) {
            Some("None") => "None".to_owned(),
            Some(text) => {
                let refused = |why: &str| {
                    let words = format!("failed to allocate IP {text}: {why}");
                    Failure::Fields(vec![FieldError::invalid("spec.clusterIPs", &asked, &words)])
                };
                let Ok(IpAddr::V4(ip)) = text.parse() else {
                    return Err(refused(
                        "the provided network does not match the current range",
                    ));
                };
                self.add(Share::Ip(ip)).map_err(|why| refused(&why))?;
                ip.to_string()
            }
            None => {
                let picked = self.pools.pick_ip(self.owner);
                let ip = picked.map_err(|refusal| {
                    let why = self.pools.words(Share::Ip(Ipv4Addr::UNSPECIFIED), refusal);
                    Failure::Exhausted(format!("failed to allocate a serviceIP: {why}"))
                })?;
                self.added.push(Share::Ip(ip));
                ip.to_string()
            }
        };
        spec.insert("clusterIP".to_owned(), json!(ip));
        spec.insert("clusterIPs".to_owned(), json!([ip]));
        Ok(())
    }

    /// The same port for several protocols gets the same node port; `wanted`: those without get one.
    fn settle_node_ports(
        &mut self,
        spec: &mut Map<String, Value>,
        wanted: bool,
    ) -> Result<(), Failure> {
        let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) else {
            return Ok(());
        };
        let number =
            |port: &Value, field: &str| port.get(field).and_then(Value::as_i64).unwrap_or(0);
        let mut by_port: HashMap<i64, i64> = HashMap::new();
        // Those asked for by name first, so that picking does not take them away.
        for (i, port) in ports.iter().enumerate() {
            let asked = number(port, "nodePort");
            if asked == 0 {
                continue;
            }
            self.add(Share::Port(asked)).map_err(|why| {
                let at = format!("spec.ports[{i}].nodePort");
                Failure::Fields(vec![FieldError::invalid(at, asked, &why)])
            })?;
            by_port.entry(number(port, "port")).or_insert(asked);
        }
        if !wanted {
            return Ok(());
        }
        let taken: Vec<(String, i64)> = ports
            .iter()
            .map(|p| (protocol(p), number(p, "nodePort")))
            .collect();
        let mut taken: Vec<(String, i64)> = taken.into_iter().filter(|(_, n)| *n != 0).collect();
        for port in ports.iter_mut().filter(|p| number(p, "nodePort") == 0) {
            let key = number(port, "port");
            let shared = by_port
                .get(&key)
                .copied()
                .filter(|n| !taken.contains(&(protocol(port), *n)));
            let given = match shared {
                Some(given) => given,
                None => self.pick_port("a nodePort")?,
            };
            by_port.entry(key).or_insert(given);
            taken.push((protocol(port), given));
            if let Some(port) = port.as_object_mut() {
                port.insert("nodePort".to_owned(), json!(given));
            }
        }
        Ok(())
    }

    fn settle_health_check(&mut self, spec: &mut Map<String, Value>) -> Result<(), Failure> {
        let asked = spec
            .get("healthCheckNodePort")
            .and_then(Value::as_i64)
            .unwrap_or(0);
        if asked == 0 {
            let port = self.pick_port("a HealthCheck NodePort")?;
            spec.insert("healthCheckNodePort".to_owned(), json!(port));
            return Ok(());
        }
        self.add(Share::Port(asked)).map_err(|why| {
            Failure::Exhausted(format!(
                "failed to allocate requested HealthCheck NodePort {asked}: {why}"
            ))
        })
    }

    fn pick_port(&mut self, what: &str) -> Result<i64, Failure> {
        let picked = self.pools.pick_port(self.owner);
        let port = picked.map_err(|refusal| {
            let why = self.pools.words(Share::Port(0), refusal);
            Failure::Exhausted(format!("failed to allocate {what}: {why}"))
        })?;
        self.added.push(Share::Port(port));
        Ok(port)
    }

    /// Reserves what is asked for by name, unless the Service has it already.
    fn add(&mut self, share: Share) -> Result<(), String> {
        if self.had.contains(&share) || self.added.contains(&share) {
            return Ok(());
        }
        self.pools
            .claim(share, self.owner)
            .map_err(|refusal| self.pools.words(share, refusal))?;
        self.added.push(share);
        Ok(())
    }
}

fn protocol(port: &Value) -> String {
    port.get("protocol")
        .and_then(Value::as_str)
        .unwrap_or("TCP")
        .to_owned()
}

fn is_service(object: &Value) -> bool {
    object.get("kind").and_then(Value::as_str) == Some("Service")
        && object.get("apiVersion").and_then(Value::as_str) == Some("v1")
}

fn owner(service: &Value) -> String {
    let field = |pointer| {
        service
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    format!(
        "{}/{}",
        field("/metadata/namespace"),
        field("/metadata/name")
    )
}

/// All that a Service has of the pools, each once.
fn shares(service: &Value) -> Vec<Share> {
    let Some(spec) = service.get("spec") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if spec.get("type").and_then(Value::as_str) == Some("ExternalName") {
        return found;
    }
    let ips = texts(spec.get("clusterIPs"));
    found.extend(ips.iter().filter_map(|ip| ip.parse().ok()).map(Share::Ip));
    let ports = spec
        .get("ports")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let node_ports = ports.filter_map(|p| p.get("nodePort").and_then(Value::as_i64));
    let health = spec.get("healthCheckNodePort").and_then(Value::as_i64);
    for port in node_ports.chain(health).filter(|p| *p != 0) {
        if !found.contains(&Share::Port(port)) {
            found.push(Share::Port(port));
        }
    }
    found
}

#[cfg(test)]
mod tests;
