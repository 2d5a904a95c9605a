//! Asking a running agent.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// An agent that does not answer within this time hangs.
const TIMEOUT: Duration = Duration::from_secs(10);

/// `GET path` from the agent's administration port.
pub(super) fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asking = async { tokio::time::timeout(TIMEOUT, ask(address, path)).await };
    runtime.block_on(asking).unwrap_or_else(|_| bail!("no answer within {TIMEOUT:?}")).with_context(
        || {
            format!(
                "ask the agent at {address}; does it run, and is this its setting admin.address?"
            )
        },
    )
}

async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = http::Request::get(path)
        .header(http::header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())?;
    // The sender ends with the exchange, and with it the connection.
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    let (answer, _) = tokio::join!(exchange, async move { connection.await.ok() });
    let (status, body) = answer?;
    if !status.is_success() {
        bail!("{status}: {body}");
    }
    Ok(body)
}
