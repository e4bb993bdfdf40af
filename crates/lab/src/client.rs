//! A Kubernetes client from a kubeconfig file.

use std::path::Path;

use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::error::Error;

/// Reads the kubeconfig and makes a client of it. Nothing is sent yet.
///
/// # Errors
/// [`Error::Step`] when the file cannot be read or holds no usable credentials.
pub async fn from_kubeconfig(path: &Path) -> Result<kube::Client, Error> {
    let file = Kubeconfig::read_from(path)
        .map_err(|error| Error::step("reading the kubeconfig", error))?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(|error| Error::step("reading the kubeconfig", error))?;
    kube::Client::try_from(config).map_err(|error| Error::step("making a client", error))
}

/// Installs the one TLS provider of this process. Calling it again changes nothing.
pub fn install_tls() {
    // `Err` means that a provider is there already, which is what we want.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
