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
    // Takes the sender along: the connection ends only when nobody can send on it any more.
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Answers one request and keeps the connection open, as an agent does.
    fn serve(answer: &'static str) -> (SocketAddr, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            // Until the client goes.
            let _ = stream.read(&mut [0; 1]);
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        (address, server)
    }

    #[test]
    fn does_not_wait_for_the_agent_to_close() {
        let (address, server) = serve("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}\n");
        assert_eq!(get(address, "/status").unwrap(), "{}\n");
        assert!(server.join().unwrap().starts_with("GET /status HTTP/1.1\r\n"));
    }

    #[test]
    fn says_whom_it_asked_when_that_fails() {
        let (address, server) = serve("HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nno\n");
        let error = format!("{:#}", get(address, "/nothing").unwrap_err());
        assert!(error.contains("404") && error.contains(&address.to_string()), "{error}");
        server.join().unwrap();
    }
}
