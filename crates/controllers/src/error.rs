//! What can go wrong in a controller: which operation, on which object, and what to look at.

/// An operation of a controller that failed. The queues retry all of them, so none is final.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or did not answer.
    #[error("{operation} {object}: {source}")]
    Api {
        /// What was tried, `create Pod` for example.
        operation: &'static str,
        /// `namespace/name` of the object, or what is known of it.
        object: String,
        /// The API server's answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// An object cannot be acted upon as it is; changing it is the only help.
    #[error("{object}: {problem}")]
    Object {
        /// `Kind namespace/name`.
        object: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The configuration cannot work.
    #[error("{field}: {problem}; {hint}")]
    Config {
        /// Field of [`crate::Config`].
        field: &'static str,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// Every address range of the cluster is given to a node.
    #[error(
        "no Pod range is left for node {node} in {cluster_cidr}; give the cluster a larger range or remove nodes"
    )]
    RangesExhausted {
        /// The node that goes without.
        node: String,
        /// The range that is used up.
        cluster_cidr: ipnet::IpNet,
    },
    /// A part of the controllers ended though nobody asked for it.
    #[error("a controller stopped: {reason}; start the controllers again")]
    Stopped {
        /// How it ended.
        reason: String,
    },
    /// Not done: the cache does not show yet what this controller wrote last.
    #[error("{object}: the cache is behind this controller's own writes")]
    Stale {
        /// `namespace/name` of the object.
        object: String,
    },
}

impl Error {
    /// Another writer was faster; doing it again from fresh state is all that is needed.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self.status(), Some(status) if status.is_conflict())
    }

    /// The object does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self.status(), Some(status) if status.is_not_found())
    }

    /// An object of this name exists.
    pub(crate) fn is_already_exists(&self) -> bool {
        matches!(self.status(), Some(status) if status.is_already_exists())
    }

    /// The namespace is being deleted and takes nothing new.
    /// Source: `k8s.io/api/core/v1`, `NamespaceTerminatingCause`.
    pub(crate) fn is_namespace_terminating(&self) -> bool {
        self.status().is_some_and(|status| {
            status.is_forbidden()
                && (status.message.contains("is being terminated")
                    || status.details.as_ref().is_some_and(|details| {
                        details
                            .causes
                            .iter()
                            .any(|cause| cause.reason == "NamespaceTerminating")
                    }))
        })
    }

    /// What the API server said, in its own words: what Events and conditions tell.
    pub(crate) fn told(&self) -> String {
        self.status()
            .map_or_else(|| self.to_string(), |status| status.message.clone())
    }

    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Error::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Says which operation on which object an API error belongs to.
pub(crate) trait Context<T> {
    /// Wraps the error.
    fn during(self, operation: &'static str, object: impl ToString) -> Result<T, Error>;
}

impl<T> Context<T> for Result<T, kube::Error> {
    fn during(self, operation: &'static str, object: impl ToString) -> Result<T, Error> {
        self.map_err(|source| Error::Api {
            operation,
            object: object.to_string(),
            source: Box::new(source),
        })
    }
}

/// Takes "it is gone already" for success; for operations whose aim is that it be gone or that are void without it.
pub(crate) fn or_gone<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
