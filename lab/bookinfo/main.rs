//! Bookinfo, the sample application of Istio's documentation, as one program: `--service` chooses which of
//! the four services a process is, `--version` how it behaves. The services call one another by name through
//! the system's resolver and know nothing of the mesh.

mod authorize;
mod call;
mod details;
mod echo;
mod page;
mod productpage;
mod ratings;
mod reply;
mod reviews;
mod server;
mod settings;
mod trouble;

use std::sync::Arc;

use clap::Parser;
use tokio::net::TcpListener;

use settings::Settings;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let settings = Arc::new(Settings::parse());
    let listener = TcpListener::bind(settings.listen).await?;
    println!(
        "{} {} ({}) listens on {}",
        settings.service,
        settings.version,
        settings.pod,
        listener.local_addr()?
    );
    server::serve(listener, settings).await
}
