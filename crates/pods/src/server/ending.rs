//! What a client of exec and attach is told at the end: a `Status`. Pure.
//! Source: `k8s.io/apimachinery/pkg/util/remotecommand`, `k8s.io/kubelet/pkg/cri/streaming/remotecommand`.

use bytes::Bytes;
use serde_json::{Value, json};

/// How the command ended.
pub(super) fn exit_status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// The command could not be run.
pub(super) fn internal_error(problem: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {problem}"),
        "reason": "InternalError",
        "details": {"causes": [{"message": problem}]},
        "code": 500,
    })
}

/// The status as it is sent. Before version 4 a success is told by silence, and a failure by its message.
pub(super) fn written(status: &Value, as_object: bool) -> Bytes {
    if as_object {
        return status.to_string().into();
    }
    let failed = status["status"] != "Success";
    let message = status["message"].as_str().filter(|_| failed);
    Bytes::from(message.unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_what_kubectl_looks_for() {
        assert_eq!(exit_status(0), json!({"metadata": {}, "status": "Success"}));
        let failed = exit_status(3);
        assert_eq!(failed["reason"], "NonZeroExitCode");
        assert_eq!(
            failed["details"]["causes"],
            json!([{"reason": "ExitCode", "message": "3"}])
        );
        assert_eq!(
            internal_error("no such file")["message"],
            "Internal error occurred: no such file"
        );
    }

    #[test]
    fn old_protocols_have_only_a_message() {
        assert_eq!(written(&exit_status(0), false), "");
        assert_eq!(
            written(&exit_status(3), false),
            "command terminated with non-zero exit code: exit status 3"
        );
        assert_eq!(
            written(&exit_status(0), true),
            r#"{"metadata":{},"status":"Success"}"#
        );
    }
}
