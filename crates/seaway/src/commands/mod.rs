//! One file for each subcommand.

pub(crate) mod completion;
pub(crate) mod down;
pub(crate) mod image;
pub(crate) mod internal;
pub(crate) mod kubeconfig;
pub(crate) mod logs;
pub(crate) mod status;
pub(crate) mod up;

use anyhow::Context as _;

/// A runtime for a command that asks something and ends.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")
}
