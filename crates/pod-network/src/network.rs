//! The Pod network of one node: attaching Pods to it and detaching them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use seaway_kernel::rtnl::RouteSocket;
use seaway_kernel::{NetNs, sysctl};
use tokio::sync::{OnceCell, watch};

use crate::apply::Applied;
use crate::error::Error;
use crate::reservations::Reservations;
use crate::veth::{self, PodLink};

/// How long a Pod waits for the node to get a range, before it is told that there is none.
const RANGE_LIMIT: Duration = Duration::from_secs(5);

/// What the Pod network of a node has to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's name: that of its Node object.
    pub node_name: String,
    /// The node's address: its `InternalIP`, on one of its links.
    pub node_ip: IpAddr,
    /// Directory that outlives the agent and the node's restart, for the reservations.
    pub state: PathBuf,
    /// The ranges of Pods, of all nodes.
    pub cluster_cidrs: Vec<IpNet>,
    /// The ranges of Services.
    pub service_cidrs: Vec<IpNet>,
}

/// The Pod network of the node in whose network namespace it was opened. Clones are the same network.
#[derive(Debug, Clone)]
pub struct PodNetwork {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    netns: NetNs,
    socket: RouteSocket,
    reservations: Arc<Mutex<Reservations>>,
    /// Whether the node has a range; tells who waits for it.
    has_range: watch::Sender<bool>,
    /// The largest packet between nodes, in bytes: found out once.
    mtu: OnceCell<u32>,
    /// One change of links at a time, so that `retain` never sees a Pod half attached.
    links: tokio::sync::Mutex<()>,
}

