//! Joins two upgraded connections: what one says the other hears.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

/// Passes bytes on in both directions until both sides end, or one breaks, or the server ends.
pub(crate) async fn join(client: OnUpgrade, backend: OnUpgrade, shutdown: CancellationToken) {
    let passing = async {
        let (client, backend) = tokio::try_join!(client, backend)?;
        let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
        tokio::io::copy_bidirectional(&mut client, &mut backend).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    tokio::select! {
        passed = passing => {
            if let Err(error) = passed {
                tracing::debug!(%error, "a stream through the server ended with an error");
            }
        }
        () = shutdown.cancelled() => {}
    }
}
