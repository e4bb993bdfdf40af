//! Pods as isolated processes: images, containers, probes, logs, exec.
//!
//! To a node this is what a kubelet is: it registers the node, follows the Pods that are bound to it
//! ([`controller`]), and has one [`worker`] for each. A worker looks at what the runtime has ([`history`]), makes
//! the [`plan`] and the [`status`], which are pure, and starts the work ([`apply`]).

mod agent;
pub mod apply;
pub mod backoff;
mod config;
pub mod controller;
pub mod env;
mod error;
pub mod events;
pub mod exec;
pub mod files;
pub mod history;
pub mod hooks;
pub mod images;
pub mod launch;
pub mod model;
pub mod node;
pub mod plan;
pub mod probes;
pub mod quantity;
mod rooted;
pub mod runtime;
pub mod server;
pub mod services;
pub mod sources;
pub mod status;
pub mod status_writer;
pub mod tokens;
pub mod whoami;
pub mod worker;

pub use agent::run;
pub use config::{Config, KUBELET_PORT, Tls};
pub use error::Error;