impl PodNetwork {
    /// Opens the Pod network of the calling thread's network namespace, which it makes forward packets. Must be
    /// called within tokio.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the reservations of before cannot be read; [`Error::Kernel`].
    pub fn open(config: Config) -> Result<Self, Error> {
        let reservations = Reservations::open(&config.state)?;
        let opening = || Error::kernel("opening the Pod network");
        let netns = NetNs::current().map_err(opening())?;
        let socket = RouteSocket::open(&netns).map_err(opening())?;
        sysctl::enable_forwarding(&netns).map_err(opening())?;
        let inner = Inner {
            has_range: watch::Sender::new(reservations.range().is_some()),
            config,
            netns,
            socket,
            reservations: Arc::new(Mutex::new(reservations)),
            mtu: OnceCell::new(),
            links: tokio::sync::Mutex::new(()),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Sets the node's range: `spec.podCIDR` of its Node. Pods that have an address keep it.
    ///
    /// # Errors
    /// [`Error::BadRange`], [`Error::File`].
    pub fn set_pod_cidr(&self, range: IpNet) -> Result<(), Error> {
        lock(&self.inner.reservations).set_range(range)?;
        self.inner.has_range.send_replace(true);
        Ok(())
    }

    /// Gives a Pod its address and a link in its network namespace; returns the address. For a Pod that has
    /// them already, it returns the same address and repairs what is missing.
    ///
    /// # Errors
    /// [`Error::NoPodCidr`], [`Error::Exhausted`], [`Error::File`], [`Error::Kernel`]. The address stays
    /// reserved for the Pod until [`PodNetwork::detach`].
    pub async fn attach(&self, pod_uid: &str, pod_netns: &NetNs) -> Result<IpAddr, Error> {
        let inner = &self.inner;
        let mtu = self.mtu().await?;
        let address = self.reserve(pod_uid).await?;
        let link = PodLink {
            uid: pod_uid,
            address,
            pod_netns,
            node_netns: &inner.netns,
            node: &inner.socket,
            node_ip: inner.config.node_ip,
            mtu,
        };
        let _turn = inner.links.lock().await;
        link.ensure()
            .await
            .map_err(Error::kernel(format!("attaching Pod {pod_uid}")))?;
        Ok(address.into())
    }

    /// Takes a Pod's link away and gives its address back. Succeeds if it has none.
    ///
    /// # Errors
    /// [`Error::Kernel`], [`Error::File`]; then it can be tried again.
    pub async fn detach(&self, pod_uid: &str) -> Result<(), Error> {
        let _turn = self.inner.links.lock().await;
        // First the link: its address must not be another's while it lives.
        veth::remove(&self.inner.socket, pod_uid)
            .await
            .map_err(Error::kernel(format!("detaching Pod {pod_uid}")))?;
        let owner = pod_uid.to_owned();
        self.with_reservations(move |reservations| reservations.release(&owner))
            .await
    }

    /// Takes away links and addresses of all Pods but the live ones: what Pods left that went while no agent ran.
    /// `live` must name every Pod that is attached or about to be, so call it before the first `attach`.
    ///
    /// # Errors
    /// [`Error::Kernel`], [`Error::File`]; what could be removed is.
    pub async fn retain(&self, live: &BTreeSet<String>) -> Result<(), Error> {
        let turn = self.inner.links.lock().await;
        let owners = lock(&self.inner.reservations).owners();
        let live_links = live.iter().map(String::as_str);
        veth::remove_others(&self.inner.socket, live_links)
            .await
            .map_err(Error::kernel("removing links of Pods that are gone"))?;
        drop(turn);
        let mut errors = Vec::new();
        for owner in owners.iter().filter(|owner| !live.contains(*owner)) {
            if let Err(error) = self.detach(owner).await {
                errors.push(error);
            }
        }
        Error::all(errors)
    }

    /// What the controller works with.
    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The routes and the masquerade of this node, not read yet.
    pub(crate) fn applied(&self) -> Result<Applied, Error> {
        let Config {
            node_ip,
            cluster_cidrs,
            service_cidrs,
            ..
        } = &self.inner.config;
        Applied::open(
            &self.inner.netns,
            self.inner.socket.clone(),
            *node_ip,
            cluster_cidrs,
            service_cidrs,
        )
    }

    /// The Pod's address. Waits a little for the node's range: the first Pods may be quicker than the Node object.
    async fn reserve(&self, pod_uid: &str) -> Result<std::net::Ipv4Addr, Error> {
        let none = || Error::NoPodCidr {
            node: self.inner.config.node_name.clone(),
        };
        let mut has_range = self.inner.has_range.subscribe();
        // The guard that `wait_for` returns must not live on while this task waits again.
        let known = tokio::time::timeout(RANGE_LIMIT, has_range.wait_for(|has_range| *has_range))
            .await
            .is_ok_and(|waited| waited.is_ok());
        if !known {
            return Err(none());
        }
        let owner = pod_uid.to_owned();
        self.with_reservations(move |reservations| reservations.reserve(&owner))
            .await?
            .ok_or_else(none)
    }

    /// Works on the reservations on a thread that may wait for the disk.
    async fn with_reservations<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Reservations) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let reservations = Arc::clone(&self.inner.reservations);
        tokio::task::spawn_blocking(move || work(&mut lock(&reservations)))
            .await
            .map_err(|_| Error::Ending)?
    }

    /// The largest packet on the link that has the node's address.
    async fn mtu(&self) -> Result<u32, Error> {
        let Inner {
            socket,
            config,
            mtu,
            ..
        } = &*self.inner;
        let find = || async {
            let finding = || Error::kernel("finding the node's own link");
            let addresses = socket.addresses().await.map_err(finding())?;
            let links = socket.links().await.map_err(finding())?;
            let own = addresses
                .iter()
                .find(|address| address.address.addr() == config.node_ip);
            let link = own.and_then(|own| links.iter().find(|link| link.index == own.link));
            link.map(|link| link.mtu).ok_or(Error::NodeAddressMissing {
                address: config.node_ip,
            })
        };
        mtu.get_or_try_init(find).await.copied()
    }
}

/// The reservations are what is on disk at any moment, also after a panic of their holder.
fn lock(reservations: &Mutex<Reservations>) -> std::sync::MutexGuard<'_, Reservations> {
    reservations.lock().unwrap_or_else(PoisonError::into_inner)
}
