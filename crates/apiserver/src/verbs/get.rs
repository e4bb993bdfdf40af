//! Reading one object, and answering with one.

use http::StatusCode;
use serde_json::{Map, Value};

use crate::api::Call;
use crate::negotiate::{Encoding, Form};
use crate::object;
use crate::reply::{self, JSON, Reply};
use crate::status::ApiError;
use crate::table::{self, Include};

/// Seconds after which asking again for a version that is not there yet may help. Source: `k8s.io/apiserver`,
/// `resourceVersionTooHighRetrySeconds`.
pub(crate) const RETRY: u32 = 1;

/// Answers with the object that is stored.
pub(crate) fn get(call: &Call<'_>) -> Result<Reply, ApiError> {
    if let Some(asked) = call.query.version()? {
        let current = call.api.store.revision();
        if asked > current {
            return Err(ApiError::too_large_version(asked, current, RETRY));
        }
    }
    let record = call.record()?;
    if call.accept.form == Form::Objects && call.accept.encoding == Encoding::Json {
        let mut out = Vec::with_capacity(record.value.len() + 128);
        call.resource.render(&mut out, &record, record.revision)?;
        out.push(b'\n');
        return Ok(reply::bytes(StatusCode::OK, JSON, out));
    }
    answer(call, StatusCode::OK, call.decode(&record)?)
}

/// Answers with an object, in the form that the client wants.
pub(crate) fn answer(
    call: &Call<'_>,
    code: StatusCode,
    mut object: Value,
) -> Result<Reply, ApiError> {
    let meta = call.accept.meta;
    let shown = match call.accept.form {
        Form::Objects => object,
        Form::Metadata => table::partial(meta, &mut object),
        Form::MetadataList => {
            return Err(ApiError::new(
                406,
                "NotAcceptable",
                format!(
                    "you requested PartialObjectMetadataList, but the requested object is not a list ({})",
                    call.resource.go_type()
                ),
            ));
        }
        Form::Table => {
            let mut metadata = Map::new();
            metadata.insert(
                "resourceVersion".to_owned(),
                object::version(&object).into(),
            );
            let include = Include::of(call.query)?;
            table::table(
                call.resource,
                meta,
                include,
                metadata,
                std::iter::once(object),
                true,
            )
        }
        Form::AggregatedDiscovery => return Err(ApiError::not_acceptable(&[JSON])),
    };
    Ok(reply::value(code, call.accept.encoding, &shown))
}
