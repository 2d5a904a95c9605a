//! A packet capture on the link between the nodes, and what is found in it.
//!
//! A packet socket rather than tcpdump: tcpdump run by root changes its user first, which a user namespace
//! with a single user refuses.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};

use super::network::Node;

/// Every protocol (`ETH_P_ALL` of packet(7)), in network byte order as the system call wants it.
const EVERYTHING: i32 = (0x0003_u16).to_be() as i32;

/// The link to the other nodes, as a node calls it.
const LINK: &str = "eth0";

/// The discard port (RFC 863): where the packet goes that marks a capture's end.
const DISCARD: u16 = 9;

/// Room for packets that wait to be recorded, in bytes: far more than a step of the demo sends.
const BUFFER: usize = 8 << 20;

/// The longest frame: a veth passes packets on before they are cut to size.
const LONGEST: usize = 128 << 10;

/// How often the recorder looks whether it shall end.
const TICK: Duration = Duration::from_millis(100);

/// A capture that is going on.
pub struct Capture {
    mark: String,
    stop: Arc<AtomicBool>,
    recorder: Option<JoinHandle<Result<Vec<Vec<u8>>>>>,
}

/// A capture that is finished: Ethernet frames in their order.
pub struct Captured {
    frames: Vec<Vec<u8>>,
}

impl Capture {
    /// Listens on the link of `node` to the other nodes; returns when packets are being recorded.
    pub fn start(node: &Node) -> Result<Self> {
        let namespace = node.namespace.clone();
        let mark = format!("end of capture {}", fastrand::u64(..));
        let stop = Arc::new(AtomicBool::new(false));
        let (started, ready) = mpsc::channel();
        let recorder = std::thread::spawn({
            let (mark, stop) = (mark.clone(), stop.clone());
            move || {
                namespace.enter()?;
                let link = if_nametoindex(LINK)?;
                let socket = listen()?;
                let _ = started.send(());
                record(&socket, link, mark.as_bytes(), &stop)
            }
        });
        let capture = Self { mark, stop, recorder: Some(recorder) };
        match ready.recv() {
            Ok(()) => Ok(capture),
            Err(_) => {
                Err(capture.join().err().unwrap_or_else(|| anyhow!("the recorder ended at once")))
            }
        }
    }

    /// Ends the capture after everything that was sent before.
    pub fn finish(self, from: &Node, to: &Node) -> Result<Captured> {
        // Packets are recorded in their order: when this one is there, all before it are.
        let target = SocketAddr::new(to.addresses[0], DISCARD);
        from.namespace
            .run(|| UdpSocket::bind(("0.0.0.0", 0))?.send_to(self.mark.as_bytes(), target))??;
        Ok(Captured { frames: self.join()? })
    }

    fn join(mut self) -> Result<Vec<Vec<u8>>> {
        let recorder = self.recorder.take().ok_or_else(|| anyhow!("joined twice"))?;
        recorder.join().map_err(|_| anyhow!("the recorder panicked"))?
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn listen() -> Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(EVERYTHING)))
        .context("open a packet socket: CAP_NET_RAW is needed")?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_read_timeout(Some(TICK))?;
    Ok(socket)
}

/// Records the frames of interface `link` until one contains `mark`.
fn record(socket: &Socket, link: u32, mark: &[u8], stop: &AtomicBool) -> Result<Vec<Vec<u8>>> {
    let mut buffer = vec![0; LONGEST];
    let mut frames = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let (length, address) = match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Ok(received) => received,
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if address.is_none_or(|address| address.ifindex() != link as usize) {
            continue;
        }
        let frame = &buffer[..length];
        if find(frame, mark) {
            break;
        }
        frames.push(frame.to_vec());
    }
    Ok(frames)
}

impl Captured {
    /// Whether the bytes of `text` are in a packet.
    pub fn contains(&self, text: &str) -> bool {
        self.frames.iter().any(|frame| find(frame, text.as_bytes()))
    }

    /// How many TCP packets there are, by the lower port of each: that of the server.
    pub fn packets_by_port(&self) -> BTreeMap<u16, usize> {
        let mut counts = BTreeMap::new();
        for port in self.frames.iter().filter_map(|frame| server_port(frame)) {
            *counts.entry(port).or_default() += 1;
        }
        counts
    }

    /// Writes the frames in the format of tcpdump and Wireshark (pcap-savefile(5)); times are not kept.
    pub fn save(&self, file: &Path) -> Result<()> {
        const VERSION: [u16; 2] = [2, 4];
        const ETHERNET: u32 = 1;
        let mut out = File::create(file)?;
        out.write_all(&0xa1b2_c3d4_u32.to_le_bytes())?;
        for part in VERSION {
            out.write_all(&part.to_le_bytes())?;
        }
        for word in [0, 0, LONGEST as u32, ETHERNET] {
            out.write_all(&word.to_le_bytes())?;
        }
        for frame in &self.frames {
            let length = frame.len() as u32;
            for word in [0, 0, length, length] {
                out.write_all(&word.to_le_bytes())?;
            }
            out.write_all(frame)?;
        }
        Ok(())
    }
}

/// The lower TCP port of an Ethernet frame, `None` for anything but TCP over IP.
fn server_port(frame: &[u8]) -> Option<u16> {
    const TCP: u8 = 6;
    let packet = frame.get(14..)?;
    let (protocol, length) = match packet.first()? >> 4 {
        4 => (*packet.get(9)?, usize::from(packet[0] & 0x0f) * 4),
        6 => (*packet.get(6)?, 40),
        _ => return None,
    };
    let port = |at: usize| {
        let bytes = packet.get(length + at..length + at + 2)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    };
    if protocol == TCP { Some(port(0)?.min(port(2)?)) } else { None }
}

fn find(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
