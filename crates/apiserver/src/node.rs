//! Talking to nodes: the HTTPS server of a node's agent, which has the paths of a kubelet.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::api::Api;
use crate::object::text;
use crate::reply::BodyError;
use crate::status::ApiError;

/// How long a node may take to answer a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where a kubelet listens that does not say otherwise.
const PORT: u16 = 10250;

/// How nodes are reached.
pub(crate) struct Nodes {
    connector: TlsConnector,
}

/// Where a node's agent listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::net::SocketAddr::new(self.address, self.port).fmt(f)
    }
}

impl Nodes {
    pub(crate) fn new(config: rustls::ClientConfig) -> Self {
        Self {
            connector: TlsConnector::from(Arc::new(config)),
        }
    }

    /// Sends a request to a node and returns its answer. The connection lives as long as the answer, or as long as
    /// what it is upgraded to.
    pub(crate) async fn ask<B>(
        &self,
        place: Place,
        mut request: Request<B>,
    ) -> Result<Response<Incoming>, ApiError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let at = std::net::SocketAddr::new(place.address, place.port);
        let failed = |why: &dyn std::fmt::Display| {
            ApiError::new(
                500,
                "InternalError",
                format!("error dialing backend: {at}: {why}"),
            )
        };
        let dial = async {
            let stream = TcpStream::connect(at).await?;
            stream.set_nodelay(true)?;
            self.connector
                .connect(ServerName::from(place.address), stream)
                .await
        };
        let stream = match tokio::time::timeout(PATIENCE, dial).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(failed(&e)),
            Err(_) => return Err(failed(&"no answer in time: is the node up?")),
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| failed(&e))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to a node ended with an error");
            }
        });
        let host = HeaderValue::from_str(&at.to_string()).map_err(|e| failed(&e))?;
        request.headers_mut().insert(HOST, host);
        sender.send_request(request).await.map_err(|e| failed(&e))
    }
}

impl Place {
    /// Where the agent of the node of that name listens, from the Node object.
    pub(crate) fn of(api: &Api, node: &str) -> Result<Self, ApiError> {
        let nodes = api.core("nodes")?;
        let object = api
            .object(&nodes, "", node)?
            .ok_or_else(|| ApiError::not_found(nodes.names, node))?;
        Self::read(&object).ok_or_else(|| {
            ApiError::new(
                500,
                "InternalError",
                format!("no preferred addresses found; known addresses: [] of node {node}"),
            )
        })
    }

    fn read(node: &Value) -> Option<Self> {
        let addresses = node.pointer("/status/addresses")?.as_array()?;
        let address = addresses
            .iter()
            .filter(|a| text(a, "/type") == "InternalIP")
            .find_map(|a| text(a, "/address").parse().ok())?;
        let port = node
            .pointer("/status/daemonEndpoints/kubeletEndpoint/Port")
            .and_then(Value::as_u64);
        let port = port
            .and_then(|p| u16::try_from(p).ok())
            .filter(|p| *p > 0)
            .unwrap_or(PORT);
        Some(Self { address, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_says_where_its_agent_listens() {
        let mut node = json!({"status": {"addresses": [
            {"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.87.0.2"}]}});
        assert_eq!(
            Place::read(&node),
            Some(Place {
                address: "10.87.0.2".parse().unwrap(),
                port: PORT
            })
        );
        node["status"]["daemonEndpoints"] = json!({"kubeletEndpoint": {"Port": 4321}});
        assert_eq!(Place::read(&node).unwrap().port, 4321);
        assert_eq!(Place::read(&json!({"status": {}})), None);
    }
}
