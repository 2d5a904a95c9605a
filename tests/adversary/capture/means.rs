//! What attackers use, and the servers that tell who arrived.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use isthmus::base::ports;
use socket2::{Domain, Socket, Type};
use tokio::time::Instant;

use super::raw::{ACK, CWR, ECE, FIN, MD5, PSH, RST, Raw, SYN, Segment, URG};
use crate::support::lab::Lab;
use crate::support::lab::command::run;
use crate::support::lab::netns::Namespace;

/// Longer than any answer takes, and than the second after which a SYN is repeated.
pub const PATIENCE: Duration = Duration::from_millis(1500);

/// What an attacker sends ahead, so that conntrack knows the connection before NAT sees its SYN.
pub fn preludes() -> Vec<(&'static str, Vec<Segment>)> {
    let segment = |flags, options: &[u8]| Segment {
        flags,
        sequence: 1000,
        acknowledged: 2000,
        options: options.to_vec(),
        ..Segment::default()
    };
    let data =
        |options: &[u8]| Segment { data: b"GET / HTTP".to_vec(), ..segment(ACK | PSH, options) };
    vec![
        ("nothing", vec![]),
        ("an ACK that is dropped in silence", vec![segment(ACK, &MD5)]),
        ("an ACK", vec![segment(ACK, &[])]),
        ("data that is dropped in silence", vec![data(&MD5)]),
        ("an ACK and data", vec![segment(ACK, &MD5), data(&MD5)]),
        ("an ACK and a FIN", vec![segment(ACK, &MD5), segment(FIN | ACK, &MD5)]),
        ("an ACK and a RST", vec![segment(ACK, &MD5), segment(RST | ACK, &MD5)]),
        ("SYN and ACK", vec![segment(SYN | ACK, &MD5)]),
    ]
}

/// Flags under which a listening socket opens a connection, or might.
pub const OPENINGS: [u8; 6] =
    [SYN, SYN | PSH, SYN | URG, SYN | ECE | CWR, SYN | FIN, SYN | PSH | URG | ECE | CWR];

/// A request whose path tells it from all others in the victim's log.
pub fn marked_request() -> (String, String) {
    let mark = format!("attack-{}", fastrand::u64(..));
    let request =
        format!("GET /details/0?{mark} HTTP/1.1\r\nHost: details\r\nConnection: close\r\n\r\n");
    (mark, request)
}

pub fn port() -> u16 {
    fastrand::u16(20_000..30_000)
}

/// A connection from exactly this address and port, as every process may open one.
pub fn connect(from: SocketAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&from.into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

pub fn ask(stream: &mut TcpStream, request: &str) -> std::io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// Does it in a thread of an unprivileged user of the node.
#[allow(unsafe_code)]
pub fn as_nobody<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    const NOBODY: libc::c_int = 65534;
    let thread = std::thread::spawn(move || -> Result<T> {
        // SAFETY: the call takes numbers only; made past libc it changes this thread alone, which then ends.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
        ensure!(result == 0, "setresuid: {}", std::io::Error::last_os_error());
        Ok(work())
    });
    thread.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?
}

/// Both families of a pod's addresses, with a port.
pub fn places(lab: &Lab, pod: &str, port: u16) -> Result<[SocketAddr; 2]> {
    Ok(lab.pod(pod)?.attachment.addresses.map(|address| SocketAddr::new(address, port)))
}

pub fn namespace(lab: &Lab, pod: &str) -> Result<Namespace> {
    Ok(lab.pod(pod)?.attachment.namespace.clone())
}

/// Keeps a pod's kernel from answering for connections of a raw socket, of which it knows nothing.
pub fn quiet(pod: &Namespace, port: u16) -> Result<()> {
    let rule =
        format!("add rule inet quiet out tcp dport {port} tcp flags & (rst | ack) == rst drop");
    pod.run(|| -> Result<()> {
        run("nft", &["add table inet quiet"])?;
        run("nft", &["add chain inet quiet out { type filter hook output priority 0; }"])?;
        run("nft", &[&rule]).map(drop)
    })?
}

/// The sequence number that a listening socket at `to` would answer with, for a SYN from `from`: the kernel makes it with
/// one secret for all namespaces, so in any in which both addresses are one's own.
pub fn cookie(twin: &Namespace, from: SocketAddr, to: SocketAddr, sequence: u32) -> Result<u32> {
    twin.run(|| -> Result<u32> {
        for address in [from.ip(), to.ip()] {
            let length = if address.is_ipv4() { 32 } else { 128 };
            run(
                "ip",
                &["address", "replace", &format!("{address}/{length}"), "dev", "lo", "nodad"],
            )?;
        }
        let _listener = TcpListener::bind(("::", to.port()))?;
        let raw = Raw::open(from, to)?;
        raw.send(&Segment { flags: SYN, sequence, ..Segment::default() })?;
        let answer = raw.receive(|it| it.flags & (SYN | ACK) == SYN | ACK);
        Ok(answer.context("the twin does not answer")?.sequence)
    })?
}

/// A server that says what it heard, and whom it heard from.
pub struct TcpServer {
    pub peers: std::sync::mpsc::Receiver<SocketAddr>,
}

impl TcpServer {
    pub fn start(namespace: &Namespace, at: SocketAddr) -> Result<Self> {
        let listener = namespace.run(|| TcpListener::bind(at))??;
        let (sender, peers) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Ok(peer) = stream.peer_addr() else { continue };
                if sender.send(peer).is_err() {
                    return;
                }
                let mut buffer = [0; 1024];
                let mut stream = stream;
                if let Ok(length) = stream.read(&mut buffer) {
                    let _ = stream.write_all(&buffer[..length]);
                }
            }
        });
        Ok(Self { peers })
    }

    pub fn next(&self) -> Option<SocketAddr> {
        self.peers.recv_timeout(PATIENCE).ok()
    }
}

/// Whether anything arrives there from the address of probes within the attackers' patience.
pub fn listen_raw(victim: &Namespace, to: SocketAddr) -> Result<std::thread::JoinHandle<bool>> {
    let probe = match to.ip() {
        IpAddr::V4(_) => IpAddr::V4(ports::PROBE_ADDRESS_V4),
        IpAddr::V6(_) => IpAddr::V6(ports::PROBE_ADDRESS_V6),
    };
    let socket = victim.run(|| -> Result<Socket> {
        let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(socket2::Protocol::TCP))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(socket)
    })??;
    Ok(std::thread::spawn(move || {
        let start = Instant::now();
        let mut buffer = [std::mem::MaybeUninit::uninit(); 2048];
        while start.elapsed() < PATIENCE {
            if let Ok((_, from)) = socket.recv_from(&mut buffer)
                && from.as_socket().is_some_and(|it| it.ip() == probe)
            {
                return true;
            }
        }
        false
    }))
}
