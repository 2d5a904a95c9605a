//! Factories and the copy loop over loopback.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Counts {
    sent: AtomicUsize,
    received: AtomicUsize,
}

impl Transferred for Counts {
    fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }
}

type Copying = JoinHandle<(Result<(), CopyError>, usize, usize)>;

async fn tcp() -> (TcpStream, TcpStream) {
    let listener = PlainSockets.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let to = listener.local_addr().unwrap();
    let (client, accepted) =
        tokio::join!(connect(&PlainSockets, to, None, SOON), listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}

/// A client, a server, and the copy between them with what it counted.
async fn copying() -> (TcpStream, TcpStream, Copying) {
    let (client, downstream) = tcp().await;
    let (upstream, server) = tcp().await;
    let copy = tokio::spawn(async move {
        let counts = Counts::default();
        let result = copy_bidirectional(downstream, upstream, &counts).await;
        (result, counts.sent.into_inner(), counts.received.into_inner())
    });
    (client, server, copy)
}

async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    timeout(SOON, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    bytes
}

#[tokio::test]
async fn half_close_both_ways() {
    let (mut client, mut server, copy) = copying().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await, b"question");
    server.write_all(b"the answer").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, b"the answer");
    let (result, sent, received) = timeout(SOON, copy).await.unwrap().unwrap();
    result.unwrap();
    assert_eq!((sent, received), (8, 10));
}

/// Past every step of the buffer, and both directions at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn big_transfers_arrive_whole() {
    const SIZE: usize = 20 * 1024 * 1024;
    let (client, server, copy) = copying().await;
    let ends = [(client, 251), (server, 241)].map(|(stream, period)| {
        let (mut read, mut write) = stream.into_split();
        let writing = tokio::spawn(async move {
            let body: Vec<u8> = (0..period).cycle().take(SIZE).collect();
            write.write_all(&body).await.unwrap();
        });
        (writing, async move {
            let mut body = Vec::new();
            timeout(SOON, read.read_to_end(&mut body)).await.unwrap().unwrap();
            body
        })
    });
    let [(writing_up, reading_down), (writing_down, reading_up)] = ends;
    let (down, up) = tokio::join!(reading_down, reading_up);
    assert!(up.iter().copied().eq((0..251).cycle().take(SIZE)));
    assert!(down.iter().copied().eq((0..241).cycle().take(SIZE)));
    writing_up.await.unwrap();
    writing_down.await.unwrap();
    let (result, sent, received) = timeout(SOON, copy).await.unwrap().unwrap();
    result.unwrap();
    assert_eq!((sent, received), (SIZE, SIZE));
}

