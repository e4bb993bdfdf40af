//! What is wrong with a value for its type. Source: `structured-merge-diff`, `typed/helpers.go`.

use std::fmt;

/// Everything that is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeErrors(Vec<(String, String)>);

impl TypeErrors {
    pub(super) fn one(message: impl Into<String>) -> Self {
        Self(vec![(String::new(), message.into())])
    }

    /// The same errors, of something that is found at `prefix`.
    pub(super) fn under(mut self, prefix: &impl fmt::Display) -> Self {
        for (path, _) in &mut self.0 {
            path.insert_str(0, &prefix.to_string());
        }
        self
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    pub(super) fn result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for TypeErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |(path, message): &(String, String)| {
            if path.is_empty() {
                message.clone()
            } else {
                format!("{path}: {message}")
            }
        };
        match self.0.as_slice() {
            [one] => f.write_str(&line(one)),
            many => {
                f.write_str("errors:")?;
                many.iter().try_for_each(|e| write!(f, "\n  {}", line(e)))
            }
        }
    }
}

impl std::error::Error for TypeErrors {}
