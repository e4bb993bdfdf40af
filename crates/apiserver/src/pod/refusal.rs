//! What a node's refusal is to the client.
//! Source: `k8s.io/apiserver/pkg/registry/generic/rest/response_checker.go`; `NewGenericServerResponse`,
//! `k8s.io/apimachinery/pkg/api/errors`.

use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use crate::status::{ApiError, Details};

/// Bytes of a refusal that are passed on.
const LONGEST: usize = 2048;

/// The refusal of a request for `what` (`pods/log`) of the object of that name.
pub(super) async fn refusal(what: &str, name: &str, answer: Response<Incoming>) -> ApiError {
    let code = answer.status();
    match Limited::new(answer.into_body(), LONGEST).collect().await {
        Ok(body) => worded(what, name, code, &String::from_utf8_lossy(&body.to_bytes())),
        Err(error) => ApiError::internal(error),
    }
}

fn worded(what: &str, name: &str, code: StatusCode, said: &str) -> ApiError {
    let said = said.trim_end();
    let (reason, message) = match code {
        StatusCode::INTERNAL_SERVER_ERROR => return ApiError::internal(said),
        StatusCode::BAD_REQUEST => return ApiError::bad_request(said),
        StatusCode::UNAUTHORIZED => (
            "Unauthorized",
            "the server has asked for the client to provide credentials".to_owned(),
        ),
        StatusCode::FORBIDDEN => ("Forbidden", said.to_owned()),
        StatusCode::NOT_FOUND => (
            "NotFound",
            "the server could not find the requested resource".to_owned(),
        ),
        StatusCode::UNPROCESSABLE_ENTITY => (
            "Invalid",
            "the server rejected our request due to an error in our request".to_owned(),
        ),
        StatusCode::TOO_MANY_REQUESTS => (
            "TooManyRequests",
            "the server has received too many requests and has asked us to try again later"
                .to_owned(),
        ),
        StatusCode::SERVICE_UNAVAILABLE => (
            "ServiceUnavailable",
            "the server is currently unable to handle the request".to_owned(),
        ),
        _ if code.is_server_error() => (
            "InternalError",
            format!("an error on the server ({said:?}) has prevented the request from succeeding"),
        ),
        _ => (
            "Unknown",
            format!(
                "the server responded with the status code {} but did not return more information",
                code.as_u16()
            ),
        ),
    };
    // The verb is empty, which leaves its space.
    let mut error = ApiError::new(code.as_u16(), reason, format!("{message} ( {what} {name})"));
    error.details = Some(Box::new(Details {
        name: name.to_owned(),
        kind: what.to_owned(),
        ..Details::default()
    }));
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_words_reach_the_client_where_kubernetes_passes_them_on() {
        let worded = |code, said| {
            let error = worded("pods/log", "p", StatusCode::from_u16(code).unwrap(), said);
            (error.code, error.reason, error.message)
        };
        assert_eq!(
            worded(400, "no such thing\n"),
            (400, "BadRequest", "no such thing".into())
        );
        assert_eq!(
            worded(500, "broken"),
            (
                500,
                "InternalError",
                "Internal error occurred: broken".into()
            )
        );
        assert_eq!(
            worded(404, "pod \"p\" does not exist"),
            (
                404,
                "NotFound",
                "the server could not find the requested resource ( pods/log p)".into()
            )
        );
        assert_eq!(worded(502, "x").1, "InternalError");
        assert_eq!(worded(418, "x").1, "Unknown");
    }
}
