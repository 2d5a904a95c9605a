//! A network between client and server that goes dead.

use std::sync::Arc;

use tokio::io::split;
use tokio::sync::watch;

use super::*;

/// A pair over a network that carries bytes while `alive` says so.
async fn over_a_network() -> (Pair, watch::Sender<bool>) {
    let (client, near) = duplex(PIPE);
    let (far, server) = duplex(PIPE);
    let (alive, seen) = watch::channel(true);
    let ((from_client, to_client), (from_server, to_server)) = (split(near), split(far));
    tokio::spawn(carry(from_client, to_server, seen.clone()));
    tokio::spawn(carry(from_server, to_client, seen));
    let (incoming, drain, server) = serving(server);
    let (tunnel, driver) = handshake(client, 100, &crate::base::Room::boundless()).await.unwrap();
    let driver = tokio::spawn(driver);
    (Pair { tunnel, incoming, driver, server, drain }, alive)
}

async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut alive: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 4096];
    loop {
        let Ok(read) = from.read(&mut buffer).await else { return };
        if read == 0 || alive.wait_for(|alive| *alive).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn until_suspect(tunnel: &Tunnel, expected: bool) -> Duration {
    let start = tokio::time::Instant::now();
    while tunnel.is_suspect() != expected {
        assert!(start.elapsed() < Duration::from_secs(60), "never {expected}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_suspected_and_trusted_again() {
    let (mut pair, alive) = over_a_network().await;
    let (mut client, mut server) = pair.stream().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!pair.tunnel.is_suspect(), "a peer that answers");
    alive.send_replace(false);
    let took = until_suspect(&pair.tunnel, true).await;
    assert!(took <= Duration::from_millis(7_200), "{took:?}");
    alive.send_replace(true);
    until_suspect(&pair.tunnel, false).await;
    client.write_all(b"still here").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await, b"still here");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stays_silent_is_given_up() {
    let (mut pair, alive) = over_a_network().await;
    let (mut client, _server) = pair.stream().await;
    alive.send_replace(false);
    let start = tokio::time::Instant::now();
    assert!(client.read(&mut [0; 1]).await.is_err());
    assert!(start.elapsed() <= Duration::from_secs(26), "{:?}", start.elapsed());
    assert!(!pair.tunnel.is_usable());
}

/// Nothing is asked of a peer while nobody uses the tunnel, and at once when somebody does.
#[tokio::test(start_paused = true)]
async fn a_tunnel_that_died_unused_is_found_out_by_its_first_stream() {
    let (pair, alive) = over_a_network().await;
    let tunnel = Arc::new(pair.tunnel);
    alive.send_replace(false);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(!tunnel.is_suspect(), "nobody asked");
    let opening = {
        let tunnel = tunnel.clone();
        tokio::spawn(async move { tunnel.open(&request()).await.map(drop) })
    };
    let took = until_suspect(&tunnel, true).await;
    assert!(took <= Duration::from_millis(2_200), "{took:?}");
    assert!(opening.await.unwrap().is_err());
}

/// A stream whose consumer stands still and which is sent small messages fills its window and no more.
#[tokio::test]
async fn small_messages_that_nobody_reads_do_not_end_the_tunnel() {
    let mut pair = pair(100).await;
    let (mut idle, _not_reading) = pair.stream().await;
    let message = [7; 64];
    let filling = async {
        loop {
            idle.write_all(&message).await.unwrap();
        }
    };
    assert!(timeout(Duration::from_secs(2), filling).await.is_err(), "the window has an end");
    let (mut client, mut server) = pair.stream().await;
    client.write_all(b"sibling").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await, b"sibling");
}
