//! Dev-only: namespaces without a way out, probes, waiting on conditions.
