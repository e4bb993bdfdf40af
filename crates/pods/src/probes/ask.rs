//! Asks: an HTTP request, a TCP connection, or a command in the container. From the node's network namespace.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::spec::{HttpTarget, ProbeAction};
use crate::exec;
use crate::runtime::Runtime;

/// What of a body or of output is kept for messages (10 KiB, as the kubelet).
const KEPT: usize = 10 * 1024;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// As it should be.
    Good,
    /// Not as it should be, in the kubelet's words.
    Bad(String),
    /// It could not even be asked: counts as nothing.
    Unknown(String),
}

/// Asks for one container.
#[derive(Debug, Clone)]
pub struct Asker {
    /// For commands.
    pub runtime: Runtime,
    /// The container that commands run in.
    pub container_id: String,
    /// Where the Pod is.
    pub pod_ip: IpAddr,
}

impl Asker {
    /// Asks once and waits at most `limit` for the answer.
    pub async fn ask(&self, action: &ProbeAction, limit: Duration) -> Answer {
        match action {
            ProbeAction::Http(target) => {
                match timeout(limit, http_get(self.pod_ip, target)).await {
                    Err(_) => Answer::Bad(format!(
                        "Get {:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                        url(self.pod_ip, target)
                    )),
                    Ok(Ok((status, _))) if (200..400).contains(&status) => Answer::Good,
                    Ok(Ok((status, _))) => {
                        Answer::Bad(format!("HTTP probe failed with statuscode: {status}"))
                    }
                    Ok(Err(problem)) => Answer::Bad(problem),
                }
            }
            ProbeAction::Tcp { host, port } => {
                let host = host.clone().unwrap_or_else(|| self.pod_ip.to_string());
                match timeout(limit, TcpStream::connect((host.as_str(), *port))).await {
                    Err(_) => Answer::Bad(format!("dial tcp {}: i/o timeout", join(&host, *port))),
                    Ok(Ok(_)) => Answer::Good,
                    Ok(Err(error)) => Answer::Bad(format!(
                        "dial tcp {}: connect: {}",
                        join(&host, *port),
                        os_words(&error)
                    )),
                }
            }
            ProbeAction::Exec(command) => {
                match exec::run(&self.runtime, &self.container_id, command, limit).await {
                    Ok(ended) if ended.code == 0 => Answer::Good,
                    Ok(ended) => Answer::Bad(String::from_utf8_lossy(&ended.output).into_owned()),
                    Err(exec::ExecError::Timeout { seconds }) => Answer::Bad(format!(
                        "command timed out: {command:?} timed out after {seconds}s"
                    )),
                    Err(error) => Answer::Unknown(error.to_string()),
                }
            }
            ProbeAction::Sleep(time) => {
                tokio::time::sleep((*time).min(limit)).await;
                Answer::Good
            }
            ProbeAction::Invalid(problem) => Answer::Unknown(problem.clone()),
        }
    }
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn url(pod_ip: IpAddr, target: &HttpTarget) -> String {
    let host = target.host.clone().unwrap_or_else(|| pod_ip.to_string());
    let scheme = if target.tls { "https" } else { "http" };
    format!("{scheme}://{}{}", join(&host, target.port), target.path)
}

/// `Connection refused (os error 111)` → `connection refused`
fn os_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or(&text)
        .to_lowercase()
}

/// Makes a GET request; its status and the first 10 KiB of the body, or the problem in the words of Go's client.
pub async fn http_get(pod_ip: IpAddr, target: &HttpTarget) -> Result<(u16, Vec<u8>), String> {
    let url = url(pod_ip, target);
    let problem = |what: String| format!("Get {url:?}: {what}");
    let host = target.host.clone().unwrap_or_else(|| pod_ip.to_string());
    let stream = TcpStream::connect((host.as_str(), target.port))
        .await
        .map_err(|e| {
            problem(format!(
                "dial tcp {}: connect: {}",
                join(&host, target.port),
                os_words(&e)
            ))
        })?;
    let mut request = http::Request::get(&target.path);
    let mut named = false;
    for (name, value) in &target.headers {
        named |= name.eq_ignore_ascii_case("host");
        request = request.header(name, value);
    }
    if !named {
        request = request.header(http::header::HOST, join(&host, target.port));
    }
    if !target
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("user-agent"))
    {
        request = request.header(http::header::USER_AGENT, "kube-probe/1.36");
    }
    let request = request
        .header(http::header::ACCEPT, "*/*")
        .header(http::header::CONNECTION, "close")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| problem(error.to_string()))?;
    if target.tls {
        let name =
            ServerName::try_from(host.clone()).map_err(|error| problem(error.to_string()))?;
        let stream = tokio_rustls::TlsConnector::from(trusting()?)
            .connect(name, stream)
            .await
            .map_err(|error| problem(error.to_string()))?;
        exchange(TokioIo::new(stream), request)
            .await
            .map_err(|error| problem(error.to_string()))
    } else {
        exchange(TokioIo::new(stream), request)
            .await
            .map_err(|error| problem(error.to_string()))
    }
}

async fn exchange<S>(
    stream: S,
    request: http::Request<Empty<bytes::Bytes>>,
) -> Result<(u16, Vec<u8>), hyper::Error>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let driver = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    // A body that is too long or broken off does not change the verdict.
    let body = Limited::new(response.into_body(), KEPT).collect().await;
    drop(driver);
    Ok((
        status,
        body.map(|body| body.to_bytes().to_vec())
            .unwrap_or_default(),
    ))
}

/// Probes do not look at certificates (Kubernetes documentation, "HTTP probes"): the Pod is known by its address.
fn trusting() -> Result<Arc<rustls::ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(AnyCertificate(provider.clone()));
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    fn target(port: u16) -> HttpTarget {
        HttpTarget {
            tls: false,
            host: None,
            port,
            path: "/healthz".into(),
            headers: vec![("X-A".into(), "b".into())],
        }
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn a_request_says_who_asks_and_brings_back_the_status() {
        let listener = TcpListener::bind((HERE, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 1024];
            let length = stream.read(&mut buffer).await.unwrap();
            stream
                .write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\nno")
                .await
                .unwrap();
            String::from_utf8_lossy(&buffer[..length]).to_lowercase()
        });
        assert_eq!(
            http_get(HERE, &target(port)).await,
            Ok((503, b"no".to_vec()))
        );
        let request = server.await.unwrap();
        assert!(
            request.starts_with("get /healthz http/1.1\r\n"),
            "{request}"
        );
        for header in [
            "x-a: b\r\n",
            "user-agent: kube-probe/1.36\r\n",
            &format!("host: 127.0.0.1:{port}\r\n"),
        ] {
            assert!(request.contains(header), "{header} in {request}");
        }
    }

    #[tokio::test]
    async fn nobody_listening_reads_as_in_kubernetes() {
        let port = {
            let listener = TcpListener::bind((HERE, 0)).await.unwrap();
            listener.local_addr().unwrap().port()
        };
        assert_eq!(
            http_get(HERE, &target(port)).await,
            Err(format!(
                "Get \"http://127.0.0.1:{port}/healthz\": dial tcp 127.0.0.1:{port}: connect: connection refused"
            ))
        );
    }
}
