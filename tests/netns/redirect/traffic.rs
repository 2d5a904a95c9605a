//! Connections under the rules of a workload, each in IPv4 and IPv6.

use std::net::{SocketAddr, TcpStream, UdpSocket};

use isthmus::{
    base::ports,
    redirect::{self, CapturePlan, Catches, Caught, Place},
};
use socket2::SockRef;

use super::{
    APPLICATION, ILLEGAL,
    lab::{CLIENT, Lab, POD, accept, at, exchange, original_destination, peer, say, try_accept},
    program, socket, wait_a_little,
};
use crate::support::lab::vanish::vanish;

/// A lab with the rules in force, and with the strictest check of source addresses that a node may have.
fn captured() -> Lab {
    let lab = Lab::new();
    lab.pod.set("ipv4/conf/all/rp_filter", "1");
    lab.pod.apply(&program());
    lab
}

#[test]
fn outbound_is_redirected_and_knows_its_destination() {
    let lab = captured();
    let agent = lab.pod.listen_as_agent(ports::OUTBOUND);
    for (client, pod) in CLIENT.iter().zip(POD) {
        // Nobody listens there: only the agent can have accepted.
        let destination = at(client, 7777);
        let mut application = lab.pod.connect(&destination);
        assert_eq!(peer(&application), socket(&destination));
        let mut captured = accept(&agent);
        assert_eq!(original_destination(&captured), socket(&destination));
        assert_eq!(peer(&captured).ip().to_string(), pod);
        exchange(&mut application, &mut captured, 100_000);
    }
}

#[test]
fn the_agents_own_connections_leave() {
    let lab = captured();
    let agent = lab.pod.listen_as_agent(ports::OUTBOUND);
    for (client, pod) in CLIENT.iter().zip(POD) {
        let destination = at(client, 7777);
        let server = lab.client.listen(&destination);
        let mut sent = lab.pod.connect_as_agent(socket(&at(pod, 0)), &destination).unwrap();
        exchange(&mut sent, &mut accept(&server), 100_000);
    }
    assert!(try_accept(&agent, wait_a_little()).is_none());
}

/// A workload that calls a service of which it is an endpoint itself: client's and server's half meet on `lo`.
#[test]
fn the_agent_reaches_its_own_namespace() {
    let lab = captured();
    let captures =
        [ports::OUTBOUND, ports::INBOUND_PLAINTEXT].map(|port| lab.pod.listen_as_agent(port));
    let hbone = lab.pod.listen_as_agent(ports::HBONE);
    for pod in POD {
        let application = lab.pod.listen(&at(pod, APPLICATION));
        for (port, listener) in [(ports::HBONE, &hbone), (APPLICATION, &application)] {
            let from = socket(&at(pod, 0));
            let mut sent = lab.pod.connect_as_agent(from, &at(pod, port)).unwrap();
            let mut arrived = accept(listener);
            assert_eq!(peer(&arrived), sent.local_addr().unwrap());
            exchange(&mut sent, &mut arrived, 100_000);
        }
    }
    for agent in captures {
        assert!(try_accept(&agent, wait_a_little()).is_none());
    }
}

#[test]
fn loopback_and_own_address_stay_with_the_application() {
    let lab = captured();
    let outbound = lab.pod.listen_as_agent(ports::OUTBOUND);
    let inbound = lab.pod.listen_as_agent(ports::INBOUND_PLAINTEXT);
    for address in ["127.0.0.1", "127.0.0.9", "::1"].iter().chain(&POD) {
        let destination = at(address, APPLICATION);
        let application = lab.pod.listen(&destination);
        let mut client = lab.pod.connect(&destination);
        exchange(&mut client, &mut accept(&application), 1000);
    }
    for agent in [outbound, inbound] {
        assert!(try_accept(&agent, wait_a_little()).is_none());
    }
}

#[test]
fn plaintext_inbound_is_redirected_whatever_its_port() {
    let lab = captured();
    let agent = lab.pod.listen_as_agent(ports::INBOUND_PLAINTEXT);
    let _outbound = lab.pod.listen_as_agent(ports::OUTBOUND);
    for (client, pod) in CLIENT.iter().zip(POD) {
        let _application = lab.pod.listen(&at(pod, APPLICATION));
        // Who dials 15001 or 15006 gets to the inbound listener with that port as destination, to be refused.
        for port in [APPLICATION, 22, ILLEGAL[0], ILLEGAL[1]] {
            let mut stream = lab.client.connect(&at(pod, port));
            let mut captured = accept(&agent);
            assert_eq!(original_destination(&captured), socket(&at(pod, port)));
            assert_eq!(peer(&captured).ip().to_string(), *client);
            exchange(&mut stream, &mut captured, 1000);
        }
    }
}

