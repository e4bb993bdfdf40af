//! Into the kernel, and back out of it: the only file of the proxy that changes anything.
//!
//! A change is one transaction. Where it uses a number of backends for the first time, one goes before it with the
//! set and the rule for them, which nothing uses yet; where an endpoint leaves this node, one comes after it that
//! forgets the endpoint (see `table.rs` for the reasons).

use std::collections::{BTreeSet, HashMap};

use seaway_kernel::conntrack;
use seaway_kernel::nft::{Batch, Element, Socket};

use crate::diff::{Contents, Delta, difference};
use crate::error::Error;
use crate::model::{IpFamily, Protocol};
use crate::plan::{Forwarding, FrontendKey};
use crate::stale;
use crate::table::{Layout, TABLE};

/// How often forgetting clients is tried again because some of them were forgotten by the kernel meanwhile.
const FORGET_ATTEMPTS: usize = 5;

/// What [`Applier::synchronise`] had to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel held just what it should.
    Same,
    /// The table was there; so many elements were not as they should be.
    Repaired(usize),
    /// There was no table, or not one of this version: it was made anew, in one transaction.
    Replaced,
}

/// Keeps the table of one IP family, in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Applier {
    socket: Socket,
    flows: conntrack::Socket,
    layout: Layout,
    /// The ruleset's generation after the last change of ours.
    generation: Option<u32>,
}

impl Applier {
    /// Opens the way to the kernel, in the network namespace of the calling thread. Changes nothing.
    ///
    /// # Errors
    /// CAP_NET_ADMIN is missing, or the kernel has no nf_tables.
    pub fn open(family: IpFamily) -> Result<Self, Error> {
        Ok(Self {
            socket: Socket::open()?,
            flows: conntrack::Socket::open()?,
            layout: Layout::new(family),
            generation: None,
        })
    }

    /// Makes the kernel hold these contents, whatever it holds now, and leaves alone what is right already.
    ///
    /// # Errors
    /// The kernel refused. Then nothing was changed.
    pub fn synchronise(&mut self, wanted: &Contents) -> Result<Outcome, Error> {
        let Some(held) = self.read()? else {
            let mut batch = Batch::new();
            // Added first, so that the deletion finds one: in one transaction there is no moment without.
            batch.add_table(&self.layout.skeleton().table);
            batch.delete_table(self.layout.family(), TABLE);
            self.layout.encode_skeleton(&mut batch);
            let delta = difference(&Contents::default(), wanted);
            self.layout.encode_new_branches(&mut batch, &delta);
            self.layout.encode(&mut batch, &delta, &HashMap::new());
            self.commit(batch)?;
            return Ok(Outcome::Replaced);
        };
        let delta = difference(&held, wanted);
        self.apply(&delta)?;
        Ok(if delta.is_empty() {
            Outcome::Same
        } else {
            Outcome::Repaired(delta.len())
        })
    }

    /// Makes a change of what [`Applier::synchronise`] and the changes since have left.
    ///
    /// # Errors
    /// The kernel refused, most likely because someone else changed the table. Then nothing was changed, and
    /// [`Applier::synchronise`] is needed.
    pub fn apply(&mut self, delta: &Delta) -> Result<(), Error> {
        let mut batch = Batch::new();
        if self.layout.encode_new_branches(&mut batch, delta) {
            self.commit(batch)?;
            batch = Batch::new();
        }
        let handles = match delta.branches_gone().next() {
            Some(_) => self
                .layout
                .branch_handles(&self.socket.rules(self.layout.family(), TABLE)?),
            None => HashMap::new(),
        };
        self.layout.encode(&mut batch, delta, &handles);
        self.commit(batch)?;
        batch = Batch::new();
        if self.layout.encode_afterwards(&mut batch, delta) {
            self.commit(batch)?;
        }
        Ok(())
    }

