//! placeholder
/// Environment variable with the ports to answer on.
pub const PORTS: &str = "SEAWAY_WHOAMI_PORTS";
