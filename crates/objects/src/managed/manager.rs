//! `managedFields` of an object after a write, with everything that Kubernetes does around the bare rules: times,
//! fields that nobody owns, the limit on old entries, and the way from client-side apply.
//! Source: `k8s.io/apimachinery/pkg/util/managedfields/internal`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::check::check;
use super::collect::collect;
use super::compare::compare;
use super::entries::{self, Managed, Manager, Operation};
use super::set::Set;
use super::update::{Conflict, Types, UpdateError, Updater, Writable};

/// So many entries of updates are kept; older ones are folded into one.
const MAX_UPDATERS: usize = 10;
/// The manager of entries that were folded.
const ANCIENT: &str = "ancient-changes";
/// The manager of what was there before managers were kept.
const BEFORE: &str = "before-first-apply";
/// The manager that `kubectl apply` has on the server's side, for which client-side apply is heeded.
const KUBECTL: &str = "kubectl";
/// Where client-side apply keeps what was applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// All annotations of an object together, in bytes. Source: `TotalAnnotationSizeLimitB`.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// One write to an object.
pub struct Write<'a> {
    /// The kind in its versions.
    pub types: &'a dyn Types,
    /// `apps/v1`: the version in which the client writes.
    pub api_version: &'a str,
    /// The kind's name.
    pub kind: &'a str,
    /// Through which subresource; empty for the object itself.
    pub subresource: &'a str,
    /// Which fields the write may own.
    pub writable: &'a Writable,
    /// Who writes; `unknown` if empty.
    pub manager: &'a str,
    /// When (RFC 3339, whole seconds).
    pub now: &'a str,
}

/// Why nothing was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplyError {
    /// Others own fields that are applied with other values.
    Conflicts(Vec<Conflict>),
    /// The configuration makes no sense as such.
    BadRequest(String),
    /// It is not of its type, or the object is not.
    Failed(String),
}

/// What applying makes of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The object; `None` if it stays as it is.
    pub object: Option<Value>,
    /// Its `managedFields`.
    pub managed: Option<Value>,
}

fn managed_fields(object: &Value) -> Option<&Value> {
    object.pointer("/metadata/managedFields")
}

/// Takes `managedFields` out of an object.
pub fn take(object: &mut Value) -> Option<Value> {
    object
        .get_mut("metadata")?
        .as_object_mut()?
        .remove("managedFields")
}

/// Puts `managedFields` into an object, or takes them out.
pub fn put(object: &mut Value, managed: Option<Value>) {
    match managed {
        Some(managed) => {
            if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
                metadata.insert("managedFields".to_owned(), managed);
            }
        }
        None => {
            take(object);
        }
    }
}

/// Fields that nobody owns: what every object has, and what the system sets.
fn system_fields() -> &'static Set {
    static FIELDS: std::sync::LazyLock<Set> = std::sync::LazyLock::new(|| {
        Set::of_fields(&[
            &["apiVersion"],
            &["kind"],
            &["metadata"],
            &["metadata", "name"],
            &["metadata", "namespace"],
            &["metadata", "creationTimestamp"],
            &["metadata", "selfLink"],
            &["metadata", "uid"],
            &["metadata", "clusterName"],
            &["metadata", "generation"],
            &["metadata", "managedFields"],
            &["metadata", "resourceVersion"],
        ])
    });
    &FIELDS
}

