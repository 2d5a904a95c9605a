//! Pods that forward: a network behind the pod (nested containers, a virtual machine), to which rules of the pod itself lead
//! what is dialled at its address. What arrives is captured before these rules, whenever they came; the agent reaches
//! what stands behind by them.

use std::net::TcpStream;
use std::time::Duration;

use isthmus::base::ports;
use isthmus::redirect::{self, Catches, Place};

use super::lab::{
    CLIENT, Lab, Namespace, POD, accept, at, exchange, original_destination, peer, say, try_accept,
};
use super::{APPLICATION, program, socket, wait_a_little};
use crate::support::lab::vanish::vanish;

const BEHIND: [&str; 2] = ["10.8.0.2", "fd08::2"];
/// For what must not arrive.
const PATIENCE: Duration = Duration::from_millis(500);
const GATEWAY: [&str; 2] = ["10.8.0.1", "fd08::1"];

/// The pod's own rules: whatever is dialled at its address goes to what stands behind, as for KubeVirt's machines.
fn lead_on(lab: &Lab, hook: &str, priority: i32) {
    let pod = &lab.pod;
    let chain = format!("inet own {hook}{}", -priority);
    pod.command("nft add table inet own");
    pod.command(&format!("nft add chain {chain} {{ type nat hook {hook} priority {priority} ; }}"));
    for ((family, pod_address), behind) in ["ip", "ip6"].iter().zip(POD).zip(BEHIND) {
        let matches = format!("{family} daddr {pod_address} meta l4proto tcp");
        pod.command(&format!("nft add rule {chain} {matches} dnat {family} to {behind}"));
    }
}

/// A lab whose pod has a network behind it; no rules yet.
fn with_machine() -> (Lab, Namespace) {
    let lab = Lab::new();
    let machine = Namespace::new();
    lab.pod.veth("behind", &machine, "eth0");
    for family in 0..2 {
        let length = [24, 64][family];
        lab.pod.address("behind", &format!("{}/{length}", GATEWAY[family]));
        machine.address("eth0", &format!("{}/{length}", BEHIND[family]));
    }
    machine.command(&format!("ip route add default via {}", GATEWAY[0]));
    machine.command(&format!("ip -6 route add default via {}", GATEWAY[1]));
    lab.pod.set("ipv4/ip_forward", "1");
    lab.pod.set("ipv6/conf/all/forwarding", "1");
    (lab, machine)
}

fn caught(lab: &Lab) -> u64 {
    lab.pod.run(|| Catches::here(Place::Workload).unwrap().read()).unwrap().inbound
}

#[test]
fn what_arrives_is_captured_before_the_pods_own_rules() {
    let (lab, machine) = with_machine();
    let agent = lab.pod.listen_as_agent(ports::INBOUND_PLAINTEXT);
    let tunnels = lab.pod.listen_as_agent(ports::HBONE);
    // Before and after: whose chain was registered first makes no difference.
    lab.pod.apply(&program());
    lead_on(&lab, "prerouting", -100);
    for _ in 0..2 {
        for (pod, behind) in POD.iter().zip(BEHIND) {
            let ears = [APPLICATION, ports::HBONE].map(|port| machine.listen(&at(behind, port)));
            let mut stream = lab.client.connect(&at(pod, APPLICATION));
            let mut captured = accept(&agent);
            assert_eq!(original_destination(&captured), socket(&at(pod, APPLICATION)));
            exchange(&mut stream, &mut captured, 1000);
            let mut tunnel = lab.client.connect(&at(pod, ports::HBONE));
            exchange(&mut tunnel, &mut accept(&tunnels), 1000);
            for ear in ears {
                assert!(try_accept(&ear, wait_a_little()).is_none(), "reached uncaptured");
            }
        }
        lab.pod.apply(&program());
    }
    assert_eq!(caught(&lab), 0);
}

/// Rules that are earlier than capture, and what is sent to the network behind by its own address.
#[test]
fn what_is_led_past_the_capture_goes_no_further() {
    let (lab, machine) = with_machine();
    let agent = lab.pod.listen_as_agent(ports::INBOUND_PLAINTEXT);
    lead_on(&lab, "prerouting", -150);
    for (before, on) in [(true, "not captured"), (false, "captured")] {
        match before {
            // The way is open without a capture, so that it can be closed.
            true => redirect_nothing(&lab),
            false => lab.pod.apply(&program()),
        }
        for (pod, behind) in POD.iter().zip(BEHIND) {
            let ear = machine.listen(&at(behind, APPLICATION));
            let to = at(pod, APPLICATION);
            let reached = match before {
                true => lab.client.try_connect(&to),
                false => lab.client.run(|| TcpStream::connect_timeout(&socket(&to), PATIENCE)),
            };
            assert_eq!(reached.is_ok(), before, "{on}: {reached:?}");
            assert_eq!(try_accept(&ear, wait_a_little()).is_some(), before, "{on}");
        }
    }
    assert!(caught(&lab) >= 2);
    assert!(try_accept(&agent, wait_a_little()).is_none());
}

