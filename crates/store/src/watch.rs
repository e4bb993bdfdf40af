//! A reader of the history. It holds a cursor and nothing else, so however slow its owner is, the writer and other
//! watches do not notice; when the history has moved past the cursor the watch ends with [`Error::Compacted`].

use std::sync::Arc;

use tokio::sync::watch;

use crate::error::Error;
use crate::memory::Shared;
use crate::record::Event;

/// Events handed out at once.
const BATCH: usize = 256;

/// The changes within a prefix after a revision, in order, without gaps.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    prefix: Box<str>,
    cursor: u64,
    wake: watch::Receiver<()>,
}

impl Watch {
    pub(crate) fn new(shared: &Arc<Shared>, prefix: &str, cursor: u64) -> Result<Self, Error> {
        let wake = shared.subscribe(prefix, cursor)?;
        Ok(Self {
            shared: Arc::clone(shared),
            prefix: prefix.into(),
            cursor,
            wake,
        })
    }

    /// The next events; waits until there is one. May be dropped at any time without losing events.
    ///
    /// # Errors
    /// [`Error::Compacted`] if the watch was too slow: events are lost, list again.
    pub async fn next(&mut self) -> Result<Vec<Arc<Event>>, Error> {
        loop {
            let events = self.ready()?;
            if !events.is_empty() {
                return Ok(events);
            }
            self.wake.changed().await.map_err(|_| Error::Closed)?;
        }
    }

    /// The events that are there already; none if there is none.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub fn ready(&mut self) -> Result<Vec<Arc<Event>>, Error> {
        let (events, cursor) = self.shared.read().after(&self.prefix, self.cursor, BATCH)?;
        self.cursor = cursor;
        Ok(events)
    }

    /// All events up to this revision were handed out: a new watch from here continues this one. After
    /// [`Watch::ready`] returned nothing, this is as new as the store.
    pub fn revision(&self) -> u64 {
        self.cursor
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.unsubscribe(&self.prefix);
    }
}