#[test]
fn hbone_and_probes_go_straight_to_their_listeners() {
    let lab = captured();
    let agent = lab.pod.listen_as_agent(ports::INBOUND_PLAINTEXT);
    let probes = [
        (ports::PROBE_ADDRESS_V4.to_string(), POD[0]),
        (ports::PROBE_ADDRESS_V6.to_string(), POD[1]),
    ];
    for (probe, pod) in probes {
        let hbone = lab.pod.listen(&at(pod, ports::HBONE));
        let mut stream = lab.client.connect(&at(pod, ports::HBONE));
        exchange(&mut stream, &mut accept(&hbone), 1000);

        let length = if probe.contains(':') { 128 } else { 32 };
        lab.client.address("pod", &format!("{probe}/{length}"));
        let application = lab.pod.listen(&at(pod, APPLICATION));
        let to = at(pod, APPLICATION);
        let from = socket(&at(&probe, 0));
        let mut stream = lab.client.connect_as_agent(from, &to).unwrap();
        exchange(&mut stream, &mut accept(&application), 1000);
    }
    assert!(try_accept(&agent, wait_a_little()).is_none());
}

#[test]
fn in_ingress_mode_plaintext_reaches_the_application() {
    let lab = Lab::new();
    let plan = CapturePlan { inbound: false, ..CapturePlan::default() };
    lab.pod.apply(&redirect::plan_workload(&plan));
    for pod in POD {
        let application = lab.pod.listen(&at(pod, APPLICATION));
        let mut stream = lab.client.connect(&at(pod, APPLICATION));
        exchange(&mut stream, &mut accept(&application), 1000);
    }
}

#[test]
fn dns_goes_to_the_stub_when_asked_for() {
    let lab = Lab::new();
    lab.pod.apply(&redirect::plan_workload(&CapturePlan { dns: true, ..CapturePlan::default() }));
    for (resolver, loopback) in CLIENT.iter().zip(["127.0.0.1", "::1"]) {
        let (stub, query) = lab.pod.run(|| {
            let stub = UdpSocket::bind(at(loopback, ports::DNS)).unwrap();
            let query =
                UdpSocket::bind(if resolver.contains(':') { "[::]:0" } else { "0.0.0.0:0" });
            (stub, query.unwrap())
        });
        for end in [&stub, &query] {
            end.set_read_timeout(Some(std::time::Duration::from_secs(3))).unwrap();
        }
        query.send_to(b"who?", at(resolver, 53)).unwrap();
        let mut buffer = [0; 16];
        let (_, from) = stub.recv_from(&mut buffer).unwrap();
        stub.send_to(b"me", from).unwrap();
        let (length, from) = query.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&b"me"[..], socket(&at(resolver, 53))));
    }
}

/// The agent connects to the application from the client's address, even from its very port.
#[test]
fn the_application_sees_the_clients_address() {
    let lab = captured();
    let agent = lab.pod.listen_as_agent(ports::INBOUND_PLAINTEXT);
    for (client, pod) in CLIENT.iter().zip(POD) {
        let destination = at(pod, APPLICATION);
        let application = lab.pod.listen(&destination);
        let mut sent = lab.client.connect(&destination);
        let mut captured = accept(&agent);
        let from = peer(&captured);
        assert_eq!(from.ip().to_string(), *client);
        // Port 0 is the usual case; the client's own port is what the zone of the agent's flows is for.
        for port in [0, from.port()] {
            let borrowed = SocketAddr::new(from.ip(), port);
            let mut carried = lab.pod.connect_as_agent(borrowed, &destination).unwrap();
            let mut served = accept(&application);
            assert_eq!(peer(&served), carried.local_addr().unwrap());
            assert_eq!(peer(&served).ip(), from.ip());
            exchange(&mut carried, &mut served, 1_000_000);
            exchange(&mut sent, &mut captured, 100_000);
        }
    }
}

#[test]
fn connections_from_before_live_on() {
    let lab = Lab::new();
    let mut pairs = Vec::new();
    for (client, pod) in CLIENT.iter().zip(POD) {
        let ways = [(&lab.client, &lab.pod, pod), (&lab.pod, &lab.client, *client)];
        for (from, to, address) in ways {
            let listener = to.listen(&at(address, APPLICATION));
            pairs.push((from.connect(&at(address, APPLICATION)), accept(&listener)));
        }
    }
    let _agents =
        [ports::INBOUND_PLAINTEXT, ports::OUTBOUND].map(|port| lab.pod.listen_as_agent(port));
    lab.pod.apply(&program());
    for (one, other) in &mut pairs {
        exchange(one, other, 100_000);
    }
}

