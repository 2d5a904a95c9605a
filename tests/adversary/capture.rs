//! Past the capture: conntrack is made to look away, so that a connection is not led to the agent. Into a pod whose
//! namespace is STRICT, and out of a pod; from outside of the mesh, from a captured pod with CAP_NET_RAW, and without any
//! capability; with connections from before the capture, while agents restart, hand over and change what is captured.

mod devices;
mod forged;
mod forwards;
pub(crate) mod means;
mod packet;
mod packets;
mod raw;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use isthmus::base::ports;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::time::Instant;

use crate::support::lab::command::run;
use crate::support::lab::manifests::Key;
use crate::support::lab::netns::Namespace;
use crate::support::lab::vanish::vanish;
use crate::support::lab::{Lab, PORT, wait};
use crate::{application, besieged, captured_in, enrol, settle};
use means::{
    OPENINGS, PATIENCE, TcpServer, as_nobody, ask, connect, cookie, listen_raw, marked_request,
    namespace, places, port, preludes, quiet,
};
use raw::{ACK, MD5, PSH, Raw, SYN, Segment};

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: bookinfo}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody-evil, namespace: bookinfo}
spec:
  action: DENY
  rules:
  - from: [{source: {namespaces: [evil]}}]
";
const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const VICTIM: &str = "details-v1";
const DROPPED: &str = "isthmus_uncaptured_connections_dropped_total";

/// Bookinfo besieged and STRICT: nobody from outside may speak to it, everybody of the mesh may, and nobody from `evil`.
fn strict() -> Result<Lab> {
    let mut lab = besieged(&[])?;
    lab.manifests.apply(STRICT)?;
    settle(&lab, "outsider", &[DETAILS], 0)?;
    settle(&lab, "attacker", &[DETAILS], 0)?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    Ok(lab)
}

/// The victim's application has not seen it.
fn unseen(lab: &Lab, mark: &str, what: &str) -> Result<()> {
    let log = lab.pod_log(VICTIM)?;
    ensure!(!log.contains(mark), "{what}: the application saw it: {log}");
    Ok(())
}

/// Waits until the metrics tell of the attacks.
fn counted(lab: &Lab, direction: &str) -> Result<()> {
    wait::until("what was caught to be counted", || {
        let caught = lab.metrics()?.sum(DROPPED, &[("direction", direction)]);
        Ok((caught >= 4.0).then_some(()))
    })
}

/// Every prelude, then an ordinary connection from the same port, in both families.
fn attack_from(lab: &Lab, attacker: &str) -> Result<()> {
    for family in 0..2 {
        let to = places(lab, VICTIM, PORT)?[family];
        for (what, segments) in preludes() {
            let from = places(lab, attacker, port())?[family];
            let (mark, request) = marked_request();
            let answer = namespace(lab, attacker)?.run(|| -> Result<_> {
                let raw = Raw::open(from, to)?;
                segments.iter().try_for_each(|it| raw.send(it))?;
                Ok(connect(from, to).and_then(|mut it| ask(&mut it, &request)))
            })??;
            let what = format!("{attacker} {from} -> {to} after {what}: {answer:?}");
            println!("{what}");
            unseen(lab, &mark, &what)?;
        }
    }
    Ok(())
}

#[test]
fn nobody_from_outside_gets_past_the_capture() -> Result<()> {
    let lab = strict()?;
    attack_from(&lab, "outsider")?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    // Strays for a socket that listens on one address only are not told from those of an older connection, so conntrack
    // learns them. From the port that a client chose nobody arrives but past the agent.
    for family in 0..2 {
        let to = places(&lab, "accomplice", 7400)?[family];
        let server = TcpServer::start(&namespace(&lab, "accomplice")?, to)?;
        past(&lab, "outsider", &server, to)?;
    }
    counted(&lab, "inbound")
}

