//! Pulls images from registries (OCI distribution-spec), and says clearly why it cannot.
//!
//! Connections are made by the calling process in its own network namespace. In a lab without internet that has no
//! way out of the machine, so the kernel refuses at once and nothing is sent.

use std::error::Error as _;
use std::time::Duration;

use oci_client::client::{ClientConfig, current_platform_resolver};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use sha2::{Digest, Sha256};

use super::error::file;
use super::store::Layer;
use super::{ImageError, Images, config};

/// For a registry that does not answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// For one that stops in the middle.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// What a registry gave: configuration and layers, the latter in the store already.
#[derive(Debug)]
pub(super) struct Pulled {
    pub(super) config: Vec<u8>,
    pub(super) layers: Vec<Layer>,
}

/// Pulls an image. `name` is what the user wrote.
pub(super) async fn pull(
    images: &Images,
    name: &str,
    reference: &Reference,
) -> Result<Pulled, ImageError> {
    let failed = |error: OciDistributionError| ImageError::Pull {
        name: name.to_owned(),
        problem: explain(reference, &error),
    };
    // One provider for the process; that there is one already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_from(ClientConfig {
        connect_timeout: Some(CONNECT_LIMIT),
        read_timeout: Some(READ_LIMIT),
        user_agent: concat!("seaway/", env!("CARGO_PKG_VERSION")),
        protocol: protocol(reference),
        platform_resolver: Some(Box::new(current_platform_resolver)),
        ..ClientConfig::default()
    })
    .map_err(failed)?;
    let (manifest, _, config_json) = client
        .pull_manifest_and_config(reference, &RegistryAuth::Anonymous)
        .await
        .map_err(failed)?;
    let broken = |problem: String| ImageError::Pull {
        name: name.to_owned(),
        problem,
    };
    let config_json = config_json.into_bytes();
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&config_json)));
    if digest != manifest.config.digest {
        return Err(broken(format!(
            "the registry sent {digest} for configuration {}",
            manifest.config.digest
        )));
    }
    let parsed = config::parse(&config_json)?;
    if parsed.diff_ids.len() != manifest.layers.len() {
        return Err(broken(
            "configuration and manifest have different layers".to_owned(),
        ));
    }
    let mut layers = Vec::new();
    for (diff_id, descriptor) in parsed.diff_ids.into_iter().zip(&manifest.layers) {
        let draft = images.inner.store.temporary()?;
        let path = draft.path().to_owned();
        let mut opened = tokio::fs::File::create(&path)
            .await
            .map_err(file("create", &path))?;
        // Checks the digest of what it receives.
        client
            .pull_blob(reference, descriptor, &mut opened)
            .await
            .map_err(failed)?;
        let images = images.clone();
        let unpack = move || {
            let opened = std::fs::File::open(draft.path()).map_err(file("open", draft.path()))?;
            images
                .inner
                .store
                .add_layer(&diff_id, std::io::BufReader::new(opened))
        };
        layers.push(super::blocking(unpack).await?);
    }
    Ok(Pulled {
        config: config_json,
        layers,
    })
}

/// Docker's rule: a registry on this machine may do without TLS.
fn protocol(reference: &Reference) -> oci_client::client::ClientProtocol {
    let registry = reference.resolve_registry();
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    if host == "localhost" || host.starts_with("127.") {
        oci_client::client::ClientProtocol::Http
    } else {
        oci_client::client::ClientProtocol::Https
    }
}

/// One line for an Event.
fn explain(reference: &Reference, error: &OciDistributionError) -> String {
    let registry = reference.resolve_registry();
    match error {
        OciDistributionError::RequestError(request) => {
            let mut reason = request.to_string();
            let mut source = request.source();
            // The innermost cause is the kernel's word: network unreachable, connection refused, no such name.
            while let Some(inner) = source {
                reason = inner.to_string();
                source = inner.source();
            }
            if request.is_timeout() {
                reason = "no answer in time".to_owned();
            }
            format!("registry {registry} is not reachable: {reason}")
        }
        OciDistributionError::UnauthorizedError { .. }
        | OciDistributionError::AuthenticationFailure(_) => {
            format!(
                "registry {registry} does not allow it: the repository does not exist or needs credentials"
            )
        }
        OciDistributionError::ImageManifestNotFoundError(_) => {
            format!("registry {registry} does not have it")
        }
        other => format!("registry {registry}: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_registries_of_this_machine_go_without_tls() {
        use oci_client::client::ClientProtocol;
        let protocol = |name: &str| protocol(&name.parse().unwrap());
        assert_eq!(protocol("localhost:5000/x"), ClientProtocol::Http);
        assert_eq!(protocol("127.0.0.1:5000/x"), ClientProtocol::Http);
        assert_eq!(protocol("nginx"), ClientProtocol::Https);
        assert_eq!(protocol("localhost.example.com/x"), ClientProtocol::Https);
    }
}