    /// Makes the kernel forget what it remembers of clients and is wrong after this change, or at all if `delta` is
    /// `None`. The change is in force already. Returns how many flows were forgotten.
    ///
    /// It costs a look at all connections of the node if a frontend for datagrams lost an endpoint or got its first,
    /// a look at all clients that are remembered if one with affinity did, and nothing otherwise.
    ///
    /// # Errors
    /// The kernel refused; some may be forgotten.
    pub fn forget_stale(
        &mut self,
        forwarding: &Forwarding,
        delta: Option<&Delta>,
    ) -> Result<usize, Error> {
        let review = delta.map(Delta::frontends_to_review);
        let had_affinity = |delta: &Delta, key: &FrontendKey| {
            let now = forwarding.frontend(key);
            now.is_some_and(|frontend| frontend.policy.affinity.is_some())
                || delta.frontends.iter().any(|(changed, old, _)| {
                    changed == key && old.as_ref().is_some_and(|old| old.affinity.is_some())
                })
        };
        for node_port in [false, true] {
            let needed = match (delta, &review) {
                (Some(delta), Some(review)) => review.iter().any(|key| {
                    matches!(key, FrontendKey::NodePort { .. }) == node_port
                        && had_affinity(delta, key)
                }),
                _ => true,
            };
            if needed {
                self.forget_affinity(forwarding, node_port)?;
            }
        }
        let gone: BTreeSet<FrontendKey> = delta
            .iter()
            .flat_map(|delta| &delta.frontends)
            .filter(|(_, _, new)| new.is_none())
            .map(|(key, ..)| *key)
            .collect();
        let mut forgotten = 0;
        for protocol in [Protocol::Udp, Protocol::Sctp] {
            let needed = review
                .as_ref()
                .is_none_or(|review| review.iter().any(|key| key.protocol() == protocol));
            if !needed {
                continue;
            }
            for flow in self.flows.flows(self.layout.family(), protocol.number())? {
                if stale::flow_is_stale(&flow, forwarding, &gone) {
                    self.flows.forget(&flow)?;
                    forgotten += 1;
                }
            }
        }
        Ok(forgotten)
    }

    fn forget_affinity(&mut self, forwarding: &Forwarding, node_port: bool) -> Result<(), Error> {
        let (family, map) = (self.layout.family(), self.layout.remembered(node_port));
        for attempt in 1.. {
            let stale: Vec<Element<'static>> =
                self.socket
                    .elements_as_they_come(family, TABLE, map)?
                    .into_iter()
                    .filter(|element| {
                        self.layout.read_remembered(node_port, element).is_none_or(
                            |(key, backend)| stale::affinity_is_stale(&key, &backend, forwarding),
                        )
                    })
                    .map(|element| Element::key(element.key))
                    .collect();
            let mut batch = Batch::new();
            batch.delete_elements(family, TABLE, map, stale);
            match self.commit(batch) {
                // One of them ended its time just now.
                Err(Error::Kernel(error)) if error.is_not_found() && attempt < FORGET_ATTEMPTS => {}
                other => return other,
            }
        }
        Ok(())
    }

    /// What the kernel holds of the cluster; `None` if there is no table, or one that this version did not make.
    pub fn read(&mut self) -> Result<Option<Contents>, Error> {
        let family = self.layout.family();
        let dumped = match self.socket.read_table(family, TABLE) {
            Ok(Some(dumped)) => dumped,
            Ok(None) => return Ok(None),
            Err(error) if unreadable(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut elements = HashMap::new();
        for set in &dumped.sets {
            if self.layout.is_remembered(&set.name) {
                continue;
            }
            match self.socket.elements(family, TABLE, &set.name) {
                Ok(found) => elements.insert(set.name.clone(), found),
                Err(error) if error.is_not_found() || unreadable(&error) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
        }
        Ok(self.layout.read(dumped, &elements))
    }

    /// Whether anyone changed any rule of this network namespace since the last change of ours.
    pub fn is_disturbed(&mut self) -> Result<bool, Error> {
        Ok(Some(self.socket.generation()?) != self.generation)
    }

    fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        // Read before, and one more with our change: whatever others change meanwhile shows as a disturbance.
        let before = self.socket.generation()?;
        let changes = u32::from(!batch.is_empty());
        self.generation = None;
        self.socket.commit(batch)?;
        self.generation = Some(before.wrapping_add(changes));
        Ok(())
    }
}

/// Whether the table holds something that this version never writes.
fn unreadable(error: &seaway_kernel::Error) -> bool {
    matches!(error, seaway_kernel::Error::Invalid { .. })
}

/// Takes everything away that the proxy made in the network namespace of the calling thread. Succeeds if nothing
/// is there.
///
/// # Errors
/// The kernel refused.
pub fn cleanup() -> Result<(), Error> {
    let mut socket = Socket::open()?;
    let families = [IpFamily::V4, IpFamily::V6].map(|family| Layout::new(family).family());
    let mut batch = Batch::new();
    for table in socket.tables()? {
        if table.name == TABLE && families.contains(&table.family) {
            batch.delete_table(table.family, TABLE);
        }
    }
    Ok(socket.commit(batch)?)
}
