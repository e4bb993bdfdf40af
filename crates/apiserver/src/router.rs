//! From a request to what answers it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use seaway_objects::kind::Names;

use crate::admission::User;
use crate::api::{Api, Call};
use crate::body;
use crate::deadline;
use crate::finish::{Wanted, finish};
use crate::impersonation;
use crate::namespace;
use crate::negotiate::{Accept, Encoding, Endpoint};
use crate::options::Options;
use crate::path::{Place, Target};
use crate::pod;
use crate::proxy::{self, Door};
use crate::query::Query;
use crate::registry::Resource;
use crate::reply::{self, Reply};
use crate::reviews;
use crate::status::ApiError;
use crate::tokens;
use crate::verbs::update::Part;
use crate::verbs::{create, delete, get, list, patch, scale, update, watch};

/// The version of Kubernetes whose API this is.
const GIT_VERSION: &str = "v1.36.0+seaway";

/// Answers a request. `user` is `None` for a client without good credentials.
pub(crate) async fn handle(api: Arc<Api>, user: Option<User>, request: Request<Incoming>) -> Reply {
    let query = Query::parse(request.uri().query());
    if passes_through(request.uri().path()) {
        return route(&api, user, request)
            .await
            .unwrap_or_else(|error| refuse(&error, Encoding::Json));
    }
    let wanted = Wanted::of(&request, &query);
    let encoding = Accept::of_refusal(request.headers());
    let answer = match deadline::of(&query) {
        Ok(time) if request.method() != Method::GET => to_the_end(api, user, request, time).await,
        Ok(_) => route(&api, user, request).await,
        Err(error) => Err(error),
    };
    finish(
        answer.unwrap_or_else(|error| refuse(&error, encoding)),
        wanted,
    )
}

fn refuse(error: &ApiError, encoding: Encoding) -> Reply {
    if error.code >= 500 {
        tracing::warn!(code = error.code, message = %error.message, "a request failed");
    }
    reply::error_as(error, encoding)
}

/// Whether what is at a path is not ours but somebody else's who is asked there: it is passed on as it is, and for as
/// long as the client wants.
fn passes_through(path: &str) -> bool {
    match Target::parse(path) {
        Some(Target::Objects(place)) => matches!(
            place.subresource.as_str(),
            "log" | "exec" | "attach" | "portforward" | "proxy"
        ),
        _ => Door::parse(path).is_some(),
    }
}

/// Answers a request that changes something. It is done to its end whatever becomes of the client: a write that the
/// store has taken happens, and what admission reserved for it must not be given back.
async fn to_the_end(
    api: Arc<Api>,
    user: Option<User>,
    request: Request<Incoming>,
    time: Duration,
) -> Result<Reply, ApiError> {
    let task = tokio::spawn(async move { route(&api, user, request).await });
    match tokio::time::timeout(time, task).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(died)) => Err(ApiError::internal(died)),
        Err(_) => Err(deadline::passed()),
    }
}

/// Whether all objects of a kind can be deleted at once; Namespaces must be deleted one by one.
pub(crate) fn has_delete_collection(names: &Names) -> bool {
    (names.group, names.plural) != ("", "namespaces")
}

async fn route(
    api: &Arc<Api>,
    user: Option<User>,
    request: Request<Incoming>,
) -> Result<Reply, ApiError> {
    let target = Target::parse(request.uri().path());
    // What Kubernetes shows to everybody (`system:public-info-viewer`).
    match &target {
        Some(Target::Health) => {
            return Ok(reply::bytes(
                StatusCode::OK,
                "text/plain; charset=utf-8",
                "ok",
            ));
        }
        Some(Target::Version) => return Ok(version()),
        _ => {}
    }
    let Some(user) = user.or_else(|| token_user(api, &request)) else {
        return Err(ApiError::unauthorized());
    };
    let user = impersonation::subject(user, request.headers())?;
    if let Some(door) = Door::parse(request.uri().path()) {
        return proxy::serve(api, &door, request).await;
    }
    let place = match target {
        None => return Ok(reply::nothing_there()),
        Some(Target::Objects(place)) => place,
        Some(other) => {
            if request.method() != Method::GET {
                return Err(ApiError::method_not_allowed());
            }
            return document(api, &other, &request);
        }
    };
    let kinds = api.registry.kinds();
    let Some(resources) = kinds.version(&place.group, &place.version) else {
        return Ok(reply::nothing_there());
    };
    if (place.group.as_str(), place.resource.as_str()) == ("", "bindings") {
        return objects(
            api,
            kinds.resource("", "v1", "pods"),
            &user,
            &Place {
                subresource: "binding".to_owned(),
                ..place
            },
            request,
        )
        .await;
    }
    let resource = resources
        .into_iter()
        .find(|r| r.names.plural == place.resource);
    objects(api, resource, &user, &place, request).await
}

