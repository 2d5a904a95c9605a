//! Ways into a pod and out of it that need a device or a socket of one's own: a connection that both ends open at once, and
//! a tun device, whose packets come from no process and so are not sent but forwarded.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use isthmus::base::ports;
use socket2::{Domain, Socket, Type};

use super::means::{TcpServer, listen_raw, namespace, places, port, preludes, quiet};
use super::packet::packets;
use super::raw::{ACK, Raw, SYN, Segment, Wrap};
use super::{DETAILS, VICTIM, strict};
use crate::settle;
use crate::support::lab::PORT;
use crate::support::lab::command::run;
use crate::support::lab::netns::Namespace;

/// A socket of the victim's that has sent a SYN to the attacker and got no answer, as while the agent's queue is full:
/// whether the attacker's own SYN opens the connection, past the agent.
fn opens_at_once(
    victim: &Namespace,
    attacker: &Namespace,
    (own, other): (SocketAddr, SocketAddr),
    prelude: &[Segment],
) -> Result<bool> {
    let socket = victim.run(|| -> Result<Socket> {
        let socket = Socket::new(Domain::for_address(own), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&own.into())?;
        socket.set_nonblocking(true)?;
        // It is on its way.
        _ = socket.connect(&other.into());
        Ok(socket)
    })??;
    let answered = attacker.run(|| -> Result<bool> {
        let raw = Raw::open(other, own)?;
        prelude.iter().try_for_each(|it| raw.send(it))?;
        let sequence = fastrand::u32(..);
        raw.send(&Segment { flags: SYN, sequence, ..Segment::default() })?;
        let is_answer = |it: &Segment| it.flags & (SYN | ACK) == SYN | ACK;
        let Some(answer) = raw.receive(is_answer) else { return Ok(false) };
        let (sequence, acknowledged) = (sequence.wrapping_add(1), answer.sequence.wrapping_add(1));
        raw.send(&Segment { flags: ACK, sequence, acknowledged, ..Segment::default() })?;
        Ok(true)
    })??;
    std::thread::sleep(Duration::from_millis(50));
    // The agent may have answered; then the victim's end is not connected to whom it dialled.
    Ok(answered && socket.peer_addr().is_ok())
}

#[test]
fn a_connection_that_both_ends_open_is_captured() -> Result<()> {
    let lab = strict()?;
    let (victim, outsider) = (namespace(&lab, VICTIM)?, namespace(&lab, "outsider")?);
    // The agent does not answer the victim's own SYN: its queue is full.
    let full = format!("add rule inet full out tcp dport {} drop", ports::OUTBOUND);
    victim.run(|| -> Result<()> {
        run("nft", &["add table inet full"])?;
        run("nft", &["add chain inet full out { type filter hook output priority 300; }"])?;
        run("nft", &[&full]).map(drop)
    })??;
    for family in 0..2 {
        for (what, prelude) in preludes() {
            let other = places(&lab, "outsider", port())?[family];
            let own = places(&lab, VICTIM, port())?[family];
            quiet_once(&outsider, own.port())?;
            let opened = opens_at_once(&victim, &outsider, (own, other), &prelude)?;
            ensure!(!opened, "{other} opened a connection to {own} after {what}");
        }
    }
    victim.run(|| run("nft", &["delete table inet full"]))??;
    settle(&lab, "curl", &[DETAILS], 200)?;
    // It is an attack: where nothing is captured it works.
    let (node, other) = (lab.node("node-b")?, places(&lab, "outsider", port())?[0]);
    let own = SocketAddr::new(node.addresses[0], port());
    quiet_once(&outsider, own.port())?;
    let silent =
        format!("add rule inet quiet out ip daddr {} tcp flags & rst == rst drop", own.ip());
    outsider.run(|| run("nft", &[&silent]))??;
    ensure!(opens_at_once(&node.namespace, &outsider, (own, other), &[])?, "no simultaneous open");
    Ok(())
}

/// For one more port.
fn quiet_once(pod: &Namespace, port: u16) -> Result<()> {
    pod.run(|| _ = run("nft", &["delete table inet quiet"]))?;
    quiet(pod, port)
}

/// `_IOW('T', 202, int)`, and what makes a device of it that carries bare packets.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const IFF_TUN: libc::c_short = 1;
const IFF_NO_PI: libc::c_short = 0x1000;

