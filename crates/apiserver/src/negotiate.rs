//! In which form the client wants the answer.
//!
//! Kubernetes asks twice, and so does this: first whether the endpoint has any of the media types, parameters aside
//! (`github.com/emicklei/go-restful`, `Route.matchesAccept`), then which of them fits with its parameters
//! (`k8s.io/apiserver/pkg/endpoints/handlers/negotiation`, `NegotiateMediaTypeOptions`). They refuse in different words.
//! Source: Kubernetes API concepts, "Alternate representations of resources" and "Receiving resources as Tables".

use http::HeaderMap;
use http::header::ACCEPT;

use crate::status::ApiError;

/// What the answer says of the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The objects.
    Objects,
    /// A table, as `kubectl get` prints it.
    Table,
    /// Only the metadata of one object (`PartialObjectMetadata`).
    Metadata,
    /// Only the metadata of each object of a list (`PartialObjectMetadataList`).
    MetadataList,
    /// All resources of all groups at once (discovery only).
    AggregatedDiscovery,
}

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
}

/// Which version of `meta.k8s.io` tables and partial objects are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetaVersion {
    V1,
    V1beta1,
}

impl MetaVersion {
    /// As `apiVersion` says it.
    pub(crate) fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// What the client accepts and the server has, the first that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accept {
    pub(crate) form: Form,
    pub(crate) meta: MetaVersion,
    pub(crate) encoding: Encoding,
}

impl Accept {
    /// What a client gets that says nothing.
    pub(crate) const JSON_OBJECTS: Self = Self {
        form: Form::Objects,
        meta: MetaVersion::V1,
        encoding: Encoding::Json,
    };
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// Documents of discovery.
    Discovery,
    /// One object, or a verb that changes something.
    Object,
    /// Objects, as a list or a watch.
    Collection,
}

/// Media types of objects, in the order in which Kubernetes names them.
const OBJECTS: [&str; 3] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];
/// Media types of streams of objects.
const STREAMS: [&str; 2] = [
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];

impl Accept {
    /// Chooses among what the first `Accept` header says; everything is accepted if there is none.
    pub(crate) fn choose(headers: &HeaderMap, endpoint: Endpoint) -> Result<Self, ApiError> {
        let text = match headers.get(ACCEPT) {
            None => "",
            // What is no text names no media type.
            Some(value) => value.to_str().unwrap_or("\u{0}"),
        };
        if text.is_empty() {
            return Ok(Self::JSON_OBJECTS);
        }
        if !names_any(text, endpoint) {
            return Err(unknown_media_types(endpoint));
        }
        ranges(text)
            .iter()
            .find_map(|range| range.accept(endpoint))
            .ok_or_else(|| not_acceptable(&OBJECTS))
    }

    /// How a refusal is written for this client: as YAML only if it wants nothing else first.
    pub(crate) fn of_refusal(headers: &HeaderMap) -> Encoding {
        Self::choose(headers, Endpoint::Object).map_or(Encoding::Json, |accept| accept.encoding)
    }

    /// The same for a watch: YAML has no stream.
    pub(crate) fn of_stream(self) -> Result<Self, ApiError> {
        if self.encoding == Encoding::Json {
            Ok(self)
        } else {
            Err(not_acceptable(&STREAMS))
        }
    }
}

/// Whether any of the media types is one that the endpoint has.
fn names_any(text: &str, endpoint: Endpoint) -> bool {
    text.split(',').any(|range| {
        let media_type = range.split(';').next().unwrap_or_default().trim();
        media_type == "*/*"
            || OBJECTS.contains(&media_type)
            || (endpoint == Endpoint::Discovery && media_type == "application/*")
    })
}

/// One range of an `Accept` header. Source: RFC 9110, section 12.5.1.
struct Range<'a> {
    kind: &'a str,
    subkind: &'a str,
    /// In thousandths.
    quality: u32,
    parameters: Vec<(&'a str, &'a str)>,
}

/// The ranges of a header, best first.
fn ranges(text: &str) -> Vec<Range<'_>> {
    let mut ranges: Vec<Range<'_>> = text.split(',').map(Range::read).collect();
    ranges.sort_by_key(|range| {
        let vague = u8::from(range.kind == "*") + u8::from(range.subkind == "*");
        (std::cmp::Reverse(range.quality), vague)
    });
    ranges
}

