//! Pods as isolated processes: images, containers, probes, logs, exec.
