//! Which objects of a list or a watch the client wants: label and field selectors over stored objects.
//!
//! To decide about labels only the metadata of an object is read; fields need the whole object. The labels of an
//! event are kept with it, so that the many watches that look at the same event read them once.

use serde::Deserialize;

use seaway_objects::selector::{FieldSelector, LabelSelector};
use seaway_store::{Event, Record};

use crate::event::{Derived, Labels};
use crate::object;
use crate::query::Query;
use crate::registry::Resource;
use crate::status::ApiError;

/// Both selectors of a request.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    /// The one object that the path names, if it does.
    name: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    labels: Labels,
}

impl Selection {
    /// `labelSelector` and `fieldSelector`. Whether the kind has the fields is a question of its own, see
    /// [`Selection::check`].
    pub(crate) fn parse(query: &Query) -> Result<Self, ApiError> {
        let labels = LabelSelector::parse(query.text("labelSelector").unwrap_or_default())
            .map_err(|e| ApiError::bad_request(e.to_string()))?;
        let fields = FieldSelector::parse(query.text("fieldSelector").unwrap_or_default())
            .map_err(|e| ApiError::bad_request(e.to_string()))?;
        Ok(Self {
            labels,
            fields,
            name: None,
        })
    }

    /// Refuses fields that the kind does not offer.
    pub(crate) fn check(&self, resource: &Resource) -> Result<(), ApiError> {
        self.fields
            .check(&*resource.kind)
            .map_err(|e| ApiError::bad_request(e.to_string()))
    }

    /// Only of the object of this name, which the path names.
    pub(crate) fn named(self, name: &str) -> Result<Self, ApiError> {
        if !self.fields.is_everything() && self.fields.wanted_name() != Some(name) {
            return Err(ApiError::bad_request(
                "fieldSelector metadata.name doesn't match requested name",
            ));
        }
        Ok(Self {
            name: Some(name.to_owned()),
            ..self
        })
    }

    /// Whether it selects everything.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything() && self.name.is_none()
    }

    /// What the keys of all selected objects begin with.
    pub(crate) fn prefix(&self, resource: &Resource, namespace: &str) -> String {
        match self.name.as_deref().or(self.fields.wanted_name()) {
            // One name in one place needs no search.
            Some(name)
                if !name.contains('/') && (!namespace.is_empty() || !resource.names.namespaced) =>
            {
                resource.key(namespace, name)
            }
            _ => resource.prefix(namespace),
        }
    }

    /// Whether it selects a stored object.
    pub(crate) fn selects(&self, resource: &Resource, record: &Record) -> Result<bool, ApiError> {
        if !self.labels.is_everything() && !self.labels.matches(&labels(record)?) {
            return Ok(false);
        }
        self.selects_fields(resource, record)
    }

    /// Whether it selects the object before and after an event.
    pub(crate) fn selects_change(
        &self,
        resource: &Resource,
        event: &Event,
    ) -> Result<(bool, bool), ApiError> {
        let (mut old, mut new) = (event.old.is_some(), event.new.is_some());
        if !self.labels.is_everything() {
            let derived = Derived::of(event);
            let change = derived.change(event)?;
            let selected =
                |labels: &Option<Labels>| labels.as_ref().is_some_and(|l| self.labels.matches(l));
            (old, new) = (selected(&change.old), selected(&change.new));
        }
        let fields = |selected: bool, record: &Option<Record>| match record {
            Some(record) if selected => self.selects_fields(resource, record),
            _ => Ok(false),
        };
        Ok((fields(old, &event.old)?, fields(new, &event.new)?))
    }

    fn selects_fields(&self, resource: &Resource, record: &Record) -> Result<bool, ApiError> {
        if self.fields.is_everything() {
            return Ok(true);
        }
        Ok(self
            .fields
            .matches(&*resource.kind, &resource.decode(record)?))
    }
}

/// The labels of a stored object.
pub(crate) fn labels(record: &Record) -> Result<Labels, ApiError> {
    let metadata = object::metadata_of(&record.value);
    let metadata: Metadata = serde_json::from_slice(metadata).map_err(|e| {
        ApiError::internal(format!("{} in the store is not an object: {e}", record.key))
    })?;
    Ok(metadata.labels)
}