impl Write<'_> {
    fn updater(&self) -> Updater<'_> {
        Updater {
            types: self.types,
            version: self.api_version,
            writable: self.writable,
        }
    }

    fn identity(&self, name: &str, operation: Operation) -> Manager {
        let name = if name.is_empty() { "unknown" } else { name };
        Manager::new(name, operation, self.api_version, self.subresource)
    }

    /// `managedFields` after the object `live` (`None` if there was none) is replaced by `new`, as the client sent it
    /// and with defaults, but before the server decided anything. `live_managed` are those of `live`; neither object
    /// has them in its metadata. `sent_managed` is what the client sent of them.
    pub fn updated(
        &self,
        live: Option<&Value>,
        live_managed: Option<&Value>,
        new: &Value,
        sent_managed: Option<&Value>,
    ) -> Option<Value> {
        let before = self.start(live_managed, sent_managed);
        // An object without managers gets some only when it is created or applied to.
        if live.is_some() && before.managers.is_empty() {
            return None;
        }
        let empty = Value::Object(serde_json::Map::new());
        match self.update(live.unwrap_or(&empty), new, before, self.manager) {
            Ok(managed) => managed.write(),
            // As Kubernetes 1.36: better no owners than wrong ones.
            Err(_) => None,
        }
    }

    /// The managers that a write starts with: those that the client sent, if they make sense.
    fn start(&self, live: Option<&Value>, sent: Option<&Value>) -> Managed {
        let live = || Managed::read(live).unwrap_or_default();
        if !self.subresource.is_empty() {
            return live();
        }
        if entries::is_reset(sent) {
            return Managed::default();
        }
        match Managed::read(sent) {
            Ok(managed) if !managed.managers.is_empty() => managed,
            _ => live(),
        }
    }

    fn update(
        &self,
        live: &Value,
        new: &Value,
        managed: Managed,
        name: &str,
    ) -> Result<Managed, UpdateError> {
        let Managed {
            managers,
            mut times,
        } = managed;
        // Found out under a name that nobody has, to see whether this write took anything.
        let current = Manager::new("", Operation::Update, "", "");
        let mut managers = self.updater().update(live, new, managers, &current)?;
        if let Some(mut mine) = managers.remove(&current) {
            mine.set = mine.set.difference(system_fields());
            if !mine.set.is_empty() {
                let who = self.identity(name, Operation::Update);
                if let Some(previous) = managers.get(&who) {
                    mine.set = mine.set.union(&previous.set);
                }
                managers.insert(who.clone(), mine);
                times.insert(who, self.now.to_owned());
            }
        }
        let mut managed = Managed { managers, times };
        fold_old_updates(&mut managed);
        Ok(managed)
    }

    /// Applies a configuration to an object (`None` if there is none). `live_managed` are its `managedFields`; the
    /// object itself has none in its metadata.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn applied(
        &self,
        live: Option<&Value>,
        live_managed: Option<&Value>,
        config: &Value,
        force: bool,
    ) -> Result<Applied, ApplyError> {
        let text = |field: &str| {
            config
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (version, kind) = (text("apiVersion"), text("kind"));
        if version != self.api_version || kind != self.kind {
            return Err(ApplyError::BadRequest(format!(
                "invalid object type: {}, Kind={kind}",
                group_version(version)
            )));
        }
        if managed_fields(config).is_some_and(|m| !m.is_null()) {
            return Err(ApplyError::BadRequest(
                "metadata.managedFields must be nil".to_owned(),
            ));
        }
        let schema = self
            .types
            .schema(self.api_version)
            .ok_or_else(|| ApplyError::Failed(format!("no corresponding type for {version}")))?;
        check(&schema, config).map_err(|e| {
            let of = |pointer: &str| {
                config
                    .pointer(pointer)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            ApplyError::Failed(format!(
                "failed to create typed patch object ({}/{}; {version}, Kind={kind}): {e}",
                of("/metadata/namespace"),
                of("/metadata/name"),
            ))
        })?;
        let mut managed = Managed::read(live_managed)
            .map_err(|e| ApplyError::Failed(format!("failed to decode managed fields: {e}")))?;
        let empty = serde_json::json!({"apiVersion": version, "kind": kind, "metadata": {}});
        if let (Some(live), true) = (live, managed.managers.is_empty()) {
            managed = self
                .update(&empty, live, managed, BEFORE)
                .map_err(|e| {
                    ApplyError::Failed(format!(
                        "failed to create manager for existing fields: failed to update ManagedFields: {e}"
                    ))
                })?;
        }
        let base = live.unwrap_or(&empty);
        let mut result = self.apply_once(base, config, managed.clone(), force);
        if self.manager == KUBECTL
            && let Err(UpdateError::Conflicts(conflicts)) = &result
            && let Some(allowed) = self.owned_by_client_side_apply(base)
        {
            let left: Vec<Conflict> = conflicts
                .iter()
                .filter(|c| !allowed.has(&c.path))
                .cloned()
                .collect();
            result = if left.is_empty() {
                self.apply_once(base, config, managed, true)
            } else {
                Err(UpdateError::Conflicts(left))
            };
        }
        let (object, managed) = result.map_err(|e| match e {
            UpdateError::Conflicts(conflicts) => ApplyError::Conflicts(conflicts),
            UpdateError::Type(why) => ApplyError::Failed(why),
        })?;
        let mut applied = Applied {
            object,
            managed: managed.write(),
        };
        if self.manager == KUBECTL {
            keep_last_applied_up_to_date(&mut applied, base, config);
        }
        // What is not there yet must be made, however little was applied.
        if live.is_none() && applied.object.is_none() {
            applied.object = Some(config.clone());
        }
        Ok(applied)
    }

    fn apply_once(
        &self,
        live: &Value,
        config: &Value,
        managed: Managed,
        force: bool,
    ) -> Result<(Option<Value>, Managed), UpdateError> {
        let who = self.identity(self.manager, Operation::Apply);
        let Managed {
            managers,
            mut times,
        } = managed;
        let (object, mut managers) = self.updater().apply(live, config, managers, &who, force)?;
        if let Some(mut mine) = managers.remove(&who) {
            mine.set = mine.set.difference(system_fields());
            if !mine.set.is_empty() {
                managers.insert(who.clone(), mine);
            }
        }
        if object.is_some() {
            times.insert(who, self.now.to_owned());
        }
        Ok((object, Managed { managers, times }))
    }

    /// What client-side apply set and nobody changed since.
    fn owned_by_client_side_apply(&self, live: &Value) -> Option<Set> {
        let last = live
            .pointer("/metadata/annotations")?
            .get(LAST_APPLIED)?
            .as_str()?;
        let last: Value = serde_json::from_str(last).ok()?;
        if last.get("apiVersion").and_then(Value::as_str) != Some(self.api_version) {
            return None;
        }
        let schema = self.types.schema(self.api_version)?;
        check(&schema, &last).ok()?;
        let comparison = compare(&schema, &last, live).ok()?;
        Some(
            collect(&schema, &last)
                .difference(&comparison.modified)
                .difference(&comparison.added)
                .difference(&comparison.removed),
        )
    }
}

/// `/v1` of `v1`, as Go prints a group and version.
fn group_version(api_version: &str) -> String {
    if api_version.contains('/') {
        api_version.to_owned()
    } else {
        format!("/{api_version}")
    }
}

/// An object that has the annotation of client-side apply keeps having it, so that a client may go back.
fn keep_last_applied_up_to_date(applied: &mut Applied, live: &Value, config: &Value) {
    let object = applied.object.as_ref().unwrap_or(live);
    let has = object
        .pointer("/metadata/annotations")
        .and_then(|a| a.get(LAST_APPLIED))
        .and_then(Value::as_str)
        .is_some_and(|text| !text.is_empty());
    if !has {
        return;
    }
    let mut config = config.clone();
    if let Some(Value::Object(annotations)) = config.pointer_mut("/metadata/annotations") {
        annotations.remove(LAST_APPLIED);
    }
    let mut object = object.clone();
    if let Some(Value::Object(annotations)) = object.pointer_mut("/metadata/annotations") {
        annotations.insert(LAST_APPLIED.to_owned(), format!("{config}\n").into());
        let size: usize = annotations
            .iter()
            .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
            .sum();
        if size > ANNOTATIONS_MAX {
            annotations.remove(LAST_APPLIED);
        }
    }
    if applied.object.is_some() || object != *live {
        applied.object = Some(object);
    }
}

/// Folds the oldest entries of updates into one for each version until few enough are left.
fn fold_old_updates(managed: &mut Managed) {
    let mut updaters: Vec<Manager> = managed
        .managers
        .iter()
        .filter(|(_, owned)| !owned.applied)
        .map(|(manager, _)| manager.clone())
        .collect();
    let mut left = updaters.len();
    if left <= MAX_UPDATERS {
        return;
    }
    updaters.sort_by(|a, b| (managed.times.get(a), a).cmp(&(managed.times.get(b), b)));
    let mut first_of: BTreeMap<String, Manager> = BTreeMap::new();
    for manager in updaters {
        if left <= MAX_UPDATERS {
            return;
        }
        let Some(owned) = managed.managers.get(&manager).cloned() else {
            continue;
        };
        let bucket = Manager::new(ANCIENT, Operation::Update, &owned.api_version, "");
        let Some(first) = first_of.get(&owned.api_version) else {
            first_of.insert(owned.api_version, manager);
            continue;
        };
        if !managed.managers.contains_key(&bucket)
            && let Some(moved) = managed.managers.remove(first)
        {
            managed.managers.insert(bucket.clone(), moved);
        }
        if manager == bucket {
            continue;
        }
        if let Some(into) = managed.managers.get_mut(&bucket) {
            into.set = owned.set.union(&into.set);
        }
        managed.managers.remove(&manager);
        left -= 1;
        if let Some(time) = managed.times.get(&manager).cloned() {
            managed.times.insert(bucket, time);
        }
    }
}
