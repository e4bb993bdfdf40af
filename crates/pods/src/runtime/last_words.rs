//! What libcontainer says when it fails.
//!
//! Of the error in the container's first process only the outermost text comes back ("failed to prepare rootfs"). On
//! the way out every layer reports through `tracing`, the innermost first, and that is the one worth showing. So a
//! helper that calls libcontainer collects these reports in a file, which is open before libcontainer forks and so
//! can be written from whatever mount namespace the report is made in.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// A file of error reports.
#[derive(Debug)]
pub(super) struct LastWords {
    path: PathBuf,
}

impl LastWords {
    /// Collects from now on, for the rest of the process. Where another subscriber was first, there is nothing to
    /// collect.
    pub(super) fn collect(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let _ = tracing::subscriber::set_global_default(Collector { file });
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// The innermost report.
    pub(super) fn first(&self) -> Option<String> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        text.lines().next().map(str::to_owned)
    }
}

struct Collector {
    file: File,
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        // One write, since several processes share the file.
        let _ = (&self.file).write_all(line.text().as_bytes());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// `message (name: value, …)`
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn text(&self) -> String {
        let text = match self.fields.as_str() {
            "" => self.message.clone(),
            fields => format!("{} ({fields})", self.message),
        };
        text.replace('\n', " ") + "\n"
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            let separator = if self.fields.is_empty() { "" } else { ", " };
            let _ = write!(self.fields, "{separator}{}: {value:?}", field.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_are_collected_each_on_one_line_with_its_fields() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("words");
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        tracing::subscriber::with_default(Collector { file }, || {
            tracing::warn!("not this");
            tracing::error!(path = ?Path::new("/x"), errno = 2, "failed to mount\nit");
            tracing::error!("failed to prepare");
        });
        let words = LastWords { path: path.clone() };
        let first = "failed to mount it (path: \"/x\", errno: 2)";
        assert_eq!(words.first().as_deref(), Some(first));
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 2);
    }
}
