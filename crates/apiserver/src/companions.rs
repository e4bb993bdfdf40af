//! Writing an object in one transaction with what belongs to it, so that no crash can come between: a Service and the
//! IPAddresses that say which addresses it has. Which objects those are, admission knows.

use std::sync::Arc;

use serde_json::Value;

use seaway_store::{Error as StoreError, Event, Expectation, Write};

use crate::api::{Api, Call};
use crate::metadata;
use crate::status::ApiError;

/// A write and what the store must hold for it.
pub(crate) type Change = (String, Expectation, Write);

/// What is written beside the change from `old` to `new`: what is new, and what goes.
pub(crate) fn of(
    api: &Api,
    old: Option<&Value>,
    new: Option<&Value>,
) -> Result<Companions, ApiError> {
    let mut companions = Companions::default();
    for companion in api.admission.companions(old, new) {
        let (group, version, plural) = companion.resource;
        let resource = api.registry.resource(group, version, plural);
        let resource =
            resource.ok_or_else(|| ApiError::internal(format!("{plural} are not served")))?;
        let key = resource.key("", &companion.name);
        match companion.object {
            Some(mut object) => {
                metadata::prepare_create(&mut object, "");
                let write = Write::Put(resource.encode(&object)?);
                companions.added.push((key, Expectation::Any, write));
            }
            None if api.store.get(&key).is_some() => {
                companions.gone.push((key, Expectation::Any, Write::Delete));
            }
            // Somebody removed it by hand.
            None => {}
        }
    }
    Ok(companions)
}

/// See [`of`].
#[derive(Debug, Default)]
pub(crate) struct Companions {
    added: Vec<Change>,
    gone: Vec<Change>,
}

/// Writes `change` and its companions, or nothing. What changed of the object itself.
///
/// # Errors
/// As [`seaway_store::Store::commit_all`].
pub(crate) async fn commit(
    call: &Call<'_>,
    change: Change,
    companions: Companions,
) -> Result<Arc<Event>, StoreError> {
    let at = companions.added.len();
    let changes = companions.added.into_iter().chain([change]);
    let changes = changes.chain(companions.gone).collect();
    let mut events = call.api.store.commit_all(changes).await?;
    let event = if at < events.len() {
        events.remove(at)
    } else {
        return Err(StoreError::Closed);
    };
    for event in &events {
        tell(call.api, event);
    }
    Ok(event)
}

/// Tells admission of a write that did not go through the verbs.
pub(crate) fn tell(api: &Api, event: &Event) {
    let kinds = api.registry.kinds();
    let resource = kinds
        .resources()
        .find(|resource| event.key.starts_with(&resource.prefix("")));
    let Some(resource) = resource else {
        return;
    };
    let read = |record: &Option<seaway_store::Record>| resource.decode(record.as_ref()?).ok();
    let (old, new) = (read(&event.old), read(&event.new));
    api.admission.committed(old.as_ref(), new.as_ref());
}
