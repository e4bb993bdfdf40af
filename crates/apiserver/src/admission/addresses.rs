//! Gives Services their cluster addresses and node ports, and keeps others from taking them.
//!
//! Addresses come from all ServiceCIDRs that are ready. For each address that a Service has there is an IPAddress
//! object, which is written and removed in one transaction with the Service: whenever the server dies, either both are
//! there or neither. What is taken is learned at start from the stored Services and IPAddresses, so nothing leaks and
//! nothing is given twice after a crash. A write reserves what it adds before it is stored and gives it back if it is
//! not; what a write takes away is released after it was stored.
//!
//! Source: `pkg/registry/core/service` in Kubernetes; KEP-1880 for ServiceCIDRs, KEP-3070 and KEP-3668 for the two
//! bands of ranges.

mod bands;
mod claims;
mod families;
pub(crate) mod ip_address;
pub(crate) mod pools;
mod settle;

use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::ServiceSpec;
use parking_lot::Mutex;
use seaway_objects::ip;
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use self::ip_address::IP_ADDRESSES;
use self::pools::{Pools, Share};
use self::settle::{Failure, Reservation};
use super::{Companion, Operation, Plugin, Request, Stage, Undo};
use crate::object::text;
use crate::status::ApiError;

/// What the owner of an address is called for which there is an IPAddress and no Service: this, and the Service that it
/// is kept for, if it is one.
const KEPT_FOR: &str = "IPAddress ";

/// The plugin that hands out cluster addresses and node ports. Copies share what they know.
#[derive(Clone)]
pub(crate) struct Addresses {
    pools: Arc<Mutex<Pools>>,
}

/// Which of the kinds it cares about an object is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Service,
    IpAddress,
    ServiceCidr,
}

impl Sort {
    fn of(group: &str, kind: &str) -> Option<Self> {
        match (group, kind) {
            ("", "Service") => Some(Self::Service),
            ("networking.k8s.io", "IPAddress") => Some(Self::IpAddress),
            ("networking.k8s.io", "ServiceCIDR") => Some(Self::ServiceCidr),
            _ => None,
        }
    }

    fn of_object(object: &Value) -> Option<Self> {
        let group = text(object, "/apiVersion").rsplit_once('/');
        Self::of(group.map_or("", |(group, _)| group), text(object, "/kind"))
    }
}

impl Addresses {
    /// The families of `services` can be had, the first is the default; node ports are out of `node_ports`. The ranges
    /// themselves are those of the ServiceCIDRs.
    pub(crate) fn new(services: &[IpNet], node_ports: RangeInclusive<u16>) -> Self {
        Self {
            pools: Arc::new(Mutex::new(Pools::new(services, node_ports))),
        }
    }

    /// Who has a share; see [`owner`].
    pub(crate) fn holder(&self, share: Share) -> Option<String> {
        self.pools.lock().owner(share).map(str::to_owned)
    }

    /// Gives a stored Service what it has, if nobody else has it.
    pub(crate) fn learn(&self, share: Share, owner: &str) -> bool {
        self.pools.lock().learn(share, owner)
    }

    /// See [`Pools::take_back_leaks`].
    pub(crate) fn take_back_leaks(
        &self,
        has: impl Fn(Share, &str) -> bool,
    ) -> Vec<(Share, String)> {
        let has = |share, owner: &str| owner.starts_with(KEPT_FOR) || has(share, owner);
        self.pools.lock().take_back_leaks(has)
    }

    /// The range of node ports.
    pub(crate) fn node_ports(&self) -> RangeInclusive<u16> {
        self.pools.lock().node_ports().clone()
    }

    fn give(&self, request: &Request<'_>, object: &mut Value) -> Result<Undo, ApiError> {
        let Some(Value::Object(written)) = object.get_mut("spec") else {
            return Ok(Undo::nothing());
        };
        let read = |spec: &Value| ServiceSpec::deserialize(spec).map_err(ApiError::internal);
        let mut spec = read(&Value::Object(written.clone()))?;
        let old = request.old.map(|old| read(&old["spec"])).transpose()?;
        let owner = format!("{}/{}", request.namespace, request.name);
        let mut pools = self.pools.lock();
        pools.learning = false;
        let mut reservation = Reservation {
            pools: &mut pools,
            owner: &owner,
            kept: &format!("{KEPT_FOR}{owner}"),
            added: Vec::new(),
        };
        let done = match &old {
            Some(old) => reservation.update(&mut spec, old),
            None => reservation.create(&mut spec),
        };
        let added = reservation.added;
        if done.is_err() || request.dry_run {
            for share in added {
                pools.release(share, &owner);
            }
            done.map_err(|failure| refused(request, failure))?;
            write_back(written, &spec);
            return Ok(Undo::nothing());
        }
        drop(pools);
        write_back(written, &spec);
        let pools = Arc::clone(&self.pools);
        Ok(Undo::new(move || {
            let mut pools = pools.lock();
            for share in added {
                pools.release(share, &owner);
            }
        }))
    }