impl<'a> Range<'a> {
    fn read(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let (kind, subkind) = media_type.split_once('/').unwrap_or((media_type, "*"));
        let mut quality = 1000;
        let mut parameters = Vec::new();
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if name.trim() == "q" {
                quality = value
                    .trim()
                    .parse::<f32>()
                    .map_or(1000, |q| (q.clamp(0.0, 1.0) * 1000.0) as u32);
            } else {
                parameters.push((name.trim(), value.trim()));
            }
        }
        Self {
            kind: kind.trim(),
            subkind: subkind.trim(),
            quality,
            parameters,
        }
    }

    /// What the server has of this range, if it has any.
    fn accept(&self, endpoint: Endpoint) -> Option<Accept> {
        let encoding = match (self.kind, self.subkind) {
            ("application", "json" | "*") | ("*", "*") => Encoding::Json,
            ("application", "yaml") => Encoding::Yaml,
            _ => return None,
        };
        let (mut form, mut group, mut version) = (None, "", "");
        for (name, value) in &self.parameters {
            match *name {
                "as" => form = Some(*value),
                "g" => group = value,
                "v" => version = value,
                "stream"
                    if !value.is_empty() && (*value != "watch" || encoding == Encoding::Yaml) =>
                {
                    return None;
                }
                _ => {}
            }
        }
        let named = form.is_some() || !group.is_empty() || !version.is_empty();
        if !named {
            return Some(Accept {
                encoding,
                ..Accept::JSON_OBJECTS
            });
        }
        let form = form.unwrap_or_default();
        if endpoint == Endpoint::Discovery {
            let aggregated =
                (form, group, version) == ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2");
            return aggregated.then_some(Accept {
                form: Form::AggregatedDiscovery,
                encoding,
                ..Accept::JSON_OBJECTS
            });
        }
        let meta = match (group, version) {
            ("meta.k8s.io", "v1") => MetaVersion::V1,
            ("meta.k8s.io", "v1beta1") => MetaVersion::V1beta1,
            _ => return None,
        };
        let form = match form {
            "Table" => Form::Table,
            "PartialObjectMetadata" => Form::Metadata,
            "PartialObjectMetadataList" => Form::MetadataList,
            _ => return None,
        };
        Some(Accept {
            form,
            meta,
            encoding,
        })
    }
}

/// The client names no media type that there is. In the words of go-restful, the server's router.
fn unknown_media_types(endpoint: Endpoint) -> ApiError {
    let mut served = OBJECTS.to_vec();
    if endpoint == Endpoint::Collection {
        served.extend(STREAMS);
    }
    let message = format!(
        "406: Not Acceptable\n\nAvailable representations: {}",
        served.join(", ")
    );
    let mut error = ApiError::new(406, "NotAcceptable", message);
    error.details = Some(Box::default());
    error
}

/// None of the media types can be had with its parameters.
fn not_acceptable(served: &[&str]) -> ApiError {
    ApiError::not_acceptable(served)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn choose(accept: &str, endpoint: Endpoint) -> Result<Accept, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        Accept::choose(&headers, endpoint)
    }

    fn chosen(accept: &str) -> (Form, Encoding) {
        let accept = choose(accept, Endpoint::Collection).unwrap();
        (accept.form, accept.encoding)
    }

    #[test]
    fn the_first_form_that_is_served_is_taken() {
        for (accept, form, encoding) in [
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                Form::Table,
                Encoding::Json,
            ),
            (
                "application/vnd.kubernetes.protobuf, */*",
                Form::Objects,
                Encoding::Json,
            ),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io, application/json",
                Form::Objects,
                Encoding::Json,
            ),
            (
                "application/json;as=Table;v=v9;g=meta.k8s.io, application/yaml",
                Form::Objects,
                Encoding::Yaml,
            ),
            ("*/*, application/yaml", Form::Objects, Encoding::Yaml),
            (
                "application/json;q=0.5, application/yaml;q=0.7",
                Form::Objects,
                Encoding::Yaml,
            ),
            (
                "application/json;stream=watch",
                Form::Objects,
                Encoding::Json,
            ),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Form::MetadataList,
                Encoding::Json,
            ),
        ] {
            assert_eq!(chosen(accept), (form, encoding), "{accept}");
        }
        let old = "application/json;as=Table;v=v1beta1;g=meta.k8s.io";
        let old = choose(old, Endpoint::Object).unwrap();
        assert_eq!((old.form, old.meta), (Form::Table, MetaVersion::V1beta1));
    }

    #[test]
    fn what_is_not_served_is_refused_in_the_words_of_who_refuses_it() {
        let message = |accept: &str, endpoint| {
            let error = choose(accept, endpoint).unwrap_err();
            assert_eq!((error.code, error.reason), (406, "NotAcceptable"));
            error.message
        };
        assert_eq!(
            message("text/html", Endpoint::Object),
            "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        );
        assert_eq!(
            message("application/*", Endpoint::Collection),
            "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
        );
        for accept in [
            "application/json;as=Table;v=v2;g=meta.k8s.io",
            "application/json;as=Chair;v=v1;g=meta.k8s.io",
            "application/json;stream=tail",
            "application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io",
        ] {
            assert_eq!(
                message(accept, Endpoint::Collection),
                "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
            );
        }
        let yaml = choose("application/yaml", Endpoint::Collection).unwrap();
        assert_eq!(
            yaml.of_stream().unwrap_err().message,
            "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
        );
    }

    proptest! {
        #[test]
        fn no_header_is_too_odd(text in "[ -~]{0,60}") {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, text.parse().unwrap());
            let _ = Accept::choose(&headers, Endpoint::Collection);
        }
    }
}
