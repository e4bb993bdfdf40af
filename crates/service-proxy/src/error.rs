//! What can end the service proxy, or one attempt of it.

/// Why the service proxy could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a change of the forwarding table, or could not be asked.
    #[error("forwarding table: {0}")]
    Kernel(#[from] seaway_kernel::Error),
    /// The configuration makes no sense.
    #[error("configuration of the service proxy: {field}: {reason}")]
    Config {
        /// Which field of [`crate::Config`].
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The thread that speaks to the kernel ended unexpectedly.
    #[error("the thread that programs the kernel ended: {0}; this is a bug")]
    Worker(String),
}