#[test]
fn odd_flags_open_nothing_past_the_capture() -> Result<()> {
    let lab = strict()?;
    let outsider = namespace(&lab, "outsider")?;
    quiet(&outsider, PORT)?;
    let silent = Segment { flags: ACK, options: MD5.to_vec(), ..Segment::default() };
    for family in 0..2 {
        let to = places(&lab, VICTIM, PORT)?[family];
        for flags in OPENINGS {
            for prelude in [None, Some(&silent)] {
                let from = places(&lab, "outsider", port())?[family];
                let (mark, request) = marked_request();
                outsider.run(|| -> Result<()> {
                    let raw = Raw::open(from, to)?;
                    prelude.into_iter().try_for_each(|it| raw.send(it))?;
                    let answer = raw.ask(flags, request.as_bytes())?;
                    println!("flags {flags:#x} {from} -> {to}: {answer:?}");
                    Ok(())
                })??;
                unseen(&lab, &mark, &format!("flags {flags:#x} {from} -> {to}"))?;
            }
        }
    }
    // The program does open connections where it may: without a capture in the way.
    let to = places(&lab, "accomplice", 7100)?[0];
    let server = TcpServer::start(&namespace(&lab, "accomplice")?, to)?;
    let from = places(&lab, "outsider", port())?[0];
    quiet(&outsider, 7100)?;
    let answer = outsider.run(|| Raw::open(from, to)?.ask(SYN | PSH, b"hello"))??;
    ensure!(answer.as_deref() == Some(b"hello"), "{answer:?}");
    drop(server);
    Ok(())
}

/// While a socket's queue overflows the kernel opens connections for a bare ACK with the right number.
#[test]
fn a_syn_cookie_from_elsewhere_opens_nothing() -> Result<()> {
    let mut lab = strict()?;
    let (victim, outsider) = (namespace(&lab, VICTIM)?, namespace(&lab, "outsider")?);
    let twin = Namespace::create("twin")?;
    for place in [&victim, &twin] {
        // As if queues always overflowed.
        place.set("ipv4/tcp_syncookies", "2")?;
    }
    quiet(&outsider, PORT)?;
    let attack = |lab: &Lab, family: usize| -> Result<String> {
        let (from, to) =
            (places(lab, "outsider", port())?[family], places(lab, VICTIM, PORT)?[family]);
        settle(lab, "curl", &[DETAILS], 200)?;
        let sequence = fastrand::u32(..);
        let cookie = cookie(&twin, from, to, sequence)?;
        let (mark, request) = marked_request();
        let acknowledgement = Segment {
            flags: ACK | PSH,
            sequence: sequence.wrapping_add(1),
            acknowledged: cookie.wrapping_add(1),
            data: request.into_bytes(),
            ..Segment::default()
        };
        outsider.run(|| -> Result<()> {
            let raw = Raw::open(from, to)?;
            raw.send(&acknowledgement)?;
            println!("{from} -> {to}: {:?}", raw.receive(|_| true));
            Ok(())
        })??;
        Ok(mark)
    };
    for family in 0..2 {
        let mark = attack(&lab, family)?;
        unseen(&lab, &mark, "with a SYN cookie")?;
    }
    // It is an attack: where nothing is captured it works.
    let key = Key::new("Pod", "bookinfo", VICTIM);
    lab.manifests.annotate(&key, "ambient.istio.io/bypass-inbound-capture", "true")?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    wait::until("the capture to end", || {
        Ok((!lab.rules(VICTIM)?.contains("check_input")).then_some(()))
    })?;
    let mark = attack(&lab, 0)?;
    wait::until("the application to see it", || {
        Ok(lab.pod_log(VICTIM)?.contains(&mark).then_some(()))
    })
}

#[test]
fn nobody_from_a_captured_pod_gets_past_either_capture() -> Result<()> {
    let lab = strict()?;
    attack_from(&lab, "attacker")?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    Ok(())
}

/// The agent leaves from a port of its own; whoever arrives from the port that a process chose was not captured.
#[test]
fn nothing_leaves_a_captured_pod_past_its_agent() -> Result<()> {
    let lab = besieged(&[])?;
    let attacker = namespace(&lab, "attacker")?;
    for family in 0..2 {
        let to = places(&lab, "outsider", 7200 + family as u16)?[family];
        let server = TcpServer::start(&namespace(&lab, "outsider")?, to)?;
        let from = places(&lab, "attacker", 0)?[family];
        let allowed =
            attacker.run(|| connect(from, to).and_then(|mut it| ask(&mut it, "hello")))?;
        ensure!(allowed.is_ok_and(|it| it == "hello"), "what goes through the agent arrives");
        ensure!(server.next().is_some(), "the server saw it");
        past(&lab, "attacker", &server, to)?;
    }
    counted(&lab, "outbound")
}

