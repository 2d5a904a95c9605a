//! Queries a running agent over its socket.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use http::Method;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::admin;

/// The host of a request over a socket: it is ignored.
const HOST: &str = "isthmus";

/// Asks for a page, with a body where there is one, of the agent whose socket is at `socket`.
pub(super) fn ask(
    socket: &Path,
    (method, path): (Method, &str),
    body: Vec<u8>,
    patience: Duration,
) -> anyhow::Result<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asking =
        async { tokio::time::timeout(patience, exchange(socket, method, path, body)).await };
    runtime.block_on(asking).unwrap_or_else(|_| bail!("no answer within {patience:?}")).with_context(
        || {
            format!(
                "ask the agent at {}; does it run, and do you run as root, or as the user that it runs as?",
                socket.display()
            )
        },
    )
}

async fn exchange(
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> anyhow::Result<Vec<u8>> {
    let stream = admin::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, HOST)
        .body(Full::<Bytes>::new(body.into()))?;
    // Drops the sender too: the connection ends only when nobody can send on it.
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
    };
    let (answer, _) = tokio::join!(exchange, async move { connection.await.ok() });
    let (status, body) = answer?;
    if !status.is_success() {
        bail!("{status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(body.into())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::thread::JoinHandle;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Answers one request and keeps the connection open, as an agent does.
    fn serve(socket: &Path, answer: &'static str) -> JoinHandle<String> {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            // Until the client goes.
            let _ = stream.read(&mut [0; 1]);
            String::from_utf8_lossy(&request[..length]).into_owned()
        })
    }

    #[test]
    fn does_not_wait_for_the_agent_to_close() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        let server = serve(&socket, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}\n");
        assert_eq!(ask(&socket, (Method::POST, "/status"), Vec::new(), PATIENCE).unwrap(), b"{}\n");
        assert!(server.join().unwrap().starts_with("POST /status HTTP/1.1\r\n"));
    }

    #[test]
    fn says_whom_it_asked_when_that_fails() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        let server = serve(&socket, "HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nno\n");
        let error = format!(
            "{:#}",
            ask(&socket, (Method::GET, "/nothing"), Vec::new(), PATIENCE).unwrap_err()
        );
        assert!(error.contains("404") && error.contains("agent.sock"), "{error}");
        server.join().unwrap();
    }
}
