//! Applications and clients that write HTTP/1 as it stands, byte for byte.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::destination::captured;
use super::support::{Lab, shop};
use crate::l7::WorkerSettings;
use crate::world::fixture::{Fixture, identity};

/// How long anything may take that comes at once.
const SOON: Duration = Duration::from_secs(5);

/// The half that parses what a client sends; both must do the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Client,
    Destination,
}

pub(super) const HALVES: [Half; 2] = [Half::Client, Half::Destination];

impl Half {
    /// A mesh of one application.
    pub(super) fn mesh(self, at: SocketAddr) -> Fixture {
        match self {
            Half::Client => shop(at),
            Half::Destination => captured(at),
        }
    }

    pub(super) fn lab(self, at: SocketAddr) -> Lab {
        Lab::new(self.mesh(at), WorkerSettings::for_tests())
    }

    /// A client's connection to the application.
    pub(super) async fn connect(self, lab: &Lab, at: SocketAddr) -> TcpStream {
        match self {
            Half::Client => lab.dial("client", "echo").await,
            Half::Destination => lab.arrive("echo", at, Some(identity("client")), None).await,
        }
    }
}

/// An application that answers every request with the same bytes, whatever it is; with `close` once for a connection.
pub(super) async fn answering(answer: &'static str, close: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                while read_head(&mut stream).await.is_some() {
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    if close {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// An application that a test plays itself.
pub(super) async fn listening() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap(), listener)
}

pub(super) async fn accept(listener: &TcpListener) -> TcpStream {
    tokio::time::timeout(SOON, listener.accept()).await.expect("a connection").unwrap().0
}

/// The head of a message; `None` when the peer has left.
pub(super) async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&read).into_owned())
}

pub(super) async fn head(stream: &mut TcpStream) -> String {
    tokio::time::timeout(SOON, read_head(stream)).await.expect("a head").expect("a head")
}

/// So many bytes.
pub(super) async fn read(stream: &mut TcpStream, length: usize) -> String {
    let mut read = vec![0; length];
    let reading = tokio::time::timeout(SOON, stream.read_exact(&mut read)).await;
    let so_far = String::from_utf8_lossy(&read).into_owned();
    reading.unwrap_or_else(|_| panic!("not all of it came: {so_far:?}")).unwrap();
    so_far
}

/// All that comes until the peer closes.
pub(super) async fn rest(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let reading = tokio::time::timeout(SOON, stream.read_to_end(&mut read)).await;
    let so_far = String::from_utf8_lossy(&read).into_owned();
    // A reset is an end, too.
    _ = reading.unwrap_or_else(|_| panic!("it is still open: {so_far:?}"));
    so_far
}

/// Nothing comes for a while.
pub(super) async fn is_silent(stream: &mut TcpStream) -> bool {
    let mut one = [0; 1];
    tokio::time::timeout(Duration::from_millis(200), stream.peek(&mut one)).await.is_err()
}

/// What comes back for these bytes, when nothing follows them.
pub(super) async fn ask(half: Half, lab: &Lab, at: SocketAddr, request: &[u8]) -> String {
    let mut stream = half.connect(lab, at).await;
    stream.write_all(request).await.unwrap();
    stream.shutdown().await.unwrap();
    rest(&mut stream).await
}
