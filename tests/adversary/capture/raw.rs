//! TCP by hand over a raw socket (CAP_NET_RAW), for packets that no kernel would send.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::time::Instant;

use super::packet;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const URG: u8 = 32;
pub const ECE: u8 = 64;
pub const CWR: u8 = 128;

/// A signature (RFC 2385) that is wrong for everybody: a socket without a key drops the packet in silence.
pub const MD5: [u8; 20] = [19, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];

/// The longest segment (1,460 bytes), and padding: long enough to be cut behind the flags.
const MAXIMUM: [u8; 8] = [2, 4, 5, 180, 1, 1, 1, 1];

/// How long an answer may take, in namespaces of one machine.
const PATIENCE: Duration = Duration::from_millis(300);
/// `IPPROTO_RAW`: whoever sends writes the header of IP too.
const WHOLE_PACKETS: i32 = 255;
const HEAD: usize = 20;
const IPV4_HEAD: usize = 20;

/// One segment; ports and addresses come from the connection.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    pub flags: u8,
    pub sequence: u32,
    pub acknowledged: u32,
    pub options: Vec<u8>,
    pub data: Vec<u8>,
}

impl Segment {
    /// With its checksum.
    pub fn bytes(&self, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
        let mut bytes = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.acknowledged.to_be_bytes());
        let length = (HEAD + self.options.len()) / 4;
        bytes.extend([(length << 4) as u8, self.flags, 0xfa, 0xf0, 0, 0, 0, 0]);
        bytes.extend(&self.options);
        bytes.extend(&self.data);
        let sum = checksum(from.ip(), to.ip(), &bytes);
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}

/// How a segment is put into IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrap {
    Plain,
    /// Cut after so many bytes of TCP, a multiple of 8.
    Fragments(usize),
    /// Behind headers of IPv6: hop-by-hop options and options for the destination. IPv4 has none.
    Headers,
}

/// A raw socket in the calling thread's namespace, for one connection.
pub struct Raw {
    socket: Socket,
    /// For whole packets.
    wire: Socket,
    wrap: Wrap,
    from: SocketAddr,
    to: SocketAddr,
}

impl Raw {
    pub fn open(from: SocketAddr, to: SocketAddr) -> Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(Protocol::TCP))
            .context("open a raw socket: CAP_NET_RAW is needed")?;
        socket.bind(&SockAddr::from(SocketAddr::new(from.ip(), 0)))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let wire =
            Socket::new(Domain::for_address(to), Type::RAW, Some(Protocol::from(WHOLE_PACKETS)))?;
        Ok(Self { socket, wire, wrap: Wrap::Plain, from, to })
    }

    /// The same, whose segments are put into IP in this way.
    pub fn wrapped(self, wrap: Wrap) -> Self {
        Self { wrap, ..self }
    }

    pub fn send(&self, segment: &Segment) -> Result<()> {
        let bytes = self.bytes(segment);
        let to = SockAddr::from(SocketAddr::new(self.to.ip(), 0));
        if self.wrap == Wrap::Plain {
            self.socket.send_to(&bytes, &to)?;
            return Ok(());
        }
        for packet in packet::packets(self.from.ip(), self.to.ip(), self.wrap, &bytes) {
            self.wire.send_to(&packet, &to)?;
        }
        Ok(())
    }

    /// Sends in the name of another, as a whole packet.
    pub fn send_as(&self, name: SocketAddr, segment: &Segment) -> Result<()> {
        let bytes = segment.bytes(name, self.to);
        let to = SockAddr::from(SocketAddr::new(self.to.ip(), 0));
        for packet in packet::packets(name.ip(), self.to.ip(), Wrap::Plain, &bytes) {
            self.wire.send_to(&packet, &to)?;
        }
        Ok(())
    }

    fn bytes(&self, segment: &Segment) -> Vec<u8> {
        segment.bytes(self.from, self.to)
    }

    /// The next segment of the other end that `wanted` says is it, without waiting for long.
    pub fn receive(&self, wanted: impl Fn(&Segment) -> bool) -> Option<Segment> {
        let start = Instant::now();
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        while start.elapsed() < PATIENCE {
            let (length, from) = match self.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(_) => return None,
            };
            #[allow(unsafe_code)]
            // SAFETY: so many bytes were received.
            let packet = buffer[..length].iter().map(|it| unsafe { it.assume_init() });
            let packet: Vec<u8> = packet.collect();
            let is_it = from.as_socket().is_some_and(|it| it.ip() == self.to.ip());
            let segment = is_it.then(|| self.parse(&packet)).flatten();
            if let Some(segment) = segment.filter(&wanted) {
                return Some(segment);
            }
        }
        None
    }

    fn parse(&self, packet: &[u8]) -> Option<Segment> {
        // IPv6 raw sockets give no header.
        let tcp = if self.to.is_ipv4() { packet.get(IPV4_HEAD..)? } else { packet };
        let port = |at: usize| Some(u16::from_be_bytes(*tcp.get(at..)?.first_chunk()?));
        let word = |at: usize| Some(u32::from_be_bytes(*tcp.get(at..)?.first_chunk()?));
        if port(0)? != self.to.port() || port(2)? != self.from.port() {
            return None;
        }
        let length = usize::from(tcp.get(12)? >> 4) * 4;
        Some(Segment {
            flags: *tcp.get(13)?,
            sequence: word(4)?,
            acknowledged: word(8)?,
            options: tcp.get(HEAD..length)?.to_vec(),
            data: tcp.get(length..)?.to_vec(),
        })
    }

    /// Opens a connection with `flags`, sends `request` and returns what came back, if anything did.
    pub fn ask(&self, flags: u8, request: &[u8]) -> Result<Option<Vec<u8>>> {
        let sequence = fastrand::u32(..);
        let options = MAXIMUM.to_vec();
        self.send(&Segment { flags, sequence, options, ..Segment::default() })?;
        let opened = |it: &Segment| {
            it.flags & (SYN | ACK) == SYN | ACK && it.acknowledged == sequence.wrapping_add(1)
        };
        let Some(opened) = self.receive(opened) else { return Ok(None) };
        let data = Segment {
            flags: ACK | PSH,
            sequence: sequence.wrapping_add(1),
            acknowledged: opened.sequence.wrapping_add(1),
            data: request.to_vec(),
            ..Segment::default()
        };
        self.send(&data)?;
        Ok(self.receive(|it| !it.data.is_empty()).map(|it| it.data))
    }
}

/// RFC 9293, 3.1, over the pseudo header.
fn checksum(from: IpAddr, to: IpAddr, tcp: &[u8]) -> u16 {
    let address = |it: IpAddr| match it {
        IpAddr::V4(it) => it.octets().to_vec(),
        IpAddr::V6(it) => it.octets().to_vec(),
    };
    let mut all = [address(from), address(to)].concat();
    all.extend((tcp.len() as u32).to_be_bytes());
    all.extend([0, 0, 0, 6]);
    all.extend(tcp);
    if all.len() % 2 == 1 {
        all.push(0);
    }
    let sum: u32 = all.chunks(2).map(|it| u32::from(u16::from_be_bytes([it[0], it[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}
