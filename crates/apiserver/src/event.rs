//! What is derived from a change once, for all who watch: the labels before and after, and the lines in which it is
//! told. Two hundred watchers of one form are sent the same bytes.
//!
//! Lines are large and the history is long, so only the latest are kept: whoever comes later writes his own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;

use seaway_store::Event;

use crate::negotiate::{Form, MetaVersion};
use crate::selection;
use crate::status::ApiError;
use crate::table::Include;

/// Bytes of lines that are kept for further watchers.
const KEPT: usize = 4 << 20;

/// Labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;

/// The labels of an object before and after an event.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) old: Option<Labels>,
    pub(crate) new: Option<Labels>,
}

/// What is kept with an event.
#[derive(Debug, Default)]
pub(crate) struct Derived {
    change: OnceLock<Result<Change, ApiError>>,
    lines: Mutex<Vec<(Line, Bytes)>>,
}

/// What an event is to who watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Added,
    Modified,
    Deleted,
}

impl What {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// All that a line depends on beside the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) what: What,
    /// Of which version of which kind, by its address.
    pub(crate) resource: usize,
    pub(crate) form: Form,
    pub(crate) meta: MetaVersion,
    pub(crate) include: Include,
    /// Whether it tells the columns of its table.
    pub(crate) columns: bool,
    /// Tables tell ages: the second at which it was written. 0 for what does not depend on it.
    pub(crate) second: i64,
}

impl Derived {
    /// That of an event.
    pub(crate) fn of(event: &Event) -> Arc<Self> {
        event.memo(|_| Self::default())
    }

    /// The labels before and after.
    pub(crate) fn change(&self, event: &Event) -> Result<&Change, ApiError> {
        let read = |record: &Option<_>| record.as_ref().map(selection::labels).transpose();
        self.change
            .get_or_init(|| {
                Ok(Change {
                    old: read(&event.old)?,
                    new: read(&event.new)?,
                })
            })
            .as_ref()
            .map_err(Clone::clone)
    }
}

/// The lines that are kept, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Lines(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    order: VecDeque<(Arc<Derived>, usize)>,
    bytes: usize,
}

impl Lines {
    /// The line, written by the first who asks.
    pub(crate) fn line(
        &self,
        event: &Event,
        line: Line,
        write: impl FnOnce() -> Result<Bytes, ApiError>,
    ) -> Result<Bytes, ApiError> {
        let derived = Derived::of(event);
        let mut lines = derived.lines.lock();
        if let Some((_, bytes)) = lines.iter().find(|(kept, _)| *kept == line) {
            return Ok(bytes.clone());
        }
        let bytes = write()?;
        lines.push((line, bytes.clone()));
        drop(lines);
        self.keep(derived, bytes.len());
        Ok(bytes)
    }

    fn keep(&self, derived: Arc<Derived>, bytes: usize) {
        let mut kept = self.0.lock();
        kept.order.push_back((derived, bytes));
        kept.bytes += bytes;
        while kept.bytes > KEPT {
            let Some((oldest, bytes)) = kept.order.pop_front() else {
                break;
            };
            kept.bytes -= bytes;
            // All of its lines: it has few, and the others follow soon.
            oldest.lines.lock().clear();
        }
    }
}
