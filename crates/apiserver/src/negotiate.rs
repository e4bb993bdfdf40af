//! In which form the client wants the answer. Source: Kubernetes API concepts, "Receiving resources as Tables".

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
    /// Only their metadata (`PartialObjectMetadata`).
    Metadata,
    /// All resources of all groups at once (discovery only).
    AggregatedDiscovery,
}

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
}

/// What the client accepts and the server has, the first that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accept {
    pub(crate) form: Form,
    pub(crate) encoding: Encoding,
}

const SERVED: &str = "application/json, application/yaml, application/json;stream=watch";

impl Accept {
    /// Chooses among what the `Accept` headers say; everything is accepted if there is none.
    pub(crate) fn choose(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut asked = false;
        for value in headers.get_all(ACCEPT) {
            let text = value.to_str().map_err(|_| not_acceptable())?;
            for range in text.split(',') {
                asked = true;
                if let Some(accept) = Self::parse(range) {
                    return Ok(accept);
                }
            }
        }
        if asked {
            Err(not_acceptable())
        } else {
            Ok(Self {
                form: Form::Objects,
                encoding: Encoding::Json,
            })
        }
    }

    fn parse(range: &str) -> Option<Self> {
        let mut parts = range.split(';').map(str::trim);
        let encoding = match parts.next()?.to_ascii_lowercase().as_str() {
            "application/json" | "application/*" | "*/*" => Encoding::Json,
            "application/yaml" => Encoding::Yaml,
            _ => return None,
        };
        let (mut form, mut group, mut version) = ("", "", "");
        for parameter in parts {
            match parameter.split_once('=') {
                Some(("as", value)) => form = value,
                Some(("g", value)) => group = value,
                Some(("v", value)) => version = value,
                _ => {}
            }
        }
        let form = match (form, group, version) {
            ("", ..) => Form::Objects,
            ("Table", "meta.k8s.io", "v1") => Form::Table,
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
                Form::Metadata
            }
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Form::AggregatedDiscovery,
            _ => return None,
        };
        Some(Self { form, encoding })
    }
}

fn not_acceptable() -> ApiError {
    let message = format!("406: Not Acceptable\n\nAvailable representations: {SERVED}");
    let mut error = ApiError::new(406, "NotAcceptable", message);
    error.details = Some(Box::default());
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(accept: &str) -> Result<Accept, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        Accept::choose(&headers)
    }

    #[test]
    fn the_first_form_that_is_served_is_taken() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(
            choose(kubectl),
            Ok(Accept {
                form: Form::Table,
                encoding: Encoding::Json
            })
        );
        let client_go = "application/vnd.kubernetes.protobuf, */*";
        assert_eq!(
            choose(client_go),
            Ok(Accept {
                form: Form::Objects,
                encoding: Encoding::Json
            })
        );
        let old = "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/yaml";
        assert_eq!(
            choose(old),
            Ok(Accept {
                form: Form::Objects,
                encoding: Encoding::Yaml
            })
        );
        assert_eq!(choose("text/html").unwrap_err().code, 406);
    }
}
