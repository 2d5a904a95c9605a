//! The copy loop between TCP and tunnels, and streams that were handed over.

use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::sock::{CopyError, Duplex, Operation, Rewind, Side, Transferred, copy_bidirectional};

struct Silent;

impl Transferred for Silent {
    fn sent(&self, _bytes: usize) {}
    fn received(&self, _bytes: usize) {}
}

async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}

/// A client and an application with both halves of a mesh between them.
struct Path {
    client: TcpStream,
    application: TcpStream,
    client_side: JoinHandle<Result<(), CopyError>>,
    server_side: JoinHandle<Result<(), CopyError>>,
    _pair: Pair,
}

async fn path() -> Path {
    let mut pair = pair(100).await;
    let (client, accepted) = tcp().await;
    let (connected, application) = tcp().await;
    let (outbound, inbound) = pair.stream().await;
    let client_side =
        tokio::spawn(async move { copy_bidirectional(accepted, outbound, &Silent).await });
    let server_side = tokio::spawn(async move {
        copy_bidirectional(Carrier::Hbone(inbound), connected, &Silent).await
    });
    Path { client, application, client_side, server_side, _pair: pair }
}

async fn ended(copy: JoinHandle<Result<(), CopyError>>) -> Result<(), CopyError> {
    timeout(SOON, copy).await.unwrap().unwrap()
}

/// Trap 11: the client ends its direction first, and gets the answer all the same.
#[tokio::test]
async fn half_close_passes_through() {
    let mut path = path().await;
    let body: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    let (read, written) = tokio::join!(
        async {
            let mut got = Vec::new();
            path.application.read_to_end(&mut got).await.map(|_| got)
        },
        async {
            path.client.write_all(&body).await?;
            path.client.shutdown().await
        }
    );
    written.unwrap();
    assert!(read.unwrap() == body);
    path.application.write_all(b"answer").await.unwrap();
    path.application.shutdown().await.unwrap();
    let mut got = Vec::new();
    timeout(SOON, path.client.read_to_end(&mut got)).await.unwrap().unwrap();
    assert_eq!(got, b"answer");
    ended(path.client_side).await.unwrap();
    ended(path.server_side).await.unwrap();
}

#[tokio::test]
async fn the_application_may_end_first() {
    let mut path = path().await;
    path.application.write_all(b"greeting").await.unwrap();
    path.application.shutdown().await.unwrap();
    let mut got = Vec::new();
    timeout(SOON, path.client.read_to_end(&mut got)).await.unwrap().unwrap();
    assert_eq!(got, b"greeting");
    path.client.write_all(b"thanks").await.unwrap();
    path.client.shutdown().await.unwrap();
    got.clear();
    timeout(SOON, path.application.read_to_end(&mut got)).await.unwrap().unwrap();
    assert_eq!(got, b"thanks");
    ended(path.client_side).await.unwrap();
    ended(path.server_side).await.unwrap();
}

/// A reset of the application is a reset for the client, not an end.
#[tokio::test]
async fn resets_pass_through() {
    let mut path = path().await;
    path.client.write_all(b"x").await.unwrap();
    path.application.read_u8().await.unwrap();
    path.application.set_zero_linger().unwrap();
    drop(path.application);
    let error = timeout(SOON, path.client.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let error = ended(path.server_side).await.unwrap_err();
    assert_eq!((error.side, error.operation), (Side::Upstream, Operation::Read));
    let error = ended(path.client_side).await.unwrap_err();
    assert_eq!((error.side, error.operation), (Side::Upstream, Operation::Read));
}

/// The client has ended its direction and then left: nothing is read from it any more, yet the application learns it.
#[tokio::test]
async fn a_client_that_leaves_after_its_end_is_noticed() {
    let mut pair = pair(100).await;
    let (mut client, inbound) = pair.stream().await;
    let (connected, mut application) = tcp().await;
    let copy = tokio::spawn(async move { copy_bidirectional(inbound, connected, &Silent).await });
    client.shutdown().await.unwrap();
    assert_eq!(application.read(&mut [0; 8]).await.unwrap(), 0);
    drop(client);
    let error = ended(copy).await.unwrap_err();
    assert_eq!((error.side, error.operation), (Side::Downstream, Operation::Write));
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// The other way round: the server has ended its direction, and then wants nothing more.
#[tokio::test]
async fn a_server_that_leaves_after_its_end_is_noticed() {
    let mut pair = pair(100).await;
    let (outbound, mut server) = pair.stream().await;
    let (mut client, accepted) = tcp().await;
    let copy = tokio::spawn(async move { copy_bidirectional(accepted, outbound, &Silent).await });
    server.write_all(b"bye").await.unwrap();
    server.shutdown().await.unwrap();
    let mut got = Vec::new();
    timeout(SOON, client.read_to_end(&mut got)).await.unwrap().unwrap();
    assert_eq!(got, b"bye");
    drop(server);
    let error = ended(copy).await.unwrap_err();
    assert_eq!((error.side, error.operation), (Side::Upstream, Operation::Write));
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_carrier_is_read_again_from_its_front() {
    let mut pair = pair(100).await;
    let (mut client, mut inbound) = pair.stream().await;
    client.write_all(b"GET / and more").await.unwrap();
    client.shutdown().await.unwrap();
    let mut front = vec![0; 5];
    inbound.read_exact(&mut front).await.unwrap();
    let mut again = Rewind { front: front.into(), stream: Carrier::Hbone(inbound) };
    // First as a stream, then, with half of a frame taken, as chunks.
    let mut start = [0; 7];
    again.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"GET / a");
    let (connected, mut application) = tcp().await;
    let copy = tokio::spawn(async move { copy_bidirectional(again, connected, &Silent).await });
    let mut rest = Vec::new();
    timeout(SOON, application.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, b"nd more");
    drop((application, client));
    let _ = ended(copy).await;
}

#[tokio::test]
async fn an_idle_copy_is_small() {
    let mut pair = pair(100).await;
    let (outbound, inbound) = pair.stream().await;
    let (tcp, _peer) = tcp().await;
    let plain = size_of_val(&copy_bidirectional(tcp, outbound, &Silent));
    let (tcp, _peer) = self::tcp().await;
    let carried = size_of_val(&copy_bidirectional(Carrier::Hbone(inbound), tcp, &Silent));
    println!("TCP to HBONE: {plain} bytes, carrier to TCP: {carried} bytes");
    assert!(plain <= 512 && carried <= 512, "{plain} {carried}");
}

/// Halves that are dropped one after the other give the place back once, at the second.
#[tokio::test]
async fn halves_share_a_place() {
    let mut pair = pair(1).await;
    let (client, _server) = pair.stream().await;
    let (read, write) = client.halves();
    drop(write);
    assert_eq!(pair.tunnel.free_streams(), 0);
    drop(read);
    assert_eq!(pair.tunnel.free_streams(), 1);
}
