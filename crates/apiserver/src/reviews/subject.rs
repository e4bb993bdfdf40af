//! Who am I?
//! Source: `pkg/registry/authentication/selfsubjectreview`.

use serde_json::{Map, Value, json};

use crate::admission::User;
use crate::api::Call;
use crate::metadata;
use crate::object::metadata_mut;
use crate::status::ApiError;

pub(super) fn answer(call: &Call<'_>, mut question: Value) -> Result<Value, ApiError> {
    metadata_mut(&mut question).insert("creationTimestamp".to_owned(), metadata::now().into());
    question["status"] = json!({"userInfo": info(call.user)});
    Ok(question)
}

/// A user, as the API tells of one.
pub(super) fn info(user: &User) -> Value {
    let mut info = Map::new();
    info.insert("username".to_owned(), json!(user.name));
    if !user.uid.is_empty() {
        info.insert("uid".to_owned(), json!(user.uid));
    }
    if !user.groups.is_empty() {
        info.insert("groups".to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".to_owned(), json!(user.extra));
    }
    Value::Object(info)
}
