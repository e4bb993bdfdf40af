//! The configuration of an image (OCI image-spec, config.md; Docker's is the same in what we read).

use serde::Deserialize;

use super::{ImageConfig, ImageError};

/// A configuration and what its layers have to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) config: ImageConfig,
    /// Lowest first.
    pub(super) diff_ids: Vec<String>,
}

#[derive(Deserialize)]
struct File {
    architecture: Option<String>,
    os: Option<String>,
    config: Option<Config>,
    rootfs: RootFs,
}

/// Any of it may be missing or `null`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    exposed_ports: Option<std::collections::BTreeMap<String, serde_json::Value>>,
    stop_signal: Option<String>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// The machine's architecture in Go's words.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Reads a configuration; refuses one for another machine.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, ImageError> {
    let format = |problem: String| ImageError::Format {
        what: "image configuration".to_owned(),
        problem,
    };
    let file: File = serde_json::from_slice(bytes).map_err(|error| format(error.to_string()))?;
    let (os, arch) = (
        file.os.unwrap_or_default(),
        file.architecture.unwrap_or_default(),
    );
    if !matches!(os.as_str(), "" | "linux") || !(arch.is_empty() || arch == architecture()) {
        return Err(format(format!(
            "the image is for {os}/{arch}, this machine is linux/{}",
            architecture()
        )));
    }
    let config = file.config.unwrap_or_default();
    Ok(Parsed {
        config: ImageConfig {
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            env: config.env.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            working_dir: config.working_dir.unwrap_or_default(),
            exposed_ports: config
                .exposed_ports
                .unwrap_or_default()
                .into_keys()
                .collect(),
            stop_signal: config.stop_signal.filter(|signal| !signal.is_empty()),
        },
        diff_ids: file.rootfs.diff_ids,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_null_is_empty() {
        let json = format!(
            r#"{{"architecture":"{}","os":"linux",
                "config":{{"Cmd":["nginx"],"Entrypoint":null,"ExposedPorts":{{"80/tcp":{{}}}},"StopSignal":"SIGQUIT"}},
                "rootfs":{{"type":"layers","diff_ids":["sha256:1"]}}}}"#,
            architecture()
        );
        let parsed = parse(json.as_bytes()).unwrap();
        assert_eq!(parsed.config.cmd, ["nginx"]);
        assert!(parsed.config.entrypoint.is_empty());
        assert_eq!(parsed.config.exposed_ports, ["80/tcp"]);
        assert_eq!(parsed.config.stop_signal.as_deref(), Some("SIGQUIT"));
        assert_eq!(parsed.diff_ids, ["sha256:1"]);
        assert!(
            parse(br#"{"rootfs":{"diff_ids":[]}}"#)
                .unwrap()
                .config
                .user
                .is_empty()
        );
    }

    #[test]
    fn an_image_for_another_machine_is_refused() {
        let json = br#"{"architecture":"s390x","os":"linux","rootfs":{"diff_ids":[]}}"#;
        let error = parse(json).unwrap_err().to_string();
        assert!(error.contains("linux/s390x"), "{error}");
    }
}