    /// Somebody makes an IPAddress by hand, to keep Services off it.
    fn keep(&self, request: &Request<'_>, object: &Value) -> Result<Undo, ApiError> {
        let Some(ip) = ip::parse_loosely(request.name) else {
            return Ok(Undo::nothing());
        };
        let (share, owner) = (Share::Ip(ip), kept_for(object));
        let mut pools = self.pools.lock();
        pools.learning = false;
        if !pools.learn(share, &owner) {
            return Err(ApiError::already_exists(request.kind, request.name));
        }
        if request.dry_run {
            pools.release(share, &owner);
            return Ok(Undo::nothing());
        }
        let pools = Arc::clone(&self.pools);
        Ok(Undo::new(move || {
            pools.lock().release(share, &owner);
        }))
    }
}

impl Plugin for Addresses {
    fn stage(&self) -> Stage {
        Stage::Allocate
    }

    fn admit(&self, request: &Request<'_>, object: &mut Value) -> Result<Undo, ApiError> {
        if !request.subresource.is_empty() {
            return Ok(Undo::nothing());
        }
        match (
            Sort::of(request.kind.group, request.kind.kind),
            request.operation,
        ) {
            (Some(Sort::Service), Operation::Create | Operation::Update) => {
                self.give(request, object)
            }
            (Some(Sort::IpAddress), Operation::Create) => self.keep(request, object),
            _ => Ok(Undo::nothing()),
        }
    }

    fn companions(&self, old: Option<&Value>, new: Option<&Value>) -> Vec<Companion> {
        let Some(any) = new.or(old) else {
            return Vec::new();
        };
        if Sort::of_object(any) != Some(Sort::Service) {
            return Vec::new();
        }
        let before = old.map(ips).unwrap_or_default();
        let after = new.map(ips).unwrap_or_default();
        let companion = |ip: std::net::IpAddr, object| Companion {
            resource: IP_ADDRESSES,
            name: ip.to_string(),
            object,
        };
        let namespace = text(any, "/metadata/namespace");
        let name = text(any, "/metadata/name");
        let added = after.iter().filter(|ip| !before.contains(ip));
        let gone = before.iter().filter(|ip| !after.contains(ip));
        added
            .map(|ip| companion(*ip, Some(ip_address::of(*ip, namespace, name))))
            .chain(gone.map(|ip| companion(*ip, None)))
            .collect()
    }

    fn committed(&self, old: Option<&Value>, new: Option<&Value>) {
        let Some(any) = new.or(old) else {
            return;
        };
        let mut pools = self.pools.lock();
        match Sort::of_object(any) {
            Some(Sort::Service) => note_service(&mut pools, old, new),
            Some(Sort::IpAddress) => note_ip_address(&mut pools, old, new),
            Some(Sort::ServiceCidr) => note_service_cidr(&mut pools, old, new),
            None => {}
        }
    }
}

/// What a write adds was reserved when it was admitted, so that only what it takes away is left to do; at start
/// everything is new. News may come in another order than the writes.
fn note_service(pools: &mut Pools, old: Option<&Value>, new: Option<&Value>) {
    let Some(any) = new.or(old) else {
        return;
    };
    let owner = owner(any);
    let before = old.map(shares).unwrap_or_default();
    let after = new.map(shares).unwrap_or_default();
    if pools.learning {
        // A Service from before a change of the ranges keeps what it has, outside of them.
        for share in after {
            if !pools.learn(share, &owner) {
                tracing::warn!(
                    service = owner,
                    ?share,
                    "another stored Service has the same"
                );
            }
        }
        return;
    }
    for share in before.into_iter().filter(|s| !after.contains(s)) {
        pools.release(share, &owner);
    }
}

/// An IPAddress keeps Services off its address, but not the one that it is for. If that has the address already, it
/// keeps others off by itself.
fn note_ip_address(pools: &mut Pools, old: Option<&Value>, new: Option<&Value>) {
    let Some(object) = new.or(old) else {
        return;
    };
    let Some(ip) = ip_address::address(object) else {
        return;
    };
    let (share, owner) = (Share::Ip(ip), kept_for(object));
    if new.is_none() {
        pools.release(share, &owner);
    } else if pools.learning {
        pools.learn(share, &owner);
    }
}

