//! Who owns what after a write: the rules of server-side apply, on sets of paths.
//! Source: `structured-merge-diff`, `merge/update.go`, and KEP-555.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::collect::collect;
use super::compare::{Comparison, compare};
use super::element::{Element, equal};
use super::entries::{Manager, Managers, Owned};
use super::merge::merge;
use super::reconcile::reconcile;
use super::remove::remove;
use super::schema::Schema;
use super::set::Set;

/// The versions that a kind is served in: fields are owned in the version in which they were written.
pub trait Types {
    /// The type of the kind in that version; `None` if there is no such version (any more).
    fn schema(&self, api_version: &str) -> Option<Arc<Schema>>;

    /// The object (which is in another version) in that version; `None` if that cannot be.
    fn convert(&self, object: &Value, api_version: &str) -> Option<Value>;
}

/// Which fields a request can own at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writable {
    /// All but these and what is below them: the kind resets them to what they were.
    AllBut(Set),
    /// Only these and what is below them; each is a list of field names, `*` stands for any step.
    Only(Vec<Vec<&'static str>>),
}

impl Writable {
    fn filter(&self, set: &Set) -> Set {
        match self {
            Self::AllBut(reset) => set.recursive_difference(reset),
            Self::Only(paths) => {
                let paths: Vec<&[&str]> = paths.iter().map(Vec::as_slice).collect();
                include(set, &paths)
            }
        }
    }
}

/// What of the set begins with one of the paths, or is on the way there.
fn include(set: &Set, paths: &[&[&'static str]]) -> Set {
    if paths.iter().any(|path| path.is_empty()) {
        return set.clone();
    }
    let matches = |element: &Element, step: &str| {
        step == "*" || matches!(element, Element::Field(name) if **name == *step)
    };
    let mut out = Set::default();
    for member in &set.members {
        if paths.iter().any(|path| matches(member, path[0])) {
            out.add_member(member.clone());
        }
    }
    for (element, below) in &set.children {
        let rest: Vec<&[&str]> = paths
            .iter()
            .filter(|path| matches(element, path[0]))
            .map(|path| &path[1..])
            .collect();
        let kept = if rest.is_empty() {
            Set::default()
        } else {
            include(below, &rest)
        };
        if !kept.is_empty() {
            out.add_child(element.clone(), kept);
        }
    }
    out
}

/// A field that somebody else owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Who.
    pub manager: Manager,
    /// Which field.
    pub path: Vec<Element>,
}

/// Why managers cannot be computed, or nothing may be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// Others own fields that are applied with other values.
    #[error("there are conflicts")]
    Conflicts(Vec<Conflict>),
    /// An object is not of its type.
    #[error("{0}")]
    Type(String),
}

/// One write: which version it is in and what it may own.
pub(super) struct Updater<'a> {
    pub(super) types: &'a dyn Types,
    pub(super) version: &'a str,
    pub(super) writable: &'a Writable,
}

