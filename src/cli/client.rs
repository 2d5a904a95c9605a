//! Queries a running agent over its socket.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use http::header::HOST;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::admin;

/// The host of a request over a socket: it is ignored.
const AGENT: &str = "isthmus";

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
    let answer = runtime.block_on(asking);
    answer.unwrap_or_else(|_| bail!("no answer within {patience:?}")).with_context(|| asked(socket))
}

/// Reads the lines of `GET path` as they come, until there are no more or `take` has had enough. `patience` is for the head.
pub(super) fn lines(
    socket: &Path,
    path: &str,
    patience: Duration,
    take: impl FnMut(&str) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(read_lines(socket, path, patience, take)).with_context(|| asked(socket))
}

/// What failed, and what to check.
fn asked(socket: &Path) -> String {
    let socket = socket.display();
    format!(
        "ask the agent at {socket}; does it run, and do you run as root, or as the user that it runs as?"
    )
}

async fn read_lines(
    socket: &Path,
    path: &str,
    patience: Duration,
    mut take: impl FnMut(&str) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    let (mut sender, connection) = connect(socket).await?;
    let exchange = async move {
        let answer = sender.send_request(request(Method::GET, path, Vec::new())?);
        let response = tokio::time::timeout(patience, answer).await??;
        let status = response.status();
        let mut body = response.into_body();
        if !status.is_success() {
            let body = body.collect().await?.to_bytes();
            bail!("{status}: {}", String::from_utf8_lossy(&body));
        }
        let mut begun = Vec::new();
        while let Some(frame) = body.frame().await {
            begun.extend_from_slice(&frame?.into_data().unwrap_or_default());
            let whole = begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            let text = String::from_utf8_lossy(&begun[..whole]).into_owned();
            begun.drain(..whole);
            if text.lines().try_for_each(&mut take).is_break() {
                break;
            }
        }
        anyhow::Ok(())
    };
    tokio::select! {
        read = exchange => read,
        ended = connection => Ok(ended?),
    }
}

async fn exchange(
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> anyhow::Result<Vec<u8>> {
    let (mut sender, connection) = connect(socket).await?;
    let request = request(method, path, body)?;
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

type Asking = (SendRequest<Full<Bytes>>, Connection<TokioIo<UnixStream>, Full<Bytes>>);

async fn connect(socket: &Path) -> anyhow::Result<Asking> {
    let stream = admin::connect(socket).await?;
    Ok(http1::handshake(TokioIo::new(stream)).await?)
}

fn request(method: Method, path: &str, body: Vec<u8>) -> http::Result<Request<Full<Bytes>>> {
    Request::builder().method(method).uri(path).header(HOST, AGENT).body(Full::new(body.into()))
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
    fn lines_are_taken_whole_and_until_somebody_has_had_enough() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\na\n\r\n1\r\nb\r\n3\r\nc\nd\r\n2\r\n\nx\r\n";
        let server = serve(&socket, answer);
        let mut got = Vec::new();
        let read = lines(&socket, "/flows", PATIENCE, |line| {
            got.push(line.to_owned());
            if got.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        read.unwrap();
        assert_eq!(got, ["a", "bc", "d"]);
        assert!(server.join().unwrap().starts_with("GET /flows HTTP/1.1\r\n"));
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