fn kept_for(object: &Value) -> String {
    let service = ip_address::service(object).filter(|_| ip_address::is_managed(object));
    service.map_or_else(
        || KEPT_FOR.to_owned(),
        |(namespace, name)| format!("{KEPT_FOR}{namespace}/{name}"),
    )
}

fn note_service_cidr(pools: &mut Pools, old: Option<&Value>, new: Option<&Value>) {
    let Some(any) = new.or(old) else {
        return;
    };
    let revision = crate::object::version(any).parse().unwrap_or(0);
    let revision: u64 = if new.is_none() {
        revision + 1
    } else {
        revision
    };
    let nets = new.map(ready_ranges).unwrap_or_default();
    pools.set_ranges(text(any, "/metadata/name"), revision, nets);
}

/// The ranges that addresses may be given out of: those of a ServiceCIDR that is ready and stays.
/// Source: `isReady` in `ipallocator/cidrallocator.go`; without a condition it is ready.
fn ready_ranges(object: &Value) -> Vec<IpNet> {
    let conditions = object.pointer("/status/conditions");
    let ready = conditions
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Ready");
    let is_ready = ready.is_none_or(|ready| ready["status"] == "True");
    if is_ready && text(object, "/metadata/deletionTimestamp").is_empty() {
        ranges(object)
    } else {
        Vec::new()
    }
}

/// All ranges of a ServiceCIDR.
pub(crate) fn ranges(object: &Value) -> Vec<IpNet> {
    let cidrs = object.pointer("/spec/cidrs").and_then(Value::as_array);
    let cidrs = cidrs.into_iter().flatten().filter_map(Value::as_str);
    cidrs.filter_map(|cidr| cidr.parse().ok()).collect()
}

fn refused(request: &Request<'_>, failure: Failure) -> ApiError {
    match failure {
        Failure::Fields(errors) => ApiError::invalid(request.kind, request.name, &errors),
        Failure::Exhausted(message) => ApiError::internal(message),
        Failure::Odd(message) => ApiError::new(500, "", message),
    }
}

/// Only these fields are given out.
fn write_back(written: &mut Map<String, Value>, spec: &ServiceSpec) {
    let mut set = |field: &str, value: Option<Value>| match value {
        Some(value) => {
            written.insert(field.to_owned(), value);
        }
        None => {
            written.remove(field);
        }
    };
    set("clusterIP", spec.cluster_ip.as_ref().map(|v| json!(v)));
    set("clusterIPs", spec.cluster_ips.as_ref().map(|v| json!(v)));
    set("ipFamilies", spec.ip_families.as_ref().map(|v| json!(v)));
    set(
        "ipFamilyPolicy",
        spec.ip_family_policy.as_ref().map(|v| json!(v)),
    );
    let health = spec.health_check_node_port.filter(|port| *port != 0);
    set("healthCheckNodePort", health.map(|v| json!(v)));
    let ports = written.get_mut("ports").and_then(Value::as_array_mut);
    for (port, settled) in std::iter::zip(ports.into_iter().flatten(), spec.ports.iter().flatten())
    {
        if let (Some(port), Some(number)) = (port.as_object_mut(), settled.node_port)
            && number != 0
        {
            port.insert("nodePort".to_owned(), json!(number));
        }
    }
}

/// Who a Service is among the owners of shares: `namespace/name`.
pub(crate) fn owner(service: &Value) -> String {
    format!(
        "{}/{}",
        text(service, "/metadata/namespace"),
        text(service, "/metadata/name")
    )
}

/// The cluster addresses of a Service.
pub(crate) fn ips(service: &Value) -> Vec<std::net::IpAddr> {
    if text(service, "/spec/type") == "ExternalName" {
        return Vec::new();
    }
    let list = service
        .pointer("/spec/clusterIPs")
        .and_then(Value::as_array);
    let texts = list.into_iter().flatten().filter_map(Value::as_str);
    texts.filter_map(ip::parse_loosely).collect()
}

/// All that a Service has of the pools, each once.
pub(crate) fn shares(service: &Value) -> Vec<Share> {
    let mut found: Vec<Share> = ips(service).into_iter().map(Share::Ip).collect();
    if text(service, "/spec/type") == "ExternalName" {
        return found;
    }
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let node_ports = ports
        .into_iter()
        .flatten()
        .filter_map(|p| p.get("nodePort").and_then(Value::as_i64));
    let health = service
        .pointer("/spec/healthCheckNodePort")
        .and_then(Value::as_i64);
    for port in node_ports.chain(health).filter(|p| *p != 0) {
        if !found.contains(&Share::Port(port)) {
            found.push(Share::Port(port));
        }
    }
    found
}

#[cfg(test)]
mod tests;