fn document(api: &Api, target: &Target, request: &Request<Incoming>) -> Result<Reply, ApiError> {
    let kinds = api.registry.kinds();
    let (openapi, discovery) = (kinds.openapi(), kinds.discovery());
    // OpenAPI documents have media types of their own.
    match target {
        Target::OpenApiV2 => return Ok(openapi.v2(request.headers())),
        Target::OpenApiV3 => return Ok(openapi.v3()),
        Target::OpenApiV3Document(path) => {
            return Ok(openapi.v3_document(path, request.headers()));
        }
        _ => {}
    }
    match target {
        Target::OpenIdConfiguration => {
            let configuration = tokens::configuration(&api.advertise);
            return Ok(reply::json(StatusCode::OK, &configuration));
        }
        Target::OpenIdKeys => {
            let keys = api.issuer.keys().to_string();
            return Ok(reply::bytes(
                StatusCode::OK,
                "application/jwk-set+json",
                keys,
            ));
        }
        _ => {}
    }
    let accept = Accept::choose(request.headers(), Endpoint::Discovery)?;
    Ok(match target {
        Target::CoreVersions => discovery.core_versions(accept, request.headers()),
        Target::Groups => discovery.groups(accept, request.headers()),
        Target::Group(group) => discovery.group(accept, group),
        Target::Resources { group, version } => discovery.resources(accept, group, version),
        _ => reply::nothing_there(),
    })
}

/// Who a client is that shows no certificate but a token.
fn token_user(api: &Api, request: &Request<Incoming>) -> Option<User> {
    let token = tokens::bearer(request.headers())?;
    match tokens::authenticate(api, token, &[]) {
        Ok(known) => known.map(|known| known.user),
        Err(why) => {
            tracing::debug!(why, "a client showed a token that is not good");
            None
        }
    }
}

async fn objects(
    api: &Arc<Api>,
    resource: Option<&Arc<Resource>>,
    user: &User,
    place: &Place,
    request: Request<Incoming>,
) -> Result<Reply, ApiError> {
    let resource = resource.ok_or_else(ApiError::no_such_resource)?;
    let names = resource.names;
    let misplaced = if names.namespaced {
        place.namespace.is_empty() && !place.name.is_empty()
    } else {
        !place.namespace.is_empty()
    };
    if misplaced {
        return Err(ApiError::no_such_resource());
    }
    let query = Query::parse(request.uri().query());
    let agent = request.headers().get(http::header::USER_AGENT);
    let agent = agent
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .unwrap_or_default();
    let call = Call {
        api,
        resource,
        namespace: &place.namespace,
        name: &place.name,
        subresource: &place.subresource,
        user,
        agent: &agent,
        query: &query,
        accept: accept(place, request.headers())?,
    };
    let answer = answer(&call, api, resource, place, request).await;
    let Some(warning) = resource.kind.deprecation() else {
        return answer;
    };
    // Whether the request is granted or not.
    let encoding = call.accept.encoding;
    let mut reply = answer.unwrap_or_else(|error| refuse(&error, encoding));
    reply::warn_first(&mut reply, warning);
    Ok(reply)
}

async fn answer(
    call: &Call<'_>,
    api: &Arc<Api>,
    resource: &Arc<Resource>,
    place: &Place,
    request: Request<Incoming>,
) -> Result<Reply, ApiError> {
    let names = resource.names;
    if place.watch {
        if request.method() != Method::GET {
            return Err(ApiError::method_not_allowed());
        }
        if !place.subresource.is_empty() {
            return Err(ApiError::no_such_resource());
        }
        return watch::watch(call, api, resource, request);
    }
    match place.subresource.as_str() {
        _ if resource.kind.is_review() => review(call, request).await,
        "token" if (names.group, names.plural) == ("", "serviceaccounts") => {
            if request.method() != Method::POST {
                return Err(ApiError::method_not_allowed());
            }
            let (media_type, text) = text(request).await?;
            tokens::create(call, &media_type, &text)
        }
        "" if place.name.is_empty() => collection(call, api, resource, request).await,
        "" => object(call, request).await,
        "status" if resource.kind.has_status() => part(call, request).await,
        "scale" if resource.kind.scale().is_some() => scaling(call, request).await,
        "finalize" if (names.group, names.plural) == ("", "namespaces") => {
            if request.method() != Method::PUT {
                return Err(ApiError::method_not_allowed());
            }
            let (media_type, text) = text(request).await?;
            namespace::finalize(call, body::object(names, &media_type, &text)?).await
        }
        _ if (names.group, names.plural) == ("", "pods") => pod::subresource(call, request).await,
        _ => Err(ApiError::no_such_resource()),
    }
}

