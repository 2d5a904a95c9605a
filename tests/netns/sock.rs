//! Sockets in network namespaces: entering and leaving, marks, original destinations, borrowed addresses.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests may fail"
)]

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use isthmus::base::ports::SOCKET_MARK;
use isthmus::sock::{
    NamespaceSockets, NetworkNamespace, PlainSockets, SocketFactory, connect, original_destination,
    unmap,
};
use nix::sched::{CloneFlags, unshare};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SOON: Duration = Duration::from_secs(5);
/// What a namespace calls its own besides loopback.
const OWN: [&str; 2] = ["10.9.0.1", "fd09::1"];

/// A new namespace with `lo` up; it lives as long as a handle of it.
fn namespace() -> NetworkNamespace {
    let namespace = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare: root is needed");
        NetworkNamespace::open("/proc/thread-self/ns/net").unwrap()
    })
    .join()
    .unwrap();
    command(&namespace, "ip link set lo up");
    command(&namespace, "ip addr add 10.9.0.1/32 dev lo");
    command(&namespace, "ip addr add fd09::1/128 dev lo nodad");
    await_route(&namespace, OWN[1]);
    namespace
}

/// The kernel makes the routes to a new IPv6 address a moment after the address, and changes them once more: it is
/// there when a connection was refused, not unreachable, several times in a row.
fn await_route(namespace: &NetworkNamespace, ip: &str) {
    let refused = || {
        let connected = namespace.run(|| std::net::TcpStream::connect(address(ip, 9))).unwrap();
        connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    let mut in_a_row = 0;
    for _ in 0..500 {
        in_a_row = if refused() { in_a_row + 1 } else { 0 };
        if in_a_row == 5 {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no route to {ip}");
}

fn command(namespace: &NetworkNamespace, line: &str) {
    feed(namespace, line, "");
}

/// Runs a command inside, with `input`; it must succeed.
fn feed(namespace: &NetworkNamespace, line: &str, input: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::piped());
    let mut child = namespace.run(|| command.spawn().unwrap()).unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{line}");
}

fn own_inode() -> u64 {
    NetworkNamespace::open("/proc/thread-self/ns/net").unwrap().inode().unwrap()
}

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// Both ends of a connection to `to`, which leads to `listener`.
async fn connected(
    sockets: &dyn SocketFactory,
    listener: &TcpListener,
    to: SocketAddr,
    from: Option<IpAddr>,
) -> (TcpStream, TcpStream, SocketAddr) {
    // The backlog takes the connection, so that a failure to connect is seen as what it is.
    let client = connect(sockets, to, from, SOON).await;
    let client = client.unwrap_or_else(|error| panic!("connect to {to}: {error}"));
    let accepted = tokio::time::timeout(SOON, listener.accept()).await.unwrap();
    let (accepted, peer) = accepted.unwrap();
    (client, accepted, unmap(peer))
}

#[test]
fn a_thread_comes_back_even_from_a_panic() {
    let before = own_inode();
    let inside = namespace();
    assert_ne!(inside.inode().unwrap(), before);
    assert_eq!(inside.run(own_inode).unwrap(), inside.inode().unwrap());
    assert_eq!(own_inode(), before);
    let panicked = std::panic::catch_unwind(|| inside.run(|| panic!("inside")));
    assert!(panicked.is_err());
    assert_eq!(own_inode(), before);
}

#[tokio::test]
async fn sockets_stay_inside_and_are_marked() {
    let sockets = NamespaceSockets::new(namespace());
    let listener = sockets.listen(address("::", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    for ip in ["127.0.0.1", "::1", OWN[0], OWN[1]] {
        let (client, accepted, _) = connected(&sockets, &listener, address(ip, port), None).await;
        for stream in [&client, &accepted] {
            assert_eq!(SockRef::from(stream).mark().unwrap(), SOCKET_MARK, "{ip}");
        }
    }
    let outside = connect(&PlainSockets, address("127.0.0.1", port), None, SOON).await;
    assert_eq!(outside.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let other = NamespaceSockets::new(namespace());
    let elsewhere = connect(&other, address("127.0.0.1", port), None, SOON).await;
    assert_eq!(elsewhere.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

/// What capture does, in little: unmarked connections go to the agent's port.
#[tokio::test]
async fn the_original_destination_survives_a_redirect() {
    let namespace = namespace();
    let sockets = NamespaceSockets::new(namespace.clone());
    let listener = sockets.listen(address("::", 15001)).unwrap();
    feed(
        &namespace,
        "nft -f -",
        "table inet test {
           chain output {
             type nat hook output priority -100;
             meta mark 0x539 return
             tcp dport 80 redirect to :15001
           }
         }",
    );
    for ip in OWN {
        let to = address(ip, 80);
        let (client, listener) = (namespace.run(|| std::net::TcpStream::connect(to)), &listener);
        let client = client.unwrap().unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert_eq!(original_destination(&accepted).unwrap(), to);
        assert_ne!(unmap(accepted.local_addr().unwrap()).port(), 80);
        drop(client);
        // The agent's own connection is left alone.
        let refused = connect(&sockets, to, None, SOON).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{ip}");
    }
}

/// A client's address, which the namespace does not own, as the source.
#[tokio::test]
async fn addresses_can_be_borrowed() {
    let namespace = namespace();
    // Answers to the borrowed address come back to this host, as capture's rules see to.
    for (family, own) in [("-4", OWN[0]), ("-6", OWN[1])] {
        command(&namespace, &format!("ip {family} rule add from {own} lookup 100"));
        command(&namespace, &format!("ip {family} route add local default dev lo table 100"));
    }
    let sockets = NamespaceSockets::new(namespace);
    let listener = sockets.listen(address("::", 9080)).unwrap();
    for (own, borrowed) in [(OWN[0], "192.0.2.7"), (OWN[1], "2001:db8::7")] {
        let from: IpAddr = borrowed.parse().unwrap();
        let to = address(own, 9080);
        let (mut client, mut accepted, peer) = connected(&sockets, &listener, to, Some(from)).await;
        assert_eq!(peer.ip(), from);
        assert_ne!(peer.port(), 0);
        client.write_all(b"ping").await.unwrap();
        let mut buffer = [0; 4];
        accepted.read_exact(&mut buffer).await.unwrap();
        accepted.write_all(b"pong").await.unwrap();
        client.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"pong");
    }
    // An IPv4 client as a dual-stack socket names it.
    let mapped = "::ffff:192.0.2.8".parse().unwrap();
    let to = address("::ffff:10.9.0.1", 9080);
    let (_client, _accepted, peer) = connected(&sockets, &listener, to, Some(mapped)).await;
    assert_eq!(peer.ip().to_string(), "192.0.2.8");
}

/// A pod may forbid IPv6: the listener must come up all the same, and take IPv4.
#[tokio::test]
async fn listeners_come_up_without_ipv6() {
    let namespace = namespace();
    namespace
        .run(|| std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"))
        .unwrap()
        .unwrap();
    let sockets = NamespaceSockets::new(namespace);
    let listener = sockets.listen(address("::", 15006)).unwrap();
    let (_client, _accepted, peer) =
        connected(&sockets, &listener, address("127.0.0.1", 15006), None).await;
    assert!(peer.ip().is_loopback());
}
