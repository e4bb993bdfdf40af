//! What only Namespaces have: finalizers of what is in them.

use http::StatusCode;
use serde_json::Value;

use seaway_objects::field::FieldErrors;
use seaway_objects::metadata::validate_finalizer;

use crate::api::Call;
use crate::body::Sent;
use crate::object;
use crate::reply::Reply;
use crate::status::ApiError;
use crate::verbs::create;
use crate::verbs::get::answer;
use crate::verbs::update::{Part, change};

/// `PUT …/finalize`: says who still has something to do before a deleted Namespace goes.
pub(crate) async fn finalize(call: &Call<'_>, sent: Sent) -> Result<Reply, ApiError> {
    let sent = create::decode(call, sent.object)?;
    let wanted = sent.pointer("/spec/finalizers").and_then(Value::as_array);
    let mut errors = FieldErrors::new();
    for (i, finalizer) in wanted.into_iter().flatten().enumerate() {
        let name = finalizer.as_str().unwrap_or_default();
        errors.extend(validate_finalizer(name, &format!("spec.finalizers[{i}]")));
    }
    call.valid(&errors)?;
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
