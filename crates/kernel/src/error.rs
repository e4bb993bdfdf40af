//! The one error of this crate: which operation on which object failed, why, and what to do about it.

use std::fmt;
use std::io;

/// A request to the kernel that did not succeed.
///
/// The message names the operation and the object, then the kernel's answer, then a hint where one is known:
/// `create network namespace: Operation not permitted (os error 1); this needs root (CAP_SYS_ADMIN)`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused the operation, or could not carry it out.
    #[error("{operation} {object}: {cause}{}", Hint(*hint))]
    Refused {
        /// What was tried, as a verb: `add route`.
        operation: &'static str,
        /// What it was tried on: `10.244.1.0/24 in the main table`.
        object: String,
        /// The kernel's answer.
        cause: io::Error,
        /// What the reader can do about it.
        hint: Option<&'static str>,
    },
    /// The request makes no sense, so the kernel was never asked.
    #[error("{operation} {object}: {reason}")]
    Invalid {
        /// What was tried, as a verb.
        operation: &'static str,
        /// What it was tried on.
        object: String,
        /// What is wrong with the request.
        reason: String,
    },
    /// The object that the operation needs does not exist.
    #[error("{operation} {object}: not found")]
    NotFound {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The object that is missing.
        object: String,
    },
}

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An answer of the kernel, with the hint that fits its error number.
    pub(crate) fn refused(
        operation: &'static str,
        object: impl Into<String>,
        cause: impl Into<io::Error>,
    ) -> Self {
        let cause = cause.into();
        let hint = hint_for(&cause);
        Self::Refused {
            operation,
            object: object.into(),
            cause,
            hint,
        }
    }

    /// The error number of the kernel's answer (`errno`), if the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { cause, .. } => cause.raw_os_error(),
            Self::Invalid { .. } | Self::NotFound { .. } => None,
        }
    }

    /// Whether the operation failed because its object is not there: what a deletion may take as success.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NotFound { .. } => true,
            Self::Refused { .. } => {
                matches!(
                    self.errno(),
                    Some(nix::libc::ENOENT | nix::libc::ENODEV | nix::libc::ESRCH)
                )
            }
            Self::Invalid { .. } => false,
        }
    }

    /// Whether the operation failed because its object is there already.
    pub fn is_already_there(&self) -> bool {
        self.errno() == Some(nix::libc::EEXIST)
    }
}

/// `; <hint>`, or nothing.
struct Hint(Option<&'static str>);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Advice that is right wherever the error number comes from in this crate.
fn hint_for(cause: &io::Error) -> Option<&'static str> {
    match cause.raw_os_error()? {
        nix::libc::EPERM | nix::libc::EACCES => {
            Some("this needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN)")
        }
        nix::libc::EMFILE => Some("this process has too many files open: raise `ulimit -n`"),
        nix::libc::ENFILE => Some("the machine has too many files open: raise fs.file-max"),
        nix::libc::ENOSPC => {
            Some("a kernel limit is reached: see user.max_*_namespaces and fs.mount-max")
        }
        nix::libc::EOPNOTSUPP => Some("this kernel was built without it"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_operation_object_cause_and_hint() {
        let error = Error::refused(
            "add link",
            "eth0",
            io::Error::from_raw_os_error(nix::libc::EPERM),
        );
        let text = error.to_string();
        assert!(
            text.starts_with("add link eth0: Operation not permitted"),
            "{text}"
        );
        assert!(
            text.ends_with("; this needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN)"),
            "{text}"
        );
    }

    #[test]
    fn a_missing_object_is_told_from_other_refusals() {
        let missing = Error::refused(
            "delete link",
            "x",
            io::Error::from_raw_os_error(nix::libc::ENODEV),
        );
        let busy = Error::refused(
            "delete link",
            "x",
            io::Error::from_raw_os_error(nix::libc::EBUSY),
        );
        assert!(missing.is_not_found());
        assert!(!busy.is_not_found());
    }
}
