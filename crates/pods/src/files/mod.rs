//! The files that a Pod finds in its containers: volumes, `/etc/hosts`, `/etc/resolv.conf`, and how they get there.

mod names;
mod projection;
mod resolver;
mod volumes;

pub use names::{PodNames, hosts_file, pod_names};
pub use projection::{ProjectionError, project};
pub use resolver::{ClusterDns, Resolver};
pub use volumes::{
    FileContent, HostPathType, VolumeContent, VolumeError, mounts, source_names, volume_content,
};
