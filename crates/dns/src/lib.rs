//! The cluster DNS server: it runs on every node and answers for the cluster's domain out of what the
//! Kubernetes API says, by the rules of "Kubernetes DNS-Based Service Discovery" 1.1.0.
//!
//! From an object to an answer, file by file:
//!
//! | file | is for |
//! |---|---|
//! | [`model`] | what DNS needs to know of Services and EndpointSlices, converted totally |
//! | [`plan`] | keeps those together and turns each change into the records it changes |
//! | [`table`] | the records: an immutable lookup structure whose versions share what did not change |
//! | [`zone`] | what a name means: an object's records, an empty place in the tree, nothing |
//! | [`answer`] | bytes of a query → bytes of the reply; pure |
//! | [`forward`] | asking other servers about names outside the cluster |
//! | [`server`] | sockets |
//! | [`controller`] | watches the API and publishes the table |
//!
//! A lookup never waits for an update: it loads a pointer to the newest table. Until everything has been listed
//! once, names in the cluster's domain get SERVFAIL, never NXDOMAIN.

pub mod answer;
pub mod config;
pub mod controller;
mod error;
pub mod forward;
pub mod model;
pub mod name;
pub mod plan;
pub mod server;
pub mod table;
pub mod zone;

pub use config::Config;
pub use error::Error;
pub use server::Server;

use tokio_util::sync::CancellationToken;

/// Serves DNS from what `client` sees, until `shutdown` is cancelled.
///
/// # Errors
/// When the configuration makes no sense, when an address cannot be bound, or when a socket stops working.
/// Losing the API server is not an error: the server goes on with what it knows and keeps trying.
pub async fn run(
    client: kube::Client,
    config: Config,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let server = Server::bind(config)?;
    let feed = controller::follow(client, server.publisher());
    tokio::select! {
        result = server.serve(shutdown) => result,
        () = feed => Ok(()),
    }
}