fn redirect_nothing(lab: &Lab) {
    lab.pod.run(|| redirect::remove(Place::Workload)).unwrap();
}

#[test]
fn probes_reach_what_stands_behind() {
    let (lab, machine) = with_machine();
    let _agent = lab.pod.listen_as_agent(ports::INBOUND_PLAINTEXT);
    lab.pod.apply(&program());
    lead_on(&lab, "prerouting", -100);
    let probes = [ports::PROBE_ADDRESS_V4.to_string(), ports::PROBE_ADDRESS_V6.to_string()];
    for (family, probe) in probes.iter().enumerate() {
        lab.client.address("pod", &format!("{probe}/{}", [32, 128][family]));
        let ear = machine.listen(&at(BEHIND[family], APPLICATION));
        let (from, to) = (socket(&at(probe, 0)), at(POD[family], APPLICATION));
        let mut stream = lab.client.connect_as_agent(from, &to).unwrap();
        exchange(&mut stream, &mut accept(&ear), 1000);
    }
}

/// As Docker publishes ports: local connections to the pod's address are led on too. The application sees its client.
#[test]
fn the_agent_reaches_what_stands_behind() {
    let (lab, machine) = with_machine();
    let agent = lab.pod.listen_as_agent(ports::INBOUND_PLAINTEXT);
    lab.pod.set("ipv4/conf/all/rp_filter", "1");
    lab.pod.apply(&program());
    lead_on(&lab, "prerouting", -100);
    lead_on(&lab, "output", -100);
    for family in 0..2 {
        let ear = machine.listen(&at(BEHIND[family], APPLICATION));
        let destination = at(POD[family], APPLICATION);
        let mut stream = lab.client.connect(&destination);
        let mut captured = accept(&agent);
        for from in [peer(&captured).ip().to_string(), POD[family].to_owned()] {
            let borrowed = socket(&at(&from, 0));
            let mut carried = lab.pod.connect_as_agent(borrowed, &destination).unwrap();
            let mut served = accept(&ear);
            assert_eq!(peer(&served).ip().to_string(), from);
            exchange(&mut carried, &mut served, 1_000_000);
        }
        assert_eq!(peer(&captured).ip().to_string(), CLIENT[family]);
        exchange(&mut stream, &mut captured, 1000);
    }
}

/// A client behind a pod that dials it arrives over an interface that the pod added, and is captured like any other.
#[test]
fn an_interface_that_the_pod_adds_is_no_way_in() {
    let (lab, machine) = with_machine();
    let agent = lab.pod.listen_as_agent(ports::INBOUND_PLAINTEXT);
    lab.pod.apply(&program());
    // An address that the pod did not have when it was captured is no way in either.
    lab.pod.address("eth0", "10.9.0.77/32");
    for (to, from) in POD.iter().chain(&["10.9.0.77"]).zip(BEHIND.iter().chain(&BEHIND)) {
        let application = lab.pod.listen(&at(to, APPLICATION));
        let mut stream = machine.connect(&at(to, APPLICATION));
        let mut captured = accept(&agent);
        assert_eq!(original_destination(&captured), socket(&at(to, APPLICATION)));
        assert_eq!(peer(&captured).ip().to_string(), *from);
        exchange(&mut stream, &mut captured, 1000);
        assert!(try_accept(&application, wait_a_little()).is_none(), "reached uncaptured");
    }
    // Its connections elsewhere are redirected to the agent too, which knows no such workload.
    let elsewhere = at(CLIENT[0], 7777);
    let _server = lab.client.listen(&elsewhere);
    let _stream = machine.connect(&elsewhere);
    assert_eq!(original_destination(&accept(&agent)), socket(&elsewhere));
}

/// Connections from before go on through the pod; a client that reuses their ports does not.
#[test]
fn older_connections_that_are_forwarded_live_on() {
    let (lab, machine) = with_machine();
    lead_on(&lab, "prerouting", -100);
    let mut older = Vec::new();
    for family in 0..2 {
        let ear = machine.listen(&at(BEHIND[family], APPLICATION));
        let from = socket(&at(CLIENT[family], 7777));
        let to = at(POD[family], APPLICATION);
        let sent = lab.client.connect_as_agent(from, &to).unwrap();
        older.push((from, to, sent, accept(&ear), ear));
    }
    let agent = lab.pod.listen_as_agent(ports::INBOUND_PLAINTEXT);
    lab.pod.apply(&program());
    for (from, to, mut sent, mut served, ear) in older {
        say(&mut sent, &mut served);
        exchange(&mut sent, &mut served, 100_000);
        vanish(sent).unwrap();
        let refused = lab.client.connect_as_agent(from, &to).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(try_accept(&ear, wait_a_little()).is_none(), "reached uncaptured");
        assert!(try_accept(&agent, wait_a_little()).is_none());
    }
    assert!(caught(&lab) >= 2);
}
