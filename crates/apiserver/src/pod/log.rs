//! Logs: what a container wrote, from the node that it runs on.
//! Source: `k8s.io/kubernetes/pkg/registry/core/pod` (`LogLocation`) and `ValidatePodLogOptions`.

use form_urlencoded::Serializer;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use jiff::Timestamp;

use seaway_objects::field::{FieldError, FieldErrors};
use seaway_objects::kind::Names;

use super::container;
use super::refusal::refusal;
use super::stream::ask;
use crate::api::Call;
use crate::object::text;
use crate::query::Query;
use crate::reply::{self, Reply};
use crate::status::ApiError;

/// What a refusal of the options is about.
const OPTIONS: Names = Names {
    group: "",
    version: "v1",
    kind: "PodLogOptions",
    plural: "podlogoptions",
    singular: "podlogoptions",
    short_names: &[],
    categories: &[],
    namespaced: true,
};
/// Which outputs can be asked for.
const STREAMS: [&str; 3] = ["All", "Stderr", "Stdout"];

/// Answers with what a container wrote.
pub(super) async fn log(call: &Call<'_>) -> Result<Reply, ApiError> {
    let options = Options::read(call.query)?;
    let errors = options.validate();
    if !errors.is_empty() {
        return Err(ApiError::invalid(&OPTIONS, call.name, &errors));
    }
    let pod = call.decode(&call.record()?)?;
    let container = container::choose(&pod, call.query.text("container"))?;
    let text_plain = "text/plain";
    let node = text(&pod, "/spec/nodeName");
    if node.is_empty() {
        // It has not run anywhere, so it wrote nothing.
        return Ok(reply::bytes(StatusCode::OK, text_plain, ""));
    }
    let path = format!(
        "/containerLogs/{}/{}/{container}?{}",
        call.namespace,
        call.name,
        options.to_query()
    );
    let answer = ask(call, node, Method::GET, &path, None).await?;
    if !answer.status().is_success() {
        return Err(refusal("pods/log", call.name, answer).await);
    }
    let body = answer.into_body().map_err(Into::into).boxed_unsync();
    Ok(reply::with_body(StatusCode::OK, text_plain, body))
}

/// Source: `PodLogOptions`, API reference.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Options {
    follow: bool,
    previous: bool,
    timestamps: bool,
    since_seconds: Option<i64>,
    since_time: Option<Timestamp>,
    tail_lines: Option<i64>,
    limit_bytes: Option<i64>,
    stream: Option<String>,
}

impl Options {
    fn read(query: &Query) -> Result<Self, ApiError> {
        Ok(Self {
            follow: query.flag("follow"),
            previous: query.flag("previous"),
            timestamps: query.flag("timestamps"),
            since_seconds: query.number("sinceSeconds")?,
            since_time: query.text("sinceTime").map(time).transpose()?,
            tail_lines: query.number("tailLines")?,
            limit_bytes: query.number("limitBytes")?,
            stream: query.text("stream").map(str::to_owned),
        })
    }

    fn validate(&self) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let mut positive = |field: &str, value: Option<i64>| {
            if let Some(value) = value.filter(|value| *value < 1) {
                errors.push(FieldError::invalid(field, value, "must be greater than 0"));
            }
        };
        let both = self.since_seconds.is_some() && self.since_time.is_some();
        positive("limitBytes", self.limit_bytes);
        positive("sinceSeconds", self.since_seconds.filter(|_| !both));
        if let Some(lines) = self.tail_lines.filter(|lines| *lines < 0) {
            let detail = "must be greater than or equal to 0";
            errors.insert(0, FieldError::invalid("tailLines", lines, detail));
        }
        if both {
            let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(FieldError::forbidden("", detail));
        }
        if let Some(stream) = &self.stream {
            if !STREAMS.contains(&stream.as_str()) {
                errors.push(FieldError::not_supported("stream", stream, &STREAMS));
            }
            if stream != "All" && self.tail_lines.is_some() {
                let detail = "`tailLines` and specific `stream` are mutually exclusive for now";
                errors.push(FieldError::forbidden("", detail));
            }
        }
        errors
    }

    /// The options as the node gets them.
    fn to_query(&self) -> String {
        let mut query = Serializer::new(String::new());
        for (name, on) in [
            ("follow", self.follow),
            ("previous", self.previous),
            ("timestamps", self.timestamps),
        ] {
            if on {
                query.append_pair(name, "true");
            }
        }
        for (name, value) in [
            ("sinceSeconds", self.since_seconds),
            ("tailLines", self.tail_lines),
            ("limitBytes", self.limit_bytes),
        ] {
            if let Some(value) = value {
                query.append_pair(name, &value.to_string());
            }
        }
        if let Some(time) = self.since_time {
            query.append_pair("sinceTime", &time.to_string());
        }
        if let Some(stream) = &self.stream {
            query.append_pair("stream", stream);
        }
        query.finish()
    }
}

/// A time as RFC 3339 has it. Source of the wording: Go's `time.Parse`.
fn time(text: &str) -> Result<Timestamp, ApiError> {
    text.parse().map_err(|_| {
        ApiError::bad_request(format!(
            "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &str) -> Result<Options, ApiError> {
        Options::read(&Query::parse(Some(query)))
    }

    fn refusals(query: &str) -> Vec<String> {
        let errors = options(query).unwrap().validate();
        let shown = errors.iter().map(|e| format!("{}: {}", e.field, e.message));
        shown.collect()
    }

    #[test]
    fn options_reach_the_node() {
        let query = "follow=true&previous=0&timestamps=1&tailLines=3&limitBytes=9&sinceTime=2026-11-21T10:00:00Z&stream=Stderr&x=y";
        let sent = options(query).unwrap().to_query();
        assert_eq!(
            sent,
            "follow=true&timestamps=true&tailLines=3&limitBytes=9&sinceTime=2026-11-21T10%3A00%3A00Z&stream=Stderr"
        );
        assert_eq!(options("").unwrap().to_query(), "");
    }

    #[test]
    fn options_that_make_no_sense_are_refused_in_kubernetes_words() {
        for (query, refused) in [
            (
                "tailLines=-1",
                "tailLines: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "limitBytes=0",
                "limitBytes: Invalid value: 0: must be greater than 0",
            ),
            (
                "sinceSeconds=0",
                "sinceSeconds: Invalid value: 0: must be greater than 0",
            ),
            (
                "sinceSeconds=0&sinceTime=2026-11-21T10:00:00Z",
                ": Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
            ),
            (
                "stream=stdout",
                "stream: Unsupported value: \"stdout\": supported values: \"All\", \"Stderr\", \"Stdout\"",
            ),
            (
                "stream=Stdout&tailLines=1",
                ": Forbidden: `tailLines` and specific `stream` are mutually exclusive for now",
            ),
        ] {
            assert_eq!(refusals(query), [refused], "{query}");
        }
        assert!(refusals("stream=All&tailLines=0").is_empty());
    }

    #[test]
    fn what_is_no_number_and_no_time_is_refused_before_that() {
        assert_eq!(
            options("tailLines=x").unwrap_err().message,
            "strconv.ParseInt: parsing \"x\": invalid syntax"
        );
        assert_eq!(options("sinceTime=yesterday").unwrap_err().code, 400);
    }
}