/// A device in a pod, whose packets this test writes.
struct Tun(File);

impl Tun {
    /// The pod forwards what comes from it.
    #[allow(unsafe_code)]
    fn create(pod: &Namespace) -> Result<Self> {
        pod.set("ipv4/ip_forward", "1")?;
        pod.set("ipv6/conf/all/forwarding", "1")?;
        pod.set("ipv4/conf/all/rp_filter", "0")?;
        let tun = pod.run(|| -> Result<Self> {
            let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
            let mut request = [0_u8; 40];
            request[..4].copy_from_slice(b"evil");
            request[16..18].copy_from_slice(&(IFF_TUN | IFF_NO_PI).to_ne_bytes());
            // SAFETY: the request is an `ifreq` of 40 bytes, which outlives the call.
            let made = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
            ensure!(made == 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
            run("ip", &["link", "set", "evil", "up"])?;
            Ok(Self(file))
        })??;
        pod.set("ipv4/conf/evil/rp_filter", "0")?;
        Ok(tun)
    }

    /// A SYN from whomever one likes, and one with a request.
    fn inject(&mut self, from: SocketAddr, to: SocketAddr) -> Result<()> {
        for segment in [
            Segment { flags: ACK, options: super::MD5.to_vec(), ..Segment::default() },
            Segment { flags: SYN, ..Segment::default() },
        ] {
            let bytes = segment.bytes(from, to);
            for packet in packets(from.ip(), to.ip(), Wrap::Plain, &bytes) {
                self.0.write_all(&with_header_sums(packet)).context("write to the device")?;
            }
        }
        Ok(())
    }
}

/// A device wants the length and the checksum of IPv4's header, which a raw socket's kernel fills in.
fn with_header_sums(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        let length = (packet.len() as u16).to_be_bytes();
        packet[2..4].copy_from_slice(&length);
        let sum: u32 =
            packet[..20].chunks(2).map(|it| u32::from(u16::from_be_bytes([it[0], it[1]]))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        packet[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
    packet
}

#[test]
fn a_device_of_ones_own_leads_past_no_capture() -> Result<()> {
    let lab = strict()?;
    let attacker = namespace(&lab, "attacker")?;
    let mut tun = Tun::create(&attacker)?;
    let probes = [ports::PROBE_ADDRESS_V4.into(), ports::PROBE_ADDRESS_V6.into()];
    for family in 0..2 {
        let to = places(&lab, VICTIM, PORT)?[family];
        // As a probe of the node, which captured pods let pass.
        let passes = listen_raw(&namespace(&lab, VICTIM)?, to)?;
        tun.inject(SocketAddr::new(probes[family], port()), to)?;
        ensure!(!passes.join().is_ok_and(|it| it), "a forwarded packet passed for a probe");
        // Out of the attacker's own pod, in its own name and in another's: what is forwarded is no exception.
        let to = places(&lab, "outsider", 7600 + family as u16)?[family];
        let server = TcpServer::start(&namespace(&lab, "outsider")?, to)?;
        for name in ["attacker", "curl", VICTIM] {
            let from = places(&lab, name, port())?[family];
            let arrives = heard(&namespace(&lab, "outsider")?, from, to)?;
            tun.inject(from, to)?;
            ensure!(!arrives.join().is_ok_and(|it| it), "{from} was forwarded to {to}");
        }
        drop(server);
    }
    settle(&lab, "curl", &[DETAILS], 200)?;
    // It is an attack: out of a pod that is not captured the packets do arrive.
    let mut tun = Tun::create(&namespace(&lab, "outsider")?)?;
    let node = lab.node("node-b")?;
    let (from, to) = (places(&lab, "curl", port())?[0], SocketAddr::new(node.addresses[0], 7700));
    let arrives = heard(&node.namespace, from, to)?;
    tun.inject(from, to)?;
    ensure!(arrives.join().is_ok_and(|it| it), "nothing is forwarded at all");
    Ok(())
}

/// Whether a SYN from there arrives `at` an address. Packets that open nothing may be forwarded.
fn heard(pod: &Namespace, from: SocketAddr, at: SocketAddr) -> Result<JoinHandle<bool>> {
    let raw = pod.run(|| Raw::open(at, from))??;
    Ok(std::thread::spawn(move || raw.receive(|it| it.flags & SYN != 0).is_some()))
}
