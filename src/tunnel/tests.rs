//! Client and server against each other over a pipe in memory, and each against a plain HTTP/2 peer.

use crate::base::Room;
use std::io::ErrorKind;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

mod alive;
mod copying;
mod floods;
mod joining;

use super::*;

/// Room in the pipe: less than a window, so that HTTP/2's own flow control decides.
const PIPE: usize = 256 * 1024;
const SOON: Duration = Duration::from_secs(20);

/// A tunnel and what its server was asked.
struct Pair {
    tunnel: Tunnel,
    incoming: mpsc::UnboundedReceiver<Incoming>,
    driver: JoinHandle<()>,
    server: JoinHandle<Result<(), TunnelError>>,
    drain: CancellationToken,
}

async fn pair(max_streams: usize) -> Pair {
    let (client, server) = duplex(PIPE);
    let (incoming, drain, server) = serving(server);
    let (tunnel, driver) = handshake(client, max_streams, &Room::boundless()).await.unwrap();
    let driver = tokio::spawn(driver);
    Pair { tunnel, incoming, driver, server, drain }
}

type Serving =
    (mpsc::UnboundedReceiver<Incoming>, CancellationToken, JoinHandle<Result<(), TunnelError>>);

fn serving(io: DuplexStream) -> Serving {
    let (sender, incoming) = mpsc::unbounded_channel();
    let drain = CancellationToken::new();
    let (until, room) = (drain.clone(), Room::boundless());
    let server = tokio::spawn(async move {
        let handler = move |incoming| drop(sender.send(incoming));
        serve(io, until, &room, handler).await
    });
    (incoming, drain, server)
}

fn request() -> ConnectRequest {
    ConnectRequest {
        authority: "10.0.0.1:9080".to_owned(),
        forwarded_for: Some("10.0.0.2:4711".parse().unwrap()),
        forwarded_host: Some("reviews.bookinfo.svc.cluster.local".into()),
        baggage: Some("service.name=productpage".to_owned()),
    }
}

impl Pair {
    /// One open stream, both ends.
    async fn stream(&mut self) -> (HboneStream, HboneStream) {
        let asked = request();
        let accept = async {
            self.incoming.recv().await.unwrap().accept(Some("service.name=reviews")).unwrap()
        };
        let (client, server) = tokio::join!(self.tunnel.open(&asked), accept);
        let Carrier::Hbone(server) = server else { panic!("not from a tunnel") };
        (client.unwrap(), server)
    }
}

async fn read_all(stream: &mut HboneStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    timeout(SOON, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    bytes
}

/// Waits for what another task does.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it never happened: {what}");
}

#[tokio::test]
async fn carries_the_request_and_bytes_both_ways() {
    let mut pair = pair(100).await;
    let asked = request();
    let (client, incoming) = tokio::join!(pair.tunnel.open(&asked), async {
        let incoming = pair.incoming.recv().await.unwrap();
        let request = incoming.request.clone();
        (request, incoming.accept(None).unwrap())
    });
    let (mut client, (seen, mut server)) = (client.unwrap(), incoming);
    assert_eq!(seen, request());
    client.write_all(b"question").await.unwrap();
    let mut buffer = [0; 8];
    server.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"question");
    server.write_all(b"answer").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, b"answer");
}