/// Ports of a connection from before the capture whose client vanished: a client that uses them does not reach the application,
/// is told so at once, and is captured like everybody once the kernel has forgotten (since Linux 6.5 soon).
#[test]
fn ports_of_an_older_connection_are_captured_again() {
    let lab = Lab::new();
    let mut older = Vec::new();
    for (client, pod) in CLIENT.iter().zip(POD) {
        let (from, to) = (socket(&at(client, 7777)), at(pod, APPLICATION));
        let application = lab.pod.listen(&to);
        let sent = lab.client.connect_as_agent(from, &to).unwrap();
        older.push((from, to, sent, accept(&application), application));
    }
    let agent = lab.pod.listen_as_agent(ports::INBOUND_PLAINTEXT);
    lab.pod.apply(&program());
    lab.pod.set("netfilter/nf_conntrack_tcp_timeout_close", "1");
    let mut catches = lab.pod.run(|| Catches::here(Place::Workload)).unwrap();
    assert_eq!(catches.read().unwrap(), Caught::default());
    for (caught, (from, to, mut sent, mut served, application)) in (1..).zip(older) {
        // So that conntrack takes the client for the one who began.
        say(&mut sent, &mut served);
        exchange(&mut sent, &mut served, 1000);
        vanish(sent).unwrap();
        let refused = lab.client.connect_as_agent(from, &to).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(try_accept(&application, wait_a_little()).is_none(), "reached uncaptured");
        assert_eq!(catches.read().unwrap().inbound, caught);
        std::thread::sleep(2 * std::time::Duration::from_secs(1));
        let _sent = lab.client.connect_as_agent(from, &to).unwrap();
        assert_eq!(original_destination(&accept(&agent)), socket(&to));
        assert!(try_accept(&application, wait_a_little()).is_none());
    }
}

/// The same where conntrack heard the pod first, and takes it for the one who began: the SYN is invalid to it.
#[test]
fn ports_of_an_older_connection_that_the_pod_spoke_on_are_refused() {
    let lab = Lab::new();
    let (from, to) = (socket(&at(CLIENT[0], 7777)), at(POD[0], APPLICATION));
    let application = lab.pod.listen(&to);
    let mut sent = lab.client.connect_as_agent(from, &to).unwrap();
    let mut served = accept(&application);
    let agent = lab.pod.listen_as_agent(ports::INBOUND_PLAINTEXT);
    lab.pod.apply(&program());
    say(&mut served, &mut sent);
    vanish(sent).unwrap();
    let refused = lab.client.connect_as_agent(from, &to).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(try_accept(&application, wait_a_little()).is_none(), "reached uncaptured");
    assert!(try_accept(&agent, wait_a_little()).is_none());
}

/// A SYN that conntrack calls invalid passes NAT by. The port of a flow that was just reset is how one comes about.
#[test]
fn a_syn_that_nat_does_not_see_is_dropped() {
    let lab = captured();
    let agent = lab.pod.listen_as_agent(ports::INBOUND_PLAINTEXT);
    let (client, pod) = (at(CLIENT[0], 7777), at(POD[0], 9000));
    let server = lab.client.listen(&client);
    let flow = lab.pod.connect_as_agent(socket(&pod), &client).unwrap();
    drop(accept(&server));
    SockRef::from(&flow).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop((flow, server));

    let application = lab.pod.listen(&pod);
    let _refused = lab.client.connect_as_agent(socket(&client), &pod);
    assert!(try_accept(&application, wait_a_little()).is_none(), "reached uncaptured");
    assert!(try_accept(&agent, wait_a_little()).is_none());
}

/// While the table is replaced over and over, every connection is captured.
#[test]
fn there_is_no_moment_without_capture() {
    let lab = captured();
    let agent = lab.pod.listen_as_agent(ports::INBOUND_PLAINTEXT);
    let application = lab.pod.listen(&at(POD[0], APPLICATION));
    let connect_all = || {
        for _ in 0..300 {
            let _stream = TcpStream::connect(at(POD[0], APPLICATION)).unwrap();
            drop(accept(&agent));
        }
    };
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| lab.client.run(connect_all));
        lab.pod.run(|| {
            while !connecting.is_finished() {
                redirect::apply(&program()).unwrap();
            }
        });
    });
    assert!(try_accept(&application, wait_a_little()).is_none());
}
