//! Namespaces as the place of other objects: they must exist, and take nothing new while they are being deleted.
//! Source: the `NamespaceLifecycle` admission plugin.

use http::StatusCode;

use crate::api::Call;
use crate::body::Sent;
use crate::metadata;
use crate::object;
use crate::reply::Reply;
use crate::status::ApiError;
use crate::verbs::create;
use crate::verbs::get::answer;
use crate::verbs::update::{Part, change};

/// Refuses what would be created where it cannot be.
pub(crate) fn must_take(call: &Call<'_>) -> Result<(), ApiError> {
    if !call.resource.names.namespaced {
        return Ok(());
    }
    let namespaces = call.api.core("namespaces")?;
    let Some(namespace) = call.api.object(&namespaces, "", call.namespace)? else {
        return Err(ApiError::not_found(namespaces.names, call.namespace));
    };
    if metadata::is_terminating(&namespace) {
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            call.namespace
        );
        let cause = format!("namespace {} is being terminated", call.namespace);
        return Err(
            ApiError::forbidden(call.resource.names, call.name, &why).with_cause(
                "NamespaceTerminating",
                &cause,
                "metadata.namespace",
            ),
        );
    }
    Ok(())
}

/// `PUT …/finalize`: says who still has something to do before a deleted Namespace goes.
pub(crate) async fn finalize(call: &Call<'_>, sent: Sent) -> Result<Reply, ApiError> {
    let sent = create::decode(call, sent.object)?;
    let object = change(call, Part::Exactly, |old| {
        let mut object = old.clone();
        match sent.pointer("/spec/finalizers") {
            Some(finalizers) => object["spec"]["finalizers"] = finalizers.clone(),
            None => {
                if let Some(spec) = object["spec"].as_object_mut() {
                    spec.remove("finalizers");
                }
            }
        }
        let version = object::version(&sent);
        if !version.is_empty() {
            object["metadata"]["resourceVersion"] = version.into();
        }
        Ok(object)
    })
    .await?;
    answer(call, StatusCode::OK, object)
}
