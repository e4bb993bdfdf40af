//! One write of a Service on its way: what it gets, and what it is refused.
//!
//! Source: `allocateCreate` and `allocateUpdate` in `pkg/registry/core/service/storage/alloc.go`.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use seaway_objects::field::{FieldError, FieldErrors};
use seaway_objects::ip;

use super::families;
use super::pools::{Family, Pools, Share};

/// Why a Service cannot have what it needs.
pub(super) enum Failure {
    /// The Service asks for something that it cannot have.
    Fields(FieldErrors),
    /// There is nothing left.
    Exhausted(String),
    /// Kubernetes says this without a reason.
    Odd(String),
}

/// See the module.
pub(super) struct Reservation<'a> {
    pub(super) pools: &'a mut Pools,
    pub(super) owner: &'a str,
    /// Whose are addresses that are kept for this Service: it may take them.
    pub(super) kept: &'a str,
    /// What this write adds. Whoever made the reservation gives it back if the write is not stored.
    pub(super) added: Vec<Share>,
}

impl Reservation<'_> {
    /// A new Service.
    pub(super) fn create(&mut self, spec: &mut ServiceSpec) -> Result<(), Failure> {
        self.settle_families(spec, None)?;
        self.give_ips(spec)?;
        if has_node_ports(spec) {
            self.give_node_ports(spec)?;
        }
        if needs_health_check(spec) {
            self.give_health_check(spec)?;
        }
        Ok(())
    }

    /// A changed Service. What it gives up is released when the change was stored.
    pub(super) fn update(
        &mut self,
        spec: &mut ServiceSpec,
        old: &ServiceSpec,
    ) -> Result<(), Failure> {
        self.settle_families(spec, Some(old))?;
        self.change_ips(spec, old)?;
        if has_node_ports(spec) {
            self.change_node_ports(spec, old)?;
        }
        if needs_health_check(spec) && !needs_health_check(old) {
            self.give_health_check(spec)?;
        }
        Ok(())
    }

    fn settle_families(
        &mut self,
        spec: &mut ServiceSpec,
        old: Option<&ServiceSpec>,
    ) -> Result<(), Failure> {
        let cluster = self.pools.families().to_vec();
        let errors = families::settle(spec, old, &cluster);
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Failure::Fields(errors))
        }
    }

    /// An address of each of its families.
    fn give_ips(&mut self, spec: &mut ServiceSpec) -> Result<(), Failure> {
        if families::is_external(spec) || first_ip(spec) == "None" {
            return Ok(());
        }
        let families = spec.ip_families.clone().unwrap_or_default();
        let mut ips = spec.cluster_ips.clone().unwrap_or_default();
        ips.resize(ips.len().max(families.len()), String::new());
        for (i, family) in families.iter().enumerate() {
            ips[i] = self.give_ip(family, &ips, i)?;
        }
        spec.cluster_ip = ips.first().cloned();
        spec.cluster_ips = Some(ips);
        Ok(())
    }

    /// Source: `updateClusterIPs`; its four cases, of which two only release.
    fn change_ips(&mut self, spec: &mut ServiceSpec, old: &ServiceSpec) -> Result<(), Failure> {
        if families::stays_as_it_is(spec, Some(old)) {
            return Ok(());
        }
        if families::is_external(old) {
            return self.give_ips(spec);
        }
        if first_ip(old) == "None" || families::is_external(spec) {
            return Ok(());
        }
        let count = |spec: &ServiceSpec| spec.ip_families.as_ref().map_or(0, Vec::len);
        if count(old) == 1 && count(spec) == 2 {
            let second = spec.ip_families.clone().unwrap_or_default().remove(1);
            let mut ips = spec.cluster_ips.clone().unwrap_or_default();
            ips.resize(ips.len().max(2), String::new());
            ips[1] = self.give_ip(&second, &ips, 1)?;
            spec.cluster_ips = Some(ips);
        }
        Ok(())
    }

    /// The address that is asked for, or any.
    fn give_ip(&mut self, family: &str, ips: &[String], i: usize) -> Result<String, Failure> {
        let asked = ips.get(i).map(String::as_str).unwrap_or_default();
        if asked.is_empty() {
            let family = Family::read(family)
                .ok_or_else(|| Failure::Exhausted(format!("unknown IP family {family:?}")))?;
            let picked = self.pools.pick_ip(family, self.owner);
            let ip = picked.map_err(|refusal| {
                Failure::Exhausted(format!(
                    "failed to allocate a serviceIP: {}",
                    self.pools.words(Share::Port(0), refusal)
                ))
            })?;
            self.added.push(Share::Ip(ip));
            return Ok(ip.to_string());
        }
        let ip = ip::parse_loosely(asked)
            .ok_or_else(|| Failure::Exhausted(format!("failed to parse service IP {asked:?}")))?;
        let share = Share::Ip(ip);
        self.pools.forfeit(share, self.kept);
        self.pools.claim(share, self.owner).map_err(|refusal| {
            let why = self.pools.words(share, refusal);
            let words = format!("failed to allocate IP {asked}: {why}");
            Failure::Fields(vec![FieldError::invalid("spec.clusterIPs", ips, &words)])
        })?;
        self.added.push(share);
        Ok(asked.to_owned())
    }

    /// The same port of several protocols gets the same node port. Source: `initNodePorts`.
    fn give_node_ports(&mut self, spec: &mut ServiceSpec) -> Result<(), Failure> {
        let wanted = gives_node_ports(spec);
        let ports = spec.ports.as_deref_mut().unwrap_or_default();
        let mut by_port: HashMap<i32, i32> = HashMap::new();
        for i in 0..ports.len() {
            let (port, asked) = (ports[i].port, node_port(&ports[i]));
            if asked == 0 && !wanted {
                continue;
            }
            let given = match by_port.get(&port) {
                Some(&shared) if asked == 0 || asked == shared => shared,
                Some(_) => self.give_port(asked, i)?,
                None => {
                    let same = ports.iter().filter(|other| other.port == port);
                    let named = same.map(node_port).find(|number| *number != 0);
                    let given = match named {
                        Some(number) => self.give_port(number, i)?,
                        None => self.pick_port("failed to allocate a nodePort")?,
                    };
                    by_port.insert(port, given);
                    given
                }
            };
            ports[i].node_port = Some(given);
        }
        Ok(())
    }

    /// Source: `updateNodePorts`: new ports do not share, and what the old version had needs no asking.
    fn change_node_ports(
        &mut self,
        spec: &mut ServiceSpec,
        old: &ServiceSpec,
    ) -> Result<(), Failure> {
        let wanted = gives_node_ports(spec);
        let mut had: Vec<i32> = old.ports.iter().flatten().map(node_port).collect();
        let ports = spec.ports.as_deref_mut().unwrap_or_default();
        let mut seen: Vec<(Option<String>, i32)> = Vec::new();
        for (i, port) in ports.iter_mut().enumerate() {
            let asked = node_port(port);
            if asked == 0 && !wanted {
                continue;
            }
            let given = if asked == 0 {
                self.pick_port("failed to allocate a nodePort")?
            } else if had.contains(&asked) {
                asked
            } else {
                had.push(asked);
                self.give_port(asked, i)?
            };
            port.node_port = Some(given);
            let key = (port.protocol.clone(), given);
            if seen.contains(&key) {
                let protocol = key.0.unwrap_or_default();
                return Err(Failure::Odd(format!(
                    "duplicate nodePort: {{{protocol} {given}}}"
                )));
            }
            seen.push(key);
        }
        Ok(())
    }

    fn give_health_check(&mut self, spec: &mut ServiceSpec) -> Result<(), Failure> {
        let asked = spec.health_check_node_port.unwrap_or(0);
        if asked == 0 {
            let port = self.pick_port("failed to allocate a HealthCheck NodePort 0")?;
            spec.health_check_node_port = Some(port);
            return Ok(());
        }
        let share = Share::Port(asked.into());
        self.pools.claim(share, self.owner).map_err(|refusal| {
            let why = self.pools.words(share, refusal);
            Failure::Exhausted(format!(
                "failed to allocate requested HealthCheck NodePort {asked}: {why}"
            ))
        })?;
        self.added.push(share);
        Ok(())
    }

    /// A node port that is asked for by name. Twice by the same write is once too often.
    fn give_port(&mut self, number: i32, i: usize) -> Result<i32, Failure> {
        let share = Share::Port(number.into());
        let claimed = if self.added.contains(&share) {
            Err(super::pools::Refusal::Taken)
        } else {
            self.pools.claim(share, self.owner)
        };
        claimed.map_err(|refusal| {
            let at = format!("spec.ports[{i}].nodePort");
            let why = self.pools.words(share, refusal);
            Failure::Fields(vec![FieldError::invalid(at, number, &why)])
        })?;
        self.added.push(share);
        Ok(number)
    }

    fn pick_port(&mut self, what: &str) -> Result<i32, Failure> {
        let picked = self.pools.pick_port(self.owner);
        let port = picked.map_err(|refusal| {
            let why = self.pools.words(Share::Port(0), refusal);
            Failure::Exhausted(format!("{what}: {why}"))
        })?;
        self.added.push(Share::Port(port));
        Ok(i32::try_from(port).unwrap_or(0))
    }
}

fn first_ip(spec: &ServiceSpec) -> &str {
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    ips.first().map(String::as_str).unwrap_or_default()
}

fn node_port(port: &ServicePort) -> i32 {
    port.node_port.unwrap_or(0)
}

fn has_node_ports(spec: &ServiceSpec) -> bool {
    matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"))
}

/// Whether ports without a node port get one. Source: `shouldAllocateNodePorts`.
fn gives_node_ports(spec: &ServiceSpec) -> bool {
    match spec.type_.as_deref() {
        Some("NodePort") => true,
        Some("LoadBalancer") => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

fn needs_health_check(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("LoadBalancer")
        && spec.external_traffic_policy.as_deref() == Some("Local")
}