/// Every prelude to a server, then an ordinary connection from the same port, which must not arrive from that port.
fn past(lab: &Lab, pod: &str, server: &TcpServer, to: SocketAddr) -> Result<()> {
    for (what, segments) in preludes() {
        let from = places(lab, pod, port())?[usize::from(to.is_ipv6())];
        let answer = namespace(lab, pod)?.run(|| -> Result<_> {
            let raw = Raw::open(from, to)?;
            segments.iter().try_for_each(|it| raw.send(it))?;
            Ok(connect(from, to).and_then(|mut it| ask(&mut it, "hello")))
        })??;
        println!("{from} -> {to} after {what}: {answer:?}");
        while let Ok(peer) = server.peers.try_recv() {
            ensure!(peer != from, "after {what}: {from} went past the agent");
        }
    }
    Ok(())
}

/// Without a capability: the agent connects to an application from the client's address, so conntrack knows the way back
/// to the client. A process that connects along it, from the port it serves, runs against that flow.
#[test]
fn the_way_back_to_a_client_is_no_way_out() -> Result<()> {
    let lab = besieged(&[])?;
    let (attacker, outsider) = (namespace(&lab, "attacker")?, namespace(&lab, "outsider")?);
    for family in 0..2 {
        let own = places(&lab, "attacker", 7300)?[family];
        let listener = attacker.run(|| -> Result<TcpListener> {
            let socket = Socket::new(Domain::for_address(own), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.bind(&own.into())?;
            socket.listen(8)?;
            Ok(socket.into())
        })??;
        let client = outsider.run(|| {
            connect(places(&lab, "outsider", 0)?[family], own).map_err(anyhow::Error::from)
        })??;
        let (served, seen) = listener.accept()?;
        ensure!(seen.ip() == client.local_addr()?.ip(), "{seen} is the client's address");
        let server = TcpServer::start(&outsider, seen)?;
        let result = attacker.run(|| -> std::io::Result<TcpStream> {
            let socket = Socket::new(Domain::for_address(own), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.bind(&own.into())?;
            // The very same connection exists in this pod, so it must end first.
            SockRef::from(&served).set_linger(Some(Duration::ZERO))?;
            drop(served);
            socket.connect_timeout(&seen.into(), PATIENCE)?;
            Ok(socket.into())
        })?;
        println!("{own} -> {seen}: {result:?}");
        let peer = server.next();
        ensure!(peer != Some(own), "{own} left uncaptured");
    }
    Ok(())
}

/// Where a connection comes from and goes to, and its client's end.
type Older = (SocketAddr, SocketAddr, TcpStream);

/// Bookinfo with agents and nothing enrolled yet, and for each family a connection of the outsider to the victim.
fn with_older_connections() -> Result<(Lab, Vec<Older>)> {
    let mut lab = application(&[])?;
    lab.start_agents("")?;
    let mut older = Vec::new();
    for family in 0..2 {
        let (from, to) =
            (places(&lab, "outsider", port())?[family], places(&lab, VICTIM, PORT)?[family]);
        older.push((from, to, namespace(&lab, "outsider")?.run(|| connect(from, to))??));
    }
    enrol(&mut lab)?;
    lab.manifests.apply(STRICT)?;
    settle(&lab, "outsider", &[DETAILS], 0)?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    Ok((lab, older))
}

const KEPT: &str = "GET /health HTTP/1.1\r\nHost: details\r\n\r\n";

fn lives(stream: &mut TcpStream, when: &str) -> Result<()> {
    let answer = ask(stream, KEPT).with_context(|| format!("an older connection, {when}"))?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{when}: {answer}");
    Ok(())
}

#[test]
fn connections_from_before_live_on_and_lend_their_ports_to_nobody() -> Result<()> {
    let (mut lab, mut older) = with_older_connections()?;
    for (_, _, stream) in &mut older {
        lives(stream, "once it is captured")?;
    }
    let old = lab.upgrade_agent("node-b")?;
    for (_, _, stream) in &mut older {
        lives(stream, "after a takeover")?;
    }
    drop(old);
    lab.kill_and_restart_agent("node-b", "")?;
    let outsider = namespace(&lab, "outsider")?;
    for (from, to, mut stream) in older {
        lives(&mut stream, "after a crash")?;
        vanish(stream)?;
        let (mark, request) = marked_request();
        let start = Instant::now();
        // The kernel may take a moment to let go of the connection that vanished.
        let answer = wait::until("the ports to be free", || {
            let answer =
                outsider.run(|| connect(from, to).and_then(|mut it| ask(&mut it, &request)))?;
            let taken = answer.as_ref().is_err_and(|it| it.kind() == ErrorKind::AddrNotAvailable);
            Ok((!taken).then_some(answer))
        })?;
        println!("{from} -> {to}: {answer:?} after {:?}", start.elapsed());
        unseen(&lab, &mark, "with the ports of an older connection")?;
        let error = answer.err().context("an answer")?;
        ensure!(error.kind() == ErrorKind::ConnectionRefused, "told at once: {error}");
    }
    settle(&lab, "curl", &[DETAILS], 200)?;
    Ok(())
}

#[test]
fn restarts_and_takeovers_leave_no_gap() -> Result<()> {
    let mut lab = strict()?;
    let index = lab.kill_agent("node-b")?;
    attack_from(&lab, "outsider")?;
    lab.start_agent(index, "node-b", "")?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    attack_from(&lab, "outsider")?;
    let _old = lab.upgrade_agent("node-b")?;
    attack_from(&lab, "outsider")?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    Ok(())
}

/// With the annotation what arrives is not captured, so conntrack learns untranslated connections; without it they are
/// worth nothing to anybody but those who hold them.
#[test]
fn a_capture_that_was_switched_off_for_a_while_is_whole_again() -> Result<()> {
    let mut lab = strict()?;
    let key = Key::new("Pod", "bookinfo", VICTIM);
    let bypass = "ambient.istio.io/bypass-inbound-capture";
    lab.manifests.annotate(&key, bypass, "true")?;
    settle(&lab, "outsider", &[DETAILS], 200)?;
    let outsider = namespace(&lab, "outsider")?;
    // In the mesh, so that it is captured whatever the annotation says.
    let (own, to) = (places(&lab, "curl", 0)?[0], places(&lab, VICTIM, PORT)?[0]);
    let mut tunnelled = namespace(&lab, "curl")?.run(|| connect(own, to))??;
    let mut open = Vec::new();
    for family in 0..2 {
        let to = places(&lab, VICTIM, PORT)?[family];
        for _ in 0..2 {
            let from = places(&lab, "outsider", port())?[family];
            let mut stream = outsider.run(|| connect(from, to))??;
            lives(&mut stream, "while nothing is captured")?;
            open.push((from, to, stream));
        }
    }
    lives(&mut tunnelled, "while nothing is captured")?;
    lab.manifests.annotate(&key, bypass, "false")?;
    settle(&lab, "outsider", &[DETAILS], 0)?;
    lives(&mut tunnelled, "once it is captured again")?;
    for (index, (from, to, mut stream)) in open.into_iter().enumerate() {
        lives(&mut stream, "once it is captured again")?;
        // One vanishes, the other ends with a reset.
        match index % 2 {
            0 => vanish(stream)?,
            _ => {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                drop(stream);
            }
        }
        let (mark, request) = marked_request();
        let answer =
            outsider.run(|| connect(from, to).and_then(|mut it| ask(&mut it, &request)))?;
        println!("{from} -> {to}: {answer:?}");
        unseen(&lab, &mark, "with the ports of an older connection")?;
    }
    attack_from(&lab, "outsider")
}

/// Out of the mesh and back at once, while what was captured drains.
#[test]
fn a_pod_that_comes_back_while_it_drains_is_captured_whole() -> Result<()> {
    let mut lab = strict()?;
    let mode = "istio.io/dataplane-mode";
    for _ in 0..3 {
        let key = Key::new("Namespace", "", "bookinfo");
        lab.manifests.label(&key, &[&format!("{mode}-")])?;
        settle(&lab, "outsider", &[DETAILS], 200)?;
        lab.manifests.label(&key, &[&format!("{mode}=ambient")])?;
        captured_in(&lab, "bookinfo")?;
        settle(&lab, "outsider", &[DETAILS], 0)?;
        attack_from(&lab, "outsider")?;
    }
    settle(&lab, "curl", &[DETAILS], 200)?;
    Ok(())
}

/// The node's probes pass, and nobody else from their address reaches a pod, on whichever node he is.
#[test]
fn nobody_is_taken_for_a_probe() -> Result<()> {
    let lab = strict()?;
    let node = lab.node("node-b")?;
    let probes = [IpAddr::V4(ports::PROBE_ADDRESS_V4), IpAddr::V6(ports::PROBE_ADDRESS_V6)];
    let spoofed = |lab: &Lab| {
        Ok::<_, anyhow::Error>(lab.metrics()?.sum("isthmus_spoofed_probes_dropped_total", &[]))
    };
    for (family, probe) in probes.into_iter().enumerate() {
        let to = places(&lab, VICTIM, PORT)?[family];
        let url = format!("http://{to}/health");
        let heard = listen_raw(&namespace(&lab, VICTIM)?, to)?;
        let answer = crate::support::lab::curl::curl(&node.namespace, &[&url])?;
        ensure!(answer.status == 200, "the node's own probe: {}", answer.summary());
        ensure!(heard.join().is_ok_and(|it| it), "the node's own probe is heard");
        // The outsider is on the other node, the accomplice on the victim's.
        for pod in ["outsider", "accomplice"] {
            let heard = listen_raw(&namespace(&lab, VICTIM)?, to)?;
            let from = SocketAddr::new(probe, port());
            let length = if probe.is_ipv4() { 32 } else { 128 };
            let before = spoofed(&lab)?;
            namespace(&lab, pod)?.run(|| -> Result<()> {
                run(
                    "ip",
                    &["address", "add", &format!("{probe}/{length}"), "dev", "eth0", "nodad"],
                )?;
                let raw = Raw::open(from, to)?;
                let segment = Segment { flags: ACK, options: MD5.to_vec(), ..Segment::default() };
                raw.send(&segment)?;
                // What a captured pod opens goes no further than its own capture.
                let _ = raw.send(&Segment { flags: SYN, ..segment });
                Ok(())
            })??;
            ensure!(!heard.join().is_ok_and(|it| it), "{pod} got through from {probe}");
            wait::until("it to be counted", || Ok((spoofed(&lab)? > before).then_some(())))?;
        }
    }
    Ok(())
}

/// A probe that nobody answered leaves its ports in conntrack, and with them the address of probes; another user of the node
/// who connects from the same port is no probe.
#[test]
fn a_probe_lends_its_port_to_nobody() -> Result<()> {
    let lab = strict()?;
    let node = lab.node("node-b")?.namespace.clone();
    let victim = namespace(&lab, VICTIM)?;
    for family in 0..2 {
        let to = places(&lab, VICTIM, PORT)?[family];
        let any = [IpAddr::from([0; 4]), IpAddr::from([0; 16])][family];
        let from = SocketAddr::new(any, port());
        let silence =
            format!("add rule inet silent in tcp dport {PORT} tcp flags & (syn | ack) == syn drop");
        victim.run(|| -> Result<()> {
            run("nft", &["add table inet silent"])?;
            run(
                "nft",
                &["add chain inet silent in { type filter hook prerouting priority -400; }"],
            )?;
            run("nft", &[&silence]).map(drop)
        })??;
        let unanswered = node.run(|| connect(from, to))?;
        ensure!(unanswered.is_err(), "the pod is silent");
        victim.run(|| run("nft", &["delete table inet silent"]))??;
        let (mark, request) = marked_request();
        let ask_it = {
            let request = request.clone();
            move || connect(from, to).and_then(|mut it| ask(&mut it, &request))
        };
        let answer = node.run(|| as_nobody(ask_it))??;
        println!("{from} -> {to} as another user: {answer:?}");
        unseen(&lab, &mark, "from the port of a probe")?;
        // The node's own may use it again.
        let answer = wait::until("the port to be free", || {
            let answer =
                node.run(|| connect(from, to).and_then(|mut it| ask(&mut it, &request)))?;
            let taken = answer.as_ref().is_err_and(|it| it.kind() == ErrorKind::AddrNotAvailable);
            Ok((!taken).then_some(answer))
        })?;
        ensure!(lab.pod_log(VICTIM)?.contains(&mark), "the node's own probe: {answer:?}");
    }
    Ok(())
}