impl Updater<'_> {
    fn schema(&self) -> Result<Arc<Schema>, UpdateError> {
        self.types
            .schema(self.version)
            .ok_or_else(|| UpdateError::Type(format!("no corresponding type for {}", self.version)))
    }

    /// The object, which is in version `from`, in version `to`.
    fn convert<'v>(&self, object: &'v Value, from: &str, to: &str) -> Option<Cow<'v, Value>> {
        if from == to {
            return Some(Cow::Borrowed(object));
        }
        self.types.convert(object, to).map(Cow::Owned)
    }

    /// Who owns what after the object was written as a whole.
    pub(super) fn update(
        &self,
        live: &Value,
        new: &Value,
        managers: Managers,
        who: &Manager,
    ) -> Result<Managers, UpdateError> {
        let managers = self.reconciled(managers);
        let (mut managers, comparison) = self.taken(live, new, managers, who, true)?;
        let mine = managers
            .remove(who)
            .map(|owned| owned.set)
            .unwrap_or_default();
        let set = mine
            .difference(&comparison.removed)
            .union(&comparison.modified)
            .union(&comparison.added);
        let set = self.writable.filter(&set);
        if !set.is_empty() {
            managers.insert(who.clone(), self.owned(set, false));
        }
        Ok(managers)
    }

    /// The object with the configuration merged into it and without what its manager does not apply any more
    /// (`None` if it stays as it is), and who owns what then.
    pub(super) fn apply(
        &self,
        live: &Value,
        config: &Value,
        managers: Managers,
        who: &Manager,
        force: bool,
    ) -> Result<(Option<Value>, Managers), UpdateError> {
        let schema = self.schema()?;
        let mut managers = self.reconciled(managers);
        let merged = merge(&schema, live, config)
            .map_err(|e| UpdateError::Type(format!("failed to merge config: {e}")))?;
        let set = self.writable.filter(&collect(&schema, config));
        let last = managers.insert(who.clone(), self.owned(set, true));
        let pruned = self.prune(merged, &managers, last.as_ref())?;
        let (managers, _) = self.taken(live, &pruned, managers, who, force)?;
        let object = (!equal(live, &pruned)).then_some(pruned);
        Ok((object, managers))
    }

    fn owned(&self, set: Set, applied: bool) -> Owned {
        Owned {
            set,
            api_version: self.version.to_owned(),
            applied,
        }
    }

    /// Takes what changes away from all other managers, or tells whose it is.
    fn taken(
        &self,
        live: &Value,
        new: &Value,
        mut managers: Managers,
        who: &Manager,
        force: bool,
    ) -> Result<(Managers, Comparison), UpdateError> {
        let changed = |schema: &Schema, live: &Value, new: &Value| {
            compare(schema, live, new)
                .map(|c| Comparison {
                    added: self.writable.filter(&c.added),
                    modified: self.writable.filter(&c.modified),
                    removed: self.writable.filter(&c.removed),
                })
                .map_err(|e| UpdateError::Type(format!("failed to compare objects: {e}")))
        };
        let own = changed(&*self.schema()?, live, new)?;
        let mut others: BTreeMap<String, Option<Comparison>> = BTreeMap::new();
        let mut conflicts = Vec::new();
        let mut lost: Vec<(Manager, Set)> = Vec::new();
        for (manager, owned) in &managers {
            if manager == who {
                continue;
            }
            if owned.api_version != self.version && !others.contains_key(&owned.api_version) {
                let version = &owned.api_version;
                let there = self
                    .types
                    .schema(version)
                    .zip(self.convert(live, self.version, version))
                    .zip(self.convert(new, self.version, version));
                let comparison = there
                    .map(|((schema, live), new)| changed(&schema, &live, &new))
                    .transpose()?;
                others.insert(version.clone(), comparison);
            }
            let comparison = if owned.api_version == self.version {
                &own
            } else {
                match others.get(&owned.api_version) {
                    Some(Some(comparison)) => comparison,
                    // The version is gone, and with it what was owned in it.
                    _ => {
                        lost.push((manager.clone(), owned.set.clone()));
                        continue;
                    }
                }
            };
            let taken = owned
                .set
                .intersection(&comparison.modified.union(&comparison.added));
            taken.each(&mut |path| {
                conflicts.push(Conflict {
                    manager: manager.clone(),
                    path: path.to_vec(),
                });
            });
            lost.push((manager.clone(), taken.union(&comparison.removed)));
        }
        if !force && !conflicts.is_empty() {
            return Err(UpdateError::Conflicts(conflicts));
        }
        for (manager, set) in lost {
            if let Some(owned) = managers.get_mut(&manager)
                && !set.is_empty()
            {
                owned.set = owned.set.difference(&set);
            }
        }
        managers.retain(|_, owned| !owned.set.is_empty());
        Ok((managers, own))
    }

    /// Takes out what the manager applied last time and does not apply now, if nobody else owns it.
    fn prune(
        &self,
        merged: Value,
        managers: &Managers,
        last: Option<&Owned>,
    ) -> Result<Value, UpdateError> {
        let Some(last) = last.filter(|last| !last.set.is_empty()) else {
            return Ok(merged);
        };
        let version = &last.api_version;
        let (Some(schema), Some(converted)) = (
            self.types.schema(version),
            self.convert(&merged, self.version, version),
        ) else {
            return Ok(merged);
        };
        let root = Some(schema.root());
        let before = last.set.with_named_fields(&schema, root);
        let mut pruned = remove(&schema, &converted, &before);
        // What anybody owns comes back, first in the version at hand.
        let mut owned_in: BTreeMap<&str, Set> = BTreeMap::new();
        for owned in managers.values() {
            let set = owned_in.entry(&owned.api_version).or_default();
            *set = set.union(&owned.set);
        }
        let mut at: &str = version;
        let mut whole = converted.clone();
        let first = owned_in.remove_entry(version.as_str());
        for (version, owned) in first.into_iter().chain(owned_in) {
            let (Some(schema), Some(all), Some(rest)) = (
                self.types.schema(version),
                self.convert(&whole, at, version).map(Cow::into_owned),
                self.convert(&pruned, at, version).map(Cow::into_owned),
            ) else {
                continue;
            };
            let root = Some(schema.root());
            let named = |object: &Value| collect(&schema, object).with_named_fields(&schema, root);
            let keep = named(&rest).union(&owned.with_named_fields(&schema, root));
            pruned = remove(&schema, &all, &named(&all).difference(&keep));
            whole = Cow::Owned(all);
            at = version;
        }
        // And what the manager did not own itself.
        let Some(rest) = self.convert(&pruned, at, version) else {
            return Ok(merged);
        };
        let named = |object: &Value| collect(&schema, object).with_named_fields(&schema, root);
        let gone = named(&converted)
            .difference(&named(&rest))
            .intersection(&before);
        let pruned = remove(&schema, &converted, &gone);
        let back = self
            .convert(&pruned, version, self.version)
            .map(Cow::into_owned);
        back.ok_or_else(|| {
            UpdateError::Type(format!(
                "failed to prune fields: failed to convert pruned object to {}",
                self.version
            ))
        })
    }

    /// Sets as the types are now.
    fn reconciled(&self, mut managers: Managers) -> Managers {
        for owned in managers.values_mut() {
            if let Some(schema) = self.types.schema(&owned.api_version)
                && let Some(set) = reconcile(&schema, &owned.set)
            {
                owned.set = set;
            }
        }
        managers
    }
}
