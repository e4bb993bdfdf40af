//! The file that tells kubectl where the API server is and who its user is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A kubeconfig with one cluster, one user and one context, all named `cluster`, with everything inside it.
/// Source: kubeconfig (v1) reference, `client.config`.
pub fn kubeconfig(
    server: &str,
    authority_pem: &str,
    certificate_pem: &str,
    key_pem: &str,
    cluster: &str,
) -> String {
    let authority = STANDARD.encode(authority_pem);
    let certificate = STANDARD.encode(certificate_pem);
    let key = STANDARD.encode(key_pem);
    format!(
        "apiVersion: v1
kind: Config
current-context: {cluster}
clusters:
- name: {cluster}
  cluster:
    server: {server}
    certificate-authority-data: {authority}
users:
- name: {cluster}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: {cluster}
  context:
    cluster: {cluster}
    user: {cluster}
"
    )
}