#[tokio::test]
async fn a_reset_is_passed_on_and_blamed() {
    let (mut client, server, copy) = copying().await;
    server.set_zero_linger().unwrap();
    drop(server);
    let error = timeout(SOON, client.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let error = copy.await.unwrap().0.unwrap_err();
    assert_eq!((error.side, error.operation), (Side::Upstream, Operation::Read));

    let (client, mut server, copy) = copying().await;
    client.set_zero_linger().unwrap();
    drop(client);
    let error = timeout(SOON, server.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let error = copy.await.unwrap().0.unwrap_err();
    assert_eq!((error.side, error.operation), (Side::Downstream, Operation::Read));
    assert!(error.to_string().starts_with("reading from the client's connection"), "{error}");
}

/// The server sent its end; then the client, which has it, breaks off.
#[tokio::test]
async fn a_reset_after_the_end_is_clean() {
    let (mut client, mut server, copy) = copying().await;
    server.write_all(b"all").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, b"all");
    client.set_zero_linger().unwrap();
    drop(client);
    timeout(SOON, copy).await.unwrap().unwrap().0.unwrap();
}

/// A server that refuses an upload early: its answer and its end arrive while the client is still sending.
#[tokio::test]
async fn an_early_answer_arrives_although_the_upload_fails() {
    let (client, mut server, copy) = copying().await;
    server.write_all(b"413").await.unwrap();
    server.shutdown().await.unwrap();
    drop(server);
    let (mut read, mut write) = client.into_split();
    let upload = tokio::spawn(async move {
        while write.write_all(&[0; 4096]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let mut answer = [0; 3];
    timeout(SOON, read.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"413");
    let error = timeout(SOON, copy).await.unwrap().unwrap().0.unwrap_err();
    assert_eq!((error.side, error.operation), (Side::Upstream, Operation::Write));
    timeout(SOON, upload).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_copy_that_is_dropped_resets_both_sides() {
    let (mut client, mut server, copy) = copying().await;
    client.write_all(b"x").await.unwrap();
    server.read_u8().await.unwrap();
    copy.abort();
    for stream in [&mut client, &mut server] {
        let error = timeout(SOON, stream.read_u8()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn what_was_read_ahead_goes_first() {
    let (client, accepted) = tcp().await;
    let (upstream, mut server) = tcp().await;
    let rewound = Rewind { front: Bytes::from_static(b"GET "), stream: accepted };
    let copy =
        tokio::spawn(
            async move { copy_bidirectional(rewound, upstream, &Counts::default()).await },
        );
    let (mut read, mut write) = client.into_split();
    write.write_all(b"/ HTTP").await.unwrap();
    write.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await, b"GET / HTTP");
    drop(server);
    assert_eq!(read.read(&mut [0; 1]).await.unwrap(), 0);
    copy.await.unwrap().unwrap();
}

#[tokio::test]
async fn any_stream_can_be_split() {
    let (mut client, downstream) = tokio::io::duplex(64);
    let (upstream, mut server) = tokio::io::duplex(64);
    let copy = tokio::spawn(async move {
        copy_bidirectional(Split(downstream), Split(upstream), &Counts::default()).await
    });
    let body = vec![3; 1000];
    let (written, read) = tokio::join!(
        async {
            client.write_all(&body).await?;
            client.shutdown().await
        },
        async {
            let mut read = Vec::new();
            server.read_to_end(&mut read).await.map(|_| read)
        }
    );
    written.unwrap();
    assert_eq!(read.unwrap(), body);
    server.shutdown().await.unwrap();
    timeout(SOON, copy).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_copy_is_small() {
    let ((_client, downstream), (upstream, _server)) = (tcp().await, tcp().await);
    let counts = Counts::default();
    let size = size_of_val(&copy_bidirectional(downstream, upstream, &counts));
    println!("TCP to TCP: {size} bytes");
    assert!(size <= 384, "{size}");
}

#[tokio::test]
async fn listeners_take_both_families_and_connections_are_tuned() {
    let listener = PlainSockets.listen("[::]:0".parse().unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    for address in ["127.0.0.1", "::1"] {
        let to = SocketAddr::new(address.parse().unwrap(), port);
        let (connected, accepted) =
            tokio::join!(connect(&PlainSockets, to, None, SOON), listener.accept());
        let (connected, (accepted, peer)) = (connected.unwrap(), accepted.unwrap());
        tune_accepted(&accepted).unwrap();
        assert_eq!(unmap(peer), connected.local_addr().unwrap());
        for stream in [&connected, &accepted] {
            assert!(stream.nodelay().unwrap());
            let socket = SockRef::from(stream);
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(180));
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(180));
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), 9);
        }
    }
    let error = PlainSockets.listen(SocketAddr::new("::".parse().unwrap(), port)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&format!("[::]:{port}")), "{error}");
}

#[tokio::test]
async fn connections_that_fail_say_why() {
    let refused = "127.0.0.1:1".parse().unwrap();
    let error = connect(&PlainSockets, refused, None, SOON).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let families = connect(&PlainSockets, refused, Some("::1".parse().unwrap()), SOON).await;
    assert_eq!(families.unwrap_err().kind(), ErrorKind::InvalidInput);
    // A backlog of one that is full: the kernel drops what comes next.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let full = listener.local_addr().unwrap().as_socket().unwrap();
    let _first = connect(&PlainSockets, full, None, SOON).await.unwrap();
    let error = connect(&PlainSockets, full, None, Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains(&full.to_string()), "{error}");
}
