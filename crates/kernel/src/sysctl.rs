//! Kernel parameters of a network namespace: the files below `/proc/sys/net`.
//!
//! Which namespace such a file speaks of is decided by the thread that opens it, so each call does its work on
//! a thread inside the namespace. Keys are written with slashes (`ipv4/conf/eth0/rp_filter`), relative to
//! `/proc/sys/net`, because link names may hold dots.

use std::fs;

use crate::error::{Error, Result};
use crate::netns::NetNs;

/// Sets parameters of `netns`, in order, and stops at the first that fails.
pub fn set(netns: &NetNs, parameters: &[(&str, &str)]) -> Result<()> {
    netns.run(|| {
        for (key, value) in parameters {
            let file = path_of("set", key)?;
            fs::write(&file, value)
                .map_err(|cause| Error::refused("set", format!("{file} to {value}"), cause))?;
        }
        Ok(())
    })?
}

/// Reads a parameter of `netns`, without the line end.
pub fn read(netns: &NetNs, key: &str) -> Result<String> {
    netns.run(|| {
        let file = path_of("read", key)?;
        let value =
            fs::read_to_string(&file).map_err(|cause| Error::refused("read", file, cause))?;
        Ok(value.trim_end().to_owned())
    })?
}

/// Makes `netns` pass packets on from one link to another (`net.ipv4.ip_forward`).
pub fn enable_forwarding(netns: &NetNs) -> Result<()> {
    set(netns, &[("ipv4/ip_forward", "1")])
}

fn path_of(operation: &'static str, key: &str) -> Result<String> {
    if key.split('/').any(|part| part.is_empty() || part == "..") {
        let reason = "a key is a relative path below /proc/sys/net".to_owned();
        return Err(Error::Invalid {
            operation,
            object: key.to_owned(),
            reason,
        });
    }
    Ok(format!("/proc/sys/net/{key}"))
}
