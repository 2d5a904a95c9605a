//! A pod that leads what is dialled at its address on to a machine behind it, as nested containers and virtual machines have it.
//! The machine is guarded as the pod is: the agent judges first, whenever the pod's rules came.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};

use super::means::{
    PATIENCE, TcpServer, ask, connect, marked_request, namespace, places, port, preludes,
};
use super::raw::Raw;
use super::{VICTIM, strict};
use crate::support::lab::Lab;
use crate::support::lab::command::{feed, run};
use crate::support::lab::netns::Namespace;

const PORT: u16 = 9090;
const MACHINE: [&str; 2] = ["10.8.0.2", "fd08::2"];

/// A machine behind the victim, and servers on it, one of each family.
fn machine(lab: &Lab) -> Result<[TcpServer; 2]> {
    let machine = Namespace::create("machine")?;
    let wires = "link add behind type veth peer name eth0 netns machine\nlink set behind up\n\
                 address add 10.8.0.1/24 dev behind\naddress add fd08::1/64 dev behind nodad\n";
    let pod = namespace(lab, VICTIM)?;
    pod.run(|| feed("ip", &["-batch", "-"], wires))??;
    let own = "link set eth0 up\naddress add 10.8.0.2/24 dev eth0\n\
               address add fd08::2/64 dev eth0 nodad\nroute add default via 10.8.0.1\n\
               route add default via fd08::1\n";
    machine.run(|| feed("ip", &["-batch", "-"], own))??;
    pod.set("ipv4/ip_forward", "1")?;
    pod.set("ipv6/conf/all/forwarding", "1")?;
    let addresses = lab.pod(VICTIM)?.attachment.addresses;
    pod.run(|| -> Result<()> {
        run("nft", &["add table inet own"])?;
        for hook in ["prerouting", "output"] {
            let chain =
                format!("add chain inet own {hook} {{ type nat hook {hook} priority -100; }}");
            run("nft", &[&chain])?;
            for (address, (family, behind)) in
                addresses.iter().zip(["ip", "ip6"].iter().zip(MACHINE))
            {
                let what = format!("{family} daddr {address} tcp dport {PORT}");
                let rule = format!("add rule inet own {hook} {what} dnat {family} to {behind}");
                run("nft", &[&rule])?;
            }
        }
        Ok(())
    })??;
    let at = |address: &str| -> Result<SocketAddr> {
        Ok(SocketAddr::new(address.parse::<IpAddr>()?, PORT))
    };
    Ok([TcpServer::start(&machine, at(MACHINE[0])?)?, TcpServer::start(&machine, at(MACHINE[1])?)?])
}

/// Nobody from outside reaches the machine; whoever may reach the pod does, under its own address.
fn guarded(lab: &Lab, servers: &[TcpServer; 2], when: &str) -> Result<()> {
    let outsider = namespace(lab, "outsider")?;
    for (family, server) in servers.iter().enumerate() {
        let to = places(lab, VICTIM, PORT)?[family];
        for (what, segments) in preludes() {
            let from = places(lab, "outsider", port())?[family];
            let (_, request) = marked_request();
            let answer = outsider.run(|| -> Result<_> {
                let raw = Raw::open(from, to)?;
                segments.iter().try_for_each(|it| raw.send(it))?;
                Ok(connect(from, to).and_then(|mut it| ask(&mut it, &request)))
            })??;
            println!("{when}, after {what}: {from} -> {to}: {answer:?}");
            let peer = server.peers.recv_timeout(PATIENCE / 10);
            ensure!(peer.is_err(), "{when}, after {what}: {peer:?} reached the machine");
        }
        let own = places(lab, "curl", 0)?[family];
        let answer = namespace(lab, "curl")?
            .run(|| connect(own, to).and_then(|mut it| ask(&mut it, "hello")))?;
        ensure!(answer.is_ok_and(|it| it == "hello"), "{when}: the mesh reaches {to}");
        let peer = server.next().context("the machine saw it")?;
        ensure!(peer.ip() == own.ip(), "{when}: {peer} instead of {own}");
    }
    Ok(())
}

#[test]
fn what_stands_behind_a_pod_is_guarded_as_the_pod_is() -> Result<()> {
    let mut lab = strict()?;
    let servers = machine(&lab)?;
    guarded(&lab, &servers, "with rules that came after the capture")?;
    // The rules of the capture are made again, so that they come after the pod's.
    lab.kill_and_restart_agent("node-b", "")?;
    guarded(&lab, &servers, "with rules that came before the capture")
}
