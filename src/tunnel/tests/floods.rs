//! Peers that send frames without end. What a real agent does about them is tested in `tests/netns/floods.rs`.

use tokio::io::{copy, sink, split};

use super::*;

/// PING with a payload of zeros (RFC 9113, 6.7), many of them.
fn pings() -> Vec<u8> {
    [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[0; 8]].concat().repeat(1000)
}

#[tokio::test(start_paused = true)]
async fn a_server_that_floods_loses_the_tunnel() {
    let (client, server) = duplex(PIPE);
    let (mut read, mut write) = split(server);
    tokio::spawn(async move { copy(&mut read, &mut sink()).await });
    let flooding = tokio::spawn(async move {
        write.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        while write.write_all(&pings()).await.is_ok() {}
    });
    let (tunnel, driver) = handshake(client, 100, &Room::boundless()).await.unwrap();
    timeout(SOON, driver).await.unwrap();
    assert!(!tunnel.is_usable());
    timeout(SOON, flooding).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_floods_is_told_so() {
    let (client, server) = duplex(PIPE);
    let (_incoming, _drain, server) = serving(server);
    let (mut read, mut write) = split(client);
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        read.read_to_end(&mut all).await.map(|_| all)
    });
    write.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    while write.write_all(&pings()).await.is_ok() {}
    let ended = timeout(SOON, server).await.unwrap().unwrap();
    assert!(matches!(ended, Err(TunnelError::Flood)), "{ended:?}");
    let all = timeout(SOON, reading).await.unwrap().unwrap().unwrap();
    // GOAWAY with ENHANCE_YOUR_CALM is the last thing that it said (RFC 9113, 6.8 and 7).
    assert!(all.ends_with(&[0, 0, 0, 11]), "{:?}", &all[all.len() - 20..]);
}