/// In which form the client wants the answer. What is no object (a log, a stream, what a proxy brings) is not asked about.
fn accept(place: &Place, headers: &HeaderMap) -> Result<Accept, ApiError> {
    match place.subresource.as_str() {
        "log" | "exec" | "attach" | "portforward" | "proxy" => Ok(Accept::JSON_OBJECTS),
        "" if place.name.is_empty() || place.watch => Accept::choose(headers, Endpoint::Collection),
        _ => Accept::choose(headers, Endpoint::Object),
    }
}

async fn collection(
    call: &Call<'_>,
    api: &Arc<Api>,
    resource: &Arc<Resource>,
    request: Request<Incoming>,
) -> Result<Reply, ApiError> {
    let whole = !call.resource.names.namespaced || !call.namespace.is_empty();
    match *request.method() {
        Method::GET if call.query.flag("watch") => watch::watch(call, api, resource, request),
        Method::GET => list::list(call, resource),
        Method::POST if whole => {
            may_create(resource)?;
            let (media_type, text) = text(request).await?;
            Options::Create.check(call.query)?;
            create::create(call, body::object(call.resource.names, &media_type, &text)?).await
        }
        Method::DELETE if whole && has_delete_collection(call.resource.names) => {
            let (media_type, text) = text(request).await?;
            delete::delete_all(call, &delete::Options::read(call, &media_type, &text)?).await
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// While a definition is being deleted, nothing new of its kind is taken.
fn may_create(resource: &Resource) -> Result<(), ApiError> {
    if resource.kind.verbs().is_none_or(|v| v.contains(&"create")) {
        return Ok(());
    }
    let mut error = ApiError::method_not_allowed();
    "create not allowed while custom resource definition is terminating"
        .clone_into(&mut error.message);
    Err(error)
}

async fn object(call: &Call<'_>, request: Request<Incoming>) -> Result<Reply, ApiError> {
    match *request.method() {
        Method::DELETE => {
            let (media_type, text) = text(request).await?;
            delete::delete(call, &delete::Options::read(call, &media_type, &text)?).await
        }
        _ => write(call, request, Part::Object).await,
    }
}

async fn review(call: &Call<'_>, request: Request<Incoming>) -> Result<Reply, ApiError> {
    let namespaced = call.resource.names.namespaced;
    if !call.name.is_empty() || !call.subresource.is_empty() {
        return Err(ApiError::no_such_resource());
    }
    if request.method() != Method::POST || (namespaced && call.namespace.is_empty()) {
        return Err(ApiError::method_not_allowed());
    }
    let (media_type, text) = text(request).await?;
    reviews::create(call, &media_type, &text)
}

async fn part(call: &Call<'_>, request: Request<Incoming>) -> Result<Reply, ApiError> {
    write(call, request, Part::Status).await
}

async fn write(call: &Call<'_>, request: Request<Incoming>, part: Part) -> Result<Reply, ApiError> {
    match *request.method() {
        Method::GET => get::get(call),
        Method::PUT => {
            let (media_type, text) = text(request).await?;
            Options::Update.check(call.query)?;
            update::update(
                call,
                body::object(call.resource.names, &media_type, &text)?,
                part,
            )
            .await
        }
        Method::PATCH => {
            let (media_type, text) = text(request).await?;
            patch::patch(call, &media_type, &text, part).await
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn scaling(call: &Call<'_>, request: Request<Incoming>) -> Result<Reply, ApiError> {
    let figures = call
        .resource
        .kind
        .scale()
        .ok_or_else(ApiError::no_such_resource)?;
    match *request.method() {
        Method::GET => scale::get(call, &figures),
        Method::PUT => {
            let (media_type, text) = text(request).await?;
            scale::update(call, &figures, &media_type, &text).await
        }
        Method::PATCH => {
            let (media_type, text) = text(request).await?;
            scale::patch(call, &figures, &media_type, &text).await
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// The media type of the body, and the body.
pub(crate) async fn text(request: Request<Incoming>) -> Result<(String, Bytes), ApiError> {
    let (Parts { headers, .. }, incoming) = request.into_parts();
    Ok((body::media_type(&headers), body::read(incoming).await?))
}

fn version() -> Reply {
    let (major, minor) = ("1", "36");
    reply::json(
        StatusCode::OK,
        &json!({
            "major": major,
            "minor": minor,
            "gitVersion": GIT_VERSION,
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "",
            "compiler": "rustc",
            "platform": format!("{}/{}", std::env::consts::OS, go_architecture()),
        }),
    )
}

/// The processor, as Go names it.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
