//! Queries upstream as the workload would: its resolvers, its network namespace, its protocol.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::sock::{self, SocketFactory};

/// The port of every resolver in a resolv.conf.
const PORT: u16 = 53;
/// Where `ip netns exec` finds the files of a named namespace (ip-netns(8)).
const OF_NAMESPACES: &str = "/etc/netns";
/// How long the parsed file is cached.
const FRESH: Duration = Duration::from_secs(5);
/// How many resolvers are tried, one after the other (resolv.conf(5)).
const MAX_RESOLVERS: usize = 3;
/// The timeout of one resolver: two of them fit into the five seconds after which a client retries.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest UDP answer, in bytes.
const MAX_DATAGRAM: usize = 65_535;

/// The resolvers of one workload, from a file that is reread regularly.
pub struct Resolvers {
    file: PathBuf,
    known: ArcSwapOption<(Instant, Vec<SocketAddr>)>,
}

/// The client's protocol, which is also used upstream: if an answer is truncated, the client retries over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Udp,
    Tcp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Udp => "udp",
            Protocol::Tcp => "tcp",
        }
    }
}

impl Resolvers {
    /// The resolv.conf of the workload's namespace if it has one, as its programs see it; otherwise `file`.
    pub fn of(namespace: Option<&str>, file: &Path) -> Self {
        let own = namespace.filter(|name| !name.contains('/'));
        let own = own.map(|name| Path::new(OF_NAMESPACES).join(name).join("resolv.conf"));
        let file = own.filter(|path| path.exists()).unwrap_or_else(|| file.to_owned());
        Self { file, known: ArcSwapOption::empty() }
    }

    fn load(&self) -> io::Result<Arc<(Instant, Vec<SocketAddr>)>> {
        if let Some(known) = self.known.load_full().filter(|known| known.0.elapsed() < FRESH) {
            return Ok(known);
        }
        let told = |error: &dyn std::fmt::Display| {
            io::Error::other(format!("{}: {error}", self.file.display()))
        };
        let text = std::fs::read(&self.file).map_err(|error| told(&error))?;
        let config = resolv_conf::Config::parse(&text).map_err(|error| told(&error))?;
        let addresses = config.nameservers.iter().map(IpAddr::from);
        let resolvers: Vec<SocketAddr> =
            addresses.take(MAX_RESOLVERS).map(|address| SocketAddr::new(address, PORT)).collect();
        if resolvers.is_empty() {
            return Err(told(&"names no nameserver"));
        }
        let known = Arc::new((Instant::now(), resolvers));
        self.known.store(Some(known.clone()));
        Ok(known)
    }

    /// The answer of the first resolver that answers.
    pub async fn ask(
        &self,
        sockets: &dyn SocketFactory,
        protocol: Protocol,
        query: &[u8],
    ) -> io::Result<Vec<u8>> {
        let mut last = io::Error::other("no resolver");
        for resolver in &self.load()?.1 {
            let asking = async {
                match protocol {
                    Protocol::Udp => ask_by_udp(sockets, *resolver, query).await,
                    Protocol::Tcp => ask_by_tcp(sockets, *resolver, query).await,
                }
            };
            last = match timeout(PATIENCE, asking).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => io::Error::new(error.kind(), format!("{resolver}: {error}")),
                Err(_) => io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("{resolver} did not answer within {PATIENCE:?}"),
                ),
            };
        }
        Err(last)
    }
}

/// Uses a random port and a random ID, so that an off-path attacker cannot guess an answer (RFC 5452).
async fn ask_by_udp(
    sockets: &dyn SocketFactory,
    resolver: SocketAddr,
    query: &[u8],
) -> io::Result<Vec<u8>> {
    let any: IpAddr = match resolver {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = sockets.datagrams(SocketAddr::new(any, 0))?;
    socket.connect(resolver).await?;
    let mut asked = query.to_vec();
    let number = fastrand::u16(..).to_be_bytes();
    let Some(own) = asked.get_mut(..2) else { return Err(io::ErrorKind::InvalidData.into()) };
    own.copy_from_slice(&number);
    socket.send(&asked).await?;
    let mut answer = vec![0; MAX_DATAGRAM];
    loop {
        let length = socket.recv(&mut answer).await?;
        // Any other datagram is of unknown origin; the right one may still arrive.
        if length > 2 && answer[..2] == number {
            answer.truncate(length);
            answer[..2].copy_from_slice(&query[..2]);
            return Ok(answer);
        }
    }
}

async fn ask_by_tcp(
    sockets: &dyn SocketFactory,
    resolver: SocketAddr,
    query: &[u8],
) -> io::Result<Vec<u8>> {
    let mut stream = sock::connect(sockets, resolver, None, PATIENCE).await?;
    write_framed(&mut stream, query).await?;
    read_framed(&mut stream).await
}

/// Two bytes of length before each message (RFC 1035, 4.2.2), in one write.
pub async fn write_framed(
    stream: &mut (impl AsyncWriteExt + Unpin),
    message: &[u8],
) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

/// One message.
pub async fn read_framed(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
