//! Reading one object, and answering with one.

use http::StatusCode;
use serde_json::{Map, Value};

use crate::api::Call;
use crate::negotiate::{Encoding, Form};
use crate::object;
use crate::query::VersionMatch;
use crate::reply::{self, JSON, Reply};
use crate::status::ApiError;
use crate::table::{self, Include};

/// Answers with the object that is stored.
pub(crate) fn get(call: &Call<'_>) -> Result<Reply, ApiError> {
    let version = call.query.version()?;
    if let (Some(asked), Some(VersionMatch::NotOlderThan) | None) =
        (version, call.query.version_match()?)
    {
        let current = call.api.store.revision();
        if asked > current {
            return Err(ApiError::too_large_version(asked, current));
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
    let shown = match call.accept.form {
        Form::Objects => object,
        Form::Metadata => table::partial(&mut object),
        Form::Table => {
            let mut metadata = Map::new();
            metadata.insert(
                "resourceVersion".to_owned(),
                object::version(&object).into(),
            );
            let include = Include::of(call.query)?;
            table::table(
                call.resource,
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
