//! One HTTP/1.1 connection, plain or with TLS, the same for both sides.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(crate) type Request = hyper::Request<Full<Bytes>>;

/// A request with a JSON body (none if it is empty).
pub(crate) fn request(
    method: &str,
    path: &str,
    content_type: &str,
    body: impl Into<Bytes>,
) -> Request {
    hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("accept", "application/json")
        .header("content-type", content_type)
        .body(Full::new(body.into()))
        .expect("a request")
}

/// A connection that is kept.
pub(crate) struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    pub(crate) async fn open(address: SocketAddr, tls: Option<Arc<ClientConfig>>) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        let Some(tls) = tls else {
            let (send, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
            tokio::spawn(connection);
            return Self(send);
        };
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let stream = TlsConnector::from(tls)
            .connect(name, stream)
            .await
            .expect("TLS");
        let (send, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        Self(send)
    }

    /// The body of the answer, which must be a good one.
    pub(crate) async fn ask(&mut self, request: Request) -> Bytes {
        self.0.ready().await.expect("the connection stays");
        let answer = self.0.send_request(request).await.expect("an answer");
        let code = answer.status();
        let body = answer.into_body().collect().await.expect("a body");
        let body = body.to_bytes();
        assert!(
            code.is_success(),
            "{code}: {}",
            String::from_utf8_lossy(&body[..body.len().min(500)])
        );
        body
    }

    /// The lines of an answer without end.
    pub(crate) async fn listen(mut self, request: Request) -> Lines {
        let answer = self.0.send_request(request).await.expect("an answer");
        assert!(answer.status().is_success());
        Lines {
            body: answer.into_body(),
            rest: BytesMut::new(),
            _connection: self,
        }
    }
}

pub(crate) struct Lines {
    body: Incoming,
    rest: BytesMut,
    _connection: Connection,
}

impl Lines {
    pub(crate) async fn next(&mut self) -> Bytes {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                return self.rest.split_to(end + 1).freeze();
            }
            let frame = self
                .body
                .frame()
                .await
                .expect("it goes on")
                .expect("a frame");
            if let Ok(data) = frame.into_data() {
                self.rest.extend_from_slice(&data);
            }
        }
    }
}
