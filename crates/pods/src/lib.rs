//! Pods as isolated processes: images, containers, probes, logs, exec.

pub mod images;
mod rooted;
pub mod runtime;
pub mod whoami;
