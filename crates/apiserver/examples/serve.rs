//! The API server by itself, without nodes: `cargo run -p seaway-apiserver --example serve -- DIRECTORY [PORT]`.
//! Prints the path of a kubeconfig when it is ready. For trying things out against it with kubectl.

use std::path::PathBuf;

use seaway_apiserver::pki::{Pki, kubeconfig};
use seaway_apiserver::{Config, Server, Tuning};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("usage: serve DIRECTORY [PORT]")?);
    let port: u16 = arguments.next().map_or(Ok(0), |port| port.parse())?;
    std::fs::create_dir_all(&directory)?;
    let names = ["127.0.0.1", "localhost"]
        .map(|name| name.parse())
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let pki = Pki::ensure(&directory.join("pki"), &names, &[])?;
    let config = Config {
        listen: vec![([127, 0, 0, 1], port).into()],
        store: directory.join("store.db"),
        pki: pki.clone(),
        service_cidrs: vec!["10.96.0.0/12".parse()?],
        node_port_range: 30000..=32767,
        advertise: ([10, 87, 0, 1], 6443).into(),
    };
    let shutdown = CancellationToken::new();
    let server = Server::start(config, &Tuning::default(), shutdown.clone()).await?;
    let (certificate, key) = pki.admin.read()?;
    let url = format!("https://{}", server.addresses()[0]);
    let file = directory.join("kubeconfig");
    std::fs::write(
        &file,
        kubeconfig(&url, &pki.authority_pem()?, &certificate, &key, "serve"),
    )?;
    println!("{}", file.display());
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            shutdown.cancel();
        }
    });
    server.run().await?;
    Ok(())
}