#[tokio::test]
async fn either_side_may_end_first() {
    let mut pair = pair(100).await;
    let (mut client, mut server) = pair.stream().await;
    client.write_all(b"all I have").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await, b"all I have");
    server.write_all(b"late answer").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, b"late answer");

    let (mut client, mut server) = pair.stream().await;
    server.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, b"");
    client.write_all(b"still here").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await, b"still here");
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_reset() {
    let mut pair = pair(100).await;
    let (mut client, server) = pair.stream().await;
    drop(server);
    let error = timeout(SOON, client.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let error = client.write_all(b"anybody?").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    // A server that said all it had and left: the client reads it to the end, and may not write.
    let (mut client, mut server) = pair.stream().await;
    server.write_all(b"too large").await.unwrap();
    server.shutdown().await.unwrap();
    drop(server);
    assert_eq!(read_all(&mut client).await, b"too large");
    let error = timeout(SOON, async {
        loop {
            if let Err(error) = client.write_all(b"more").await {
                return error;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn statuses_arrive() {
    let mut pair = pair(100).await;
    for status in
        [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED, StatusCode::SERVICE_UNAVAILABLE]
    {
        let asked = request();
        let (result, ()) = tokio::join!(pair.tunnel.open(&asked), async {
            pair.incoming.recv().await.unwrap().refuse(status);
        });
        assert!(matches!(result, Err(TunnelError::Status(seen)) if seen == status));
    }
    eventually("all places are free", || pair.tunnel.free_streams() == 100).await;
}

#[tokio::test]
async fn big_transfers_arrive_whole() {
    const SIZE: usize = 40 * 1024 * 1024;
    let mut pair = pair(100).await;
    let (mut client, mut server) = pair.stream().await;
    let sent = tokio::spawn(async move {
        let chunk: Vec<u8> = (0..=250).cycle().take(300_000).collect();
        let mut left = SIZE;
        while left > 0 {
            let size = chunk.len().min(left);
            client.write_all(&chunk[..size]).await.unwrap();
            left -= size;
        }
        client.shutdown().await.unwrap();
        read_all(&mut client).await
    });
    let mut received = 0;
    let mut buffer = vec![0; 100_000];
    loop {
        let read = timeout(SOON, server.read(&mut buffer)).await.unwrap().unwrap();
        if read == 0 {
            break;
        }
        for (offset, byte) in buffer[..read].iter().enumerate() {
            assert_eq!(usize::from(*byte), (received + offset) % 300_000 % 251);
        }
        received += read;
    }
    assert_eq!(received, SIZE);
    server.shutdown().await.unwrap();
    assert_eq!(sent.await.unwrap(), b"");
}

/// Also more streams in turn than h2 admits empty DATA frames on a connection: ends must not count among them.
#[tokio::test]
async fn streams_are_reused() {
    let mut pair = pair(2).await;
    for _ in 0..150 {
        let (mut one, mut first) = pair.stream().await;
        let (two, second) = pair.stream().await;
        assert_eq!(pair.tunnel.free_streams(), 0);
        assert!(matches!(pair.tunnel.open(&request()).await, Err(TunnelError::Full)));
        // One ends on both sides and is kept, the other is dropped: both places are free.
        one.shutdown().await.unwrap();
        first.shutdown().await.unwrap();
        read_all(&mut first).await;
        assert_eq!(pair.tunnel.free_streams(), 0);
        read_all(&mut one).await;
        assert_eq!(pair.tunnel.free_streams(), 1);
        drop((two, second));
        assert_eq!(pair.tunnel.free_streams(), 2);
    }
    assert!(pair.tunnel.is_usable());
}

#[tokio::test]
async fn opening_may_be_cancelled() {
    let mut pair = pair(1).await;
    let asked = request();
    {
        let mut open = Box::pin(pair.tunnel.open(&asked));
        tokio::select! {
            _ = &mut open => panic!("nobody answered"),
            incoming = pair.incoming.recv() => assert!(incoming.is_some()),
        }
        assert_eq!(pair.tunnel.free_streams(), 0);
    }
    assert_eq!(pair.tunnel.free_streams(), 1);
    pair.stream().await;
}

#[tokio::test]
async fn a_hundred_streams_side_by_side() {
    let mut pair = pair(100).await;
    let mut clients = Vec::new();
    for number in 0..100_u32 {
        let (mut client, mut server) = pair.stream().await;
        tokio::spawn(async move {
            let number = server.read_u32().await.unwrap();
            server.write_u32(number * 2).await.unwrap();
            server.shutdown().await.unwrap();
        });
        client.write_u32(number).await.unwrap();
        clients.push(client);
    }
    for (number, mut client) in (0_u32..).zip(clients) {
        assert_eq!(timeout(SOON, client.read_u32()).await.unwrap().unwrap(), number * 2);
    }
}

/// Trap 22: a consumer that stands still, with more sent to it than a window holds.
#[tokio::test]
async fn a_stream_that_does_not_read_does_not_stall_its_siblings() {
    let mut pair = pair(100).await;
    let (mut client, _stuck) = pair.stream().await;
    let flood = tokio::spawn(async move {
        let chunk = vec![7; 64 * 1024];
        let mut sent = 0;
        while timeout(Duration::from_millis(300), client.write_all(&chunk)).await.is_ok() {
            sent += chunk.len();
        }
        (client, sent)
    });
    let (_client, sent) = flood.await.unwrap();
    // What is in flight and in the client's own send buffer comes on top of the window.
    const KIB: usize = 1024;
    assert!((128 * KIB..=1024 * KIB).contains(&sent), "{sent}");
    let (mut client, mut server) = pair.stream().await;
    let echo = tokio::spawn(async move {
        let got = read_all(&mut server).await;
        server.write_all(&got).await.unwrap();
        server.shutdown().await.unwrap();
    });
    let body = vec![1; 6 * 1024 * 1024];
    timeout(SOON, client.write_all(&body)).await.unwrap().unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await.len(), body.len());
    echo.await.unwrap();
}

#[tokio::test]
async fn a_drained_client_ends_with_its_last_stream() {
    let mut pair = pair(100).await;
    let (mut client, mut server) = pair.stream().await;
    pair.tunnel.drain();
    assert!(!pair.tunnel.is_usable());
    assert_eq!(pair.tunnel.free_streams(), 0);
    assert!(matches!(pair.tunnel.open(&request()).await, Err(TunnelError::Closing)));
    client.write_all(b"still open").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await, b"still open");
    assert!(!pair.driver.is_finished());
    server.shutdown().await.unwrap();
    read_all(&mut client).await;
    drop((client, server));
    timeout(SOON, pair.driver).await.unwrap().unwrap();
    assert!(timeout(SOON, pair.server).await.unwrap().unwrap().is_ok());
}

#[tokio::test]
async fn a_tunnel_that_nobody_holds_ends() {
    let mut pair = pair(100).await;
    let (client, server) = pair.stream().await;
    drop(pair.tunnel);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!pair.driver.is_finished());
    drop((client, server));
    timeout(SOON, pair.driver).await.unwrap().unwrap();
    assert!(timeout(SOON, pair.server).await.unwrap().unwrap().is_ok());
}

#[tokio::test]
async fn a_drained_server_says_so_and_ends_with_its_last_stream() {
    let mut pair = pair(100).await;
    let (mut client, mut server) = pair.stream().await;
    pair.drain.cancel();
    eventually("the client heard of it", || !pair.tunnel.is_usable()).await;
    assert!(matches!(pair.tunnel.open(&request()).await, Err(TunnelError::Closing)));
    server.write_all(b"the rest").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, b"the rest");
    assert!(!pair.server.is_finished());
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await, b"");
    drop((client, server));
    assert!(timeout(SOON, pair.server).await.unwrap().unwrap().is_ok());
    timeout(SOON, pair.driver).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_lost_connection_resets_streams_and_ends_the_tunnel() {
    let mut pair = pair(100).await;
    let (mut client, _server) = pair.stream().await;
    pair.server.abort();
    let error = timeout(SOON, client.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    timeout(SOON, pair.driver).await.unwrap().unwrap();
    assert!(!pair.tunnel.is_usable());
}

#[tokio::test]
async fn the_peers_limit_counts() {
    let (client, server) = duplex(PIPE);
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(3);
    let server = tokio::spawn(async move {
        let mut connection = builder.handshake::<_, Bytes>(server).await.unwrap();
        while connection.accept().await.is_some() {}
    });
    let (tunnel, driver) = handshake(client, 100, &Room::boundless()).await.unwrap();
    let driver = tokio::spawn(driver);
    eventually("the settings arrived", || tunnel.free_streams() == 3).await;
    drop(tunnel);
    timeout(SOON, driver).await.unwrap().unwrap();
    timeout(SOON, server).await.unwrap().unwrap();
}

/// The response to a foreign client's `request`.
async fn foreign(request: Request<()>) -> (Result<StatusCode, h2::Error>, Option<Incoming>) {
    let (client, server) = duplex(PIPE);
    let (mut incoming, _drain, server) = serving(server);
    let (sender, connection) = h2::client::handshake(client).await.unwrap();
    let connection = tokio::spawn(connection);
    let (response, _body) = sender.ready().await.unwrap().send_request(request, true).unwrap();
    let result = tokio::select! {
        response = response => (response.map(|response| response.status()), None),
        incoming = incoming.recv() => (Ok(StatusCode::OK), incoming),
    };
    server.abort();
    connection.abort();
    result
}

#[tokio::test]
async fn anything_but_connect_to_an_address_is_refused() {
    for (method, uri) in [
        (Method::GET, "http://10.0.0.1:80/"),
        (Method::POST, "http://10.0.0.1:80/"),
        (Method::OPTIONS, "http://10.0.0.1:80/"),
        (Method::CONNECT, "10.0.0.1"),
        (Method::CONNECT, "10.0.0.1:0"),
        (Method::CONNECT, "user@10.0.0.1:80"),
        (Method::CONNECT, "reviews"),
    ] {
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        let (status, incoming) = foreign(request).await;
        assert_eq!(status.unwrap(), StatusCode::BAD_REQUEST, "{uri}");
        assert!(incoming.is_none());
    }
    let request = Request::builder().method(Method::CONNECT).uri("10.0.0.1:80").body(()).unwrap();
    let (_, incoming) = foreign(request).await;
    assert_eq!(incoming.unwrap().request.authority, "10.0.0.1:80");
}

#[tokio::test]
async fn garbage_ends_the_connection() {
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff", b""]
    {
        let (mut client, server) = duplex(PIPE);
        let (mut incoming, _drain, server) = serving(server);
        client.write_all(garbage).await.unwrap();
        drop(client);
        let _ = timeout(SOON, server).await.unwrap().unwrap();
        assert!(incoming.recv().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_dropped() {
    let (_client, server) = duplex(PIPE);
    let (_incoming, _drain, server) = serving(server);
    assert!(matches!(server.await.unwrap(), Err(TunnelError::Unresponsive)));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_pings_is_kept() {
    let pair = pair(100).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(pair.tunnel.is_usable());
    assert!(!pair.server.is_finished());
}

/// Its connection stays open, but nobody reads from it any more.
#[tokio::test(start_paused = true)]
async fn a_client_that_stops_answering_is_dropped() {
    let started = tokio::time::Instant::now();
    let (mut client, server) = duplex(PIPE);
    let (_incoming, _drain, server) = serving(server);
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    assert!(matches!(server.await.unwrap(), Err(TunnelError::Unresponsive)));
    assert_eq!(started.elapsed().as_secs(), 30);
}
