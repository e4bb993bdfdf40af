//! TLS on both sides: the server that clients connect to, and the client that the server is to its nodes.
//!
//! As in Kubernetes a client certificate is asked for and not required, and a bad one is no failed handshake but a
//! client without a name, which is then told 401.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error as TlsError, RootCertStore,
    ServerConfig, SignatureScheme,
};

use tokio_rustls::TlsConnector;

use crate::admission::User;
use crate::error::Error;
use crate::pki::{Credential, Pki};

/// Knows who a client is from the certificate that it showed.
#[derive(Debug, Clone)]
pub(crate) struct Authenticator(Arc<dyn ClientCertVerifier>);

impl Authenticator {
    /// The user of a certificate chain; `None` if the lab's authority did not issue it.
    pub(crate) fn user(&self, chain: &[CertificateDer<'_>]) -> Option<User> {
        let (own, between) = chain.split_first()?;
        if let Err(error) = self.0.verify_client_cert(own, between, UnixTime::now()) {
            tracing::debug!(%error, "a client showed a certificate that is not good");
            return None;
        }
        let (_, certificate) = x509_parser::parse_x509_certificate(own).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject
            .iter_organization()
            .filter_map(|o| o.as_str().ok().map(str::to_owned));
        Some(User {
            name,
            groups: groups.chain(["system:authenticated".to_owned()]).collect(),
            ..User::default()
        })
    }
}

/// How the server talks to its clients, and how it knows them.
pub(crate) fn server(pki: &Pki) -> Result<(ServerConfig, Authenticator), Error> {
    let provider = provider();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pki)?), Arc::clone(&provider))
            .build()
            .map_err(|e| Error::Tls {
                what: "client certificates",
                reason: e.to_string(),
            })?;
    let failed = |e: TlsError| Error::Tls {
        what: "the server's certificate",
        reason: e.to_string(),
    };
    let (chain, key) = credential(&pki.server)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_client_cert_verifier(Arc::new(AnyCertificate(Arc::clone(&verifier))))
        .with_single_cert(chain, key)
        .map_err(failed)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((config, Authenticator(verifier)))
}

/// How the server talks to its nodes: with a certificate of its own, and only to those of its authority.
pub(crate) fn to_nodes(pki: &Pki) -> Result<ClientConfig, Error> {
    let failed = |e: TlsError| Error::Tls {
        what: "the certificate for nodes",
        reason: e.to_string(),
    };
    let (chain, key) = credential(&pki.kubelet_client)?;
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(roots(pki)?)
        .with_client_auth_cert(chain, key)
        .map_err(failed)
}

/// How the server talks to servers in Pods. Their certificates are not looked at, as in Kubernetes: nobody has told the
/// API server which to trust, and who asks for `https:` gets what the Pod has.
/// Source: `proxyTransport`, `k8s.io/kubernetes/cmd/kube-apiserver/app`.
pub(crate) fn to_backends() -> Result<TlsConnector, Error> {
    let failed = |e: TlsError| Error::Tls {
        what: "TLS with servers in Pods",
        reason: e.to_string(),
    };
    let provider = provider();
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Takes any server that has the key of its certificate.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(pki: &Pki) -> Result<RootCertStore, Error> {
    let failed = |reason: String| Error::Tls {
        what: "the authority's certificate",
        reason,
    };
    let pem = pki.authority_pem()?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots
            .add(certificate.map_err(|e| failed(e.to_string()))?)
            .map_err(|e| failed(e.to_string()))?;
    }
    Ok(roots)
}

fn credential(
    credential: &Credential,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    let failed = |reason: String| Error::Tls {
        what: "a credential",
        reason,
    };
    let (certificate, key) = credential.read()?;
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| failed(format!("{}: {e}", credential.certificate.display())))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|e| failed(format!("{}: {e}", credential.key.display())))?;
    Ok((chain, key))
}

/// Takes any certificate whose key the client has; [`Authenticator`] says afterwards what it is worth.
#[derive(Debug)]
struct AnyCertificate(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AnyCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
