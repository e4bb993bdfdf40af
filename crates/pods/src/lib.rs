//! Pods as isolated processes: images, containers, probes, logs, exec.

pub mod images;
pub mod runtime;
