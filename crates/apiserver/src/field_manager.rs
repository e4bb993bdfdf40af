//! `metadata.managedFields` of every write: who writes, and which fields that makes theirs.
//! Source: `k8s.io/apiserver/pkg/endpoints/handlers`, `managerOrUserAgent` and the calls of the field manager.

use std::sync::{Arc, LazyLock};

use k8s_openapi::api::autoscaling::v1::Scale;
use schemars::JsonSchema as _;
use serde_json::Value;

use seaway_objects::field::{FieldError, FieldErrors, Reason};
use seaway_objects::managed::{
    self, Applied, ApplyError, Conflict, Schema, Set, Types, Writable, path_text,
};
use seaway_objects::schema::definitions_of;

use crate::api::Call;
use crate::metadata;
use crate::options;
use crate::registry::{Kinds, Resource};
use crate::status::ApiError;
use crate::verbs::update::Part;

/// The longest name of a subresource in `managedFields`, in bytes. Source: `MaxSubresourceNameLength`.
const SUBRESOURCE_MAX: usize = 256;

/// The versions in which a kind is served now.
struct Versions<'a> {
    resource: &'a Resource,
    kinds: Arc<Kinds>,
}

impl Versions<'_> {
    fn other(&self, api_version: &str) -> Option<&Arc<Resource>> {
        let place = self.resource.kind.storage();
        self.kinds
            .resources()
            .find(|r| r.api_version == api_version && r.kind.storage() == place)
    }
}

impl Types for Versions<'_> {
    fn schema(&self, api_version: &str) -> Option<Arc<Schema>> {
        if api_version == self.resource.api_version {
            return Some(self.resource.kind.typed());
        }
        self.other(api_version).map(|r| r.kind.typed())
    }

    fn convert(&self, object: &Value, api_version: &str) -> Option<Value> {
        let from = object.get("apiVersion").and_then(Value::as_str)?;
        let resource = |version: &str| {
            if version == self.resource.api_version {
                Some(self.resource)
            } else {
                self.other(version).map(|r| &**r)
            }
        };
        let (from, to) = (resource(from)?, resource(api_version)?);
        let mut object = object.clone();
        if !from.kind.stored_as_shown() {
            from.kind.make_stored(&mut object);
        }
        object["apiVersion"] = to.api_version.as_str().into();
        object["kind"] = to.names.kind.into();
        if !to.kind.stored_as_shown() {
            to.kind.show_stored(&mut object);
        }
        Some(object)
    }
}

/// Who writes: what the client calls itself, or the first word of its `User-Agent`.
fn manager(call: &Call<'_>) -> String {
    if let Some(name) = call.query.text("fieldManager") {
        return name.to_owned();
    }
    let mut name = String::new();
    let first = call.agent.split('/').next().unwrap_or_default();
    for c in first.chars().filter(|c| options::is_printable(*c)) {
        if name.len() + c.len_utf8() > options::MANAGER_MAX {
            break;
        }
        name.push(c);
    }
    name
}

fn writable(call: &Call<'_>, part: Part) -> Writable {
    match part {
        Part::Status => Writable::Only(vec![vec!["status"]]),
        _ if call.resource.kind.has_status() => Writable::AllBut(Set::of_fields(&[&["status"]])),
        _ => Writable::AllBut(Set::default()),
    }
}

fn with<T>(call: &Call<'_>, part: Part, run: impl FnOnce(&managed::Write<'_>) -> T) -> T {
    let types = Versions {
        resource: call.resource,
        kinds: call.api.registry.kinds(),
    };
    let write = managed::Write {
        types: &types,
        api_version: &call.resource.api_version,
        kind: call.resource.names.kind,
        subresource: if part == Part::Status { "status" } else { "" },
        writable: &writable(call, part),
        manager: &manager(call),
        now: &metadata::now(),
    };
    run(&write)
}

/// `managedFields` after `new` replaced `live`. `new` is as the client sent it, decoded and with defaults; neither
/// object has its `managedFields` in it.
pub(crate) fn updated(
    call: &Call<'_>,
    part: Part,
    live: Option<(&Value, Option<&Value>)>,
    new: &Value,
    sent_managed: Option<&Value>,
) -> Option<Value> {
    let (live, live_managed) = live.map_or((None, None), |(live, managed)| (Some(live), managed));
    with(call, part, |write| {
        write.updated(live, live_managed, new, sent_managed)
    })
}

/// What applying a configuration makes of an object (`None` if there is none yet).
pub(crate) fn applied(
    call: &Call<'_>,
    part: Part,
    live: Option<&Value>,
    config: &Value,
    force: bool,
) -> Result<Applied, ApiError> {
    let mut live = live.cloned();
    let live_managed = live.as_mut().and_then(managed::take);
    with(call, part, |write| {
        write.applied(live.as_ref(), live_managed.as_ref(), config, force)
    })
    .map_err(|e| refused(&e))
}

