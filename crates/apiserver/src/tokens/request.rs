//! `POST …/serviceaccounts/<name>/token`: a new token.
//! Source: `pkg/registry/core/serviceaccount/storage/token.go`.

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use seaway_objects::kinds;

use super::{Audiences, Binding, Claims, ISSUER, Reference};
use crate::api::Call;
use crate::metadata;
use crate::object::{metadata_mut, text};
use crate::reply::{self, Reply};
use crate::reviews;
use crate::status::ApiError;

/// Answers with a token of the account that the request is about.
pub(crate) fn create(call: &Call<'_>, media_type: &str, body: &[u8]) -> Result<Reply, ApiError> {
    let account = call.decode(&call.record()?)?;
    let kind = kinds::token_request();
    let mut wish = reviews::read(call, &*kind, media_type, body)?;
    kind.default(&mut wish);
    let given = text(&wish, "/metadata/name");
    if !given.is_empty() && given != call.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({})",
            call.name
        )));
    }
    let errors = kind.validate(&wish);
    if !errors.is_empty() {
        return Err(ApiError::invalid(kind.names(), call.name, &errors));
    }
    let mut binding = Binding {
        namespace: call.namespace.to_owned(),
        node: None,
        pod: None,
        secret: None,
        serviceaccount: reference(&account),
    };
    if wish["spec"]["boundObjectRef"].is_object() {
        bind(call, &wish["spec"]["boundObjectRef"], &mut binding)?;
    }
    let audiences: Vec<String> = match wish["spec"]["audiences"].as_array() {
        Some(list) if !list.is_empty() => list
            .iter()
            .filter_map(|a| a.as_str().map(str::to_owned))
            .collect(),
        _ => vec![ISSUER.to_owned()],
    };
    wish["spec"]["audiences"] = json!(audiences);
    let now = Timestamp::now().as_second();
    let seconds = wish["spec"]["expirationSeconds"]
        .as_i64()
        .unwrap_or_default();
    let claims = Claims {
        aud: Audiences::Several(audiences),
        exp: now.saturating_add(seconds),
        iat: now,
        iss: ISSUER.to_owned(),
        jti: uuid::Uuid::new_v4().to_string(),
        kubernetes: binding,
        nbf: now,
        sub: format!("system:serviceaccount:{}:{}", call.namespace, call.name),
    };
    let end = Timestamp::from_second(claims.exp).unwrap_or(Timestamp::MAX);
    wish["status"] = json!({
        "token": call.api.issuer.sign(&claims)?,
        "expirationTimestamp": metadata::timestamp(end),
    });
    let meta = metadata_mut(&mut wish);
    meta.insert("name".to_owned(), call.name.into());
    meta.insert("namespace".to_owned(), call.namespace.into());
    meta.insert("creationTimestamp".to_owned(), metadata::now().into());
    Ok(reply::value(
        StatusCode::CREATED,
        call.accept.encoding,
        &wish,
    ))
}

fn reference(object: &Value) -> Reference {
    Reference {
        name: text(object, "/metadata/name").to_owned(),
        uid: text(object, "/metadata/uid").to_owned(),
    }
}

/// Binds the token to the object that the wish names: the token ends with it.
fn bind(call: &Call<'_>, wanted: &Value, binding: &mut Binding) -> Result<(), ApiError> {
    let (version, kind) = (text(wanted, "/apiVersion"), text(wanted, "/kind"));
    let name = text(wanted, "/name");
    let (plural, namespace) = match (version, kind) {
        ("v1", "Pod") => ("pods", call.namespace),
        ("v1", "Secret") => ("secrets", call.namespace),
        ("v1", "Node") => ("nodes", ""),
        _ => {
            let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
            return Err(ApiError::bad_request(format!(
                "cannot bind token to object of type {group}/{version}, Kind={kind}"
            )));
        }
    };
    let find = |plural: &str, namespace: &str, name: &str| {
        let resource = call.api.core(plural)?;
        let object = call.api.object(&resource, namespace, name)?;
        object.ok_or_else(|| ApiError::not_found(resource.names, name))
    };
    let object = find(plural, namespace, name)?;
    let uid = text(wanted, "/uid");
    let found = reference(&object);
    if kind == "Pod" {
        let of = text(&object, "/spec/serviceAccountName");
        if of != call.name {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                call.name
            )));
        }
        let node = text(&object, "/spec/nodeName");
        if !node.is_empty() {
            binding.node = Some(find("nodes", "", node).map_or_else(
                // The node may be gone already; its name is told all the same.
                |_| Reference {
                    name: node.to_owned(),
                    uid: String::new(),
                },
                |node| reference(&node),
            ));
        }
    }
    if !uid.is_empty() && uid != found.uid {
        let message = format!(
            "Operation cannot be fulfilled on {kind} {name:?}: the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(ApiError::new(409, "Conflict", message));
    }
    match kind {
        "Pod" => binding.pod = Some(found),
        "Secret" => binding.secret = Some(found),
        _ => binding.node = Some(found),
    }
    Ok(())
}