/// The only version of `Scale`.
struct Scales;

impl Types for Scales {
    fn schema(&self, api_version: &str) -> Option<Arc<Schema>> {
        static SCALE: LazyLock<Arc<Schema>> = LazyLock::new(|| {
            let schemas = definitions_of::<Scale>();
            let root = schemas.get(&*Scale::schema_name()).unwrap_or(&Value::Null);
            Arc::new(Schema::from_openapi(root, None, &|name| schemas.get(name)))
        });
        (api_version == managed::SCALE_VERSION).then(|| Arc::clone(&SCALE))
    }

    fn convert(&self, _object: &Value, _api_version: &str) -> Option<Value> {
        None
    }
}

fn with_scale<T>(call: &Call<'_>, run: impl FnOnce(&managed::Write<'_>) -> T) -> T {
    run(&managed::Write {
        types: &Scales,
        api_version: managed::SCALE_VERSION,
        kind: "Scale",
        subresource: "scale",
        writable: &Writable::AllBut(Set::default()),
        manager: &manager(call),
        now: &metadata::now(),
    })
}

/// `managedFields` of an object after its `Scale` changed from `before` to `after`. `replicas` is the path of the
/// number in the object.
pub(crate) fn scaled(
    call: &Call<'_>,
    managed: Option<&Value>,
    replicas: &[&str],
    before: &Value,
    after: &Value,
) -> Option<Value> {
    let of_scale = managed::to_scale(managed, replicas);
    let of_scale = with_scale(call, |write| {
        write.updated(Some(before), of_scale.as_ref(), after, None)
    });
    let version = &call.resource.api_version;
    managed::to_object(managed, of_scale.as_ref(), version, replicas)
}

/// What applying a `Scale` makes of it, and the `managedFields` of the object then.
pub(crate) fn scale_applied(
    call: &Call<'_>,
    managed: Option<&Value>,
    replicas: &[&str],
    before: &Value,
    config: &Value,
    force: bool,
) -> Result<(Value, Option<Value>), ApiError> {
    let of_scale = managed::to_scale(managed, replicas);
    let applied = with_scale(call, |write| {
        write.applied(Some(before), of_scale.as_ref(), config, force)
    })
    .map_err(|e| refused(&e))?;
    let version = &call.resource.api_version;
    let managed = managed::to_object(managed, applied.managed.as_ref(), version, replicas);
    Ok((applied.object.unwrap_or_else(|| before.clone()), managed))
}

/// What a client is told whose configuration is not applied.
pub(crate) fn refused(error: &ApplyError) -> ApiError {
    match error {
        ApplyError::BadRequest(why) => ApiError::bad_request(why.clone()),
        // No reason: to Kubernetes this is an error of the server.
        ApplyError::Failed(why) => ApiError::new(500, "", why.clone()),
        ApplyError::Conflicts(conflicts) => in_conflict(conflicts),
    }
}

/// Source: `NewConflictError` in `internal/conflict.go` of the field manager.
fn in_conflict(conflicts: &[Conflict]) -> ApiError {
    let message = match conflicts {
        [one] => format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            one.manager,
            path_text(&one.path)
        ),
        many => {
            let mut lines = Vec::new();
            let mut last = None;
            for conflict in many {
                if last != Some(&conflict.manager) {
                    lines.push(format!("conflicts with {}:", conflict.manager));
                    last = Some(&conflict.manager);
                }
                lines.push(format!("- {}", path_text(&conflict.path)));
            }
            format!(
                "Apply failed with {} conflicts: {}",
                many.len(),
                lines.join("\n")
            )
        }
    };
    let mut error = ApiError::new(409, "Conflict", message);
    for conflict in conflicts {
        error = error.with_cause(
            "FieldManagerConflict",
            &format!("conflict with {}", conflict.manager),
            &path_text(&conflict.path),
        );
    }
    error
}

/// What is wrong with `managedFields`. Source: `ValidateManagedFields` in `apis/meta/v1/validation`; entries that
/// cannot be read at all do not come here.
pub(crate) fn validate(managed: Option<&Value>) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (i, entry) in managed
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
    {
        let at = format!("metadata.managedFields[{i}]");
        let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
        errors.extend(options::check_manager(
            text("manager"),
            &format!("{at}.manager"),
        ));
        if text("subresource").len() > SUBRESOURCE_MAX {
            errors.push(FieldError {
                field: format!("{at}.subresource"),
                reason: Reason::TooLong,
                message: format!("Too long: may not be more than {SUBRESOURCE_MAX} bytes"),
            });
        }
    }
    errors
}
