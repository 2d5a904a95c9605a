//! The rules in the node's namespace: who is taken for a probe.

use isthmus::{
    base::ports,
    redirect::{self, NodePlan, Place},
};

use super::{
    APPLICATION,
    lab::{CLIENT, Lab, Namespace, POD, accept, at, exchange, original_destination, peer},
    program, socket,
};

/// The client's namespace is the node's here.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.pod.apply(&program());
    let workloads = POD.map(|one| one.parse().unwrap()).to_vec();
    lab.client.apply(&redirect::plan_node(&NodePlan { workloads }));
    lab
}

#[test]
fn probes_of_root_pass_by_capture() {
    let lab = lab();
    let sources = [ports::PROBE_ADDRESS_V4.to_string(), ports::PROBE_ADDRESS_V6.to_string()];
    for (source, pod) in sources.iter().zip(POD) {
        let application = lab.pod.listen(&at(pod, APPLICATION));
        let mut probe = lab.client.connect(&at(pod, APPLICATION));
        let mut served = accept(&application);
        assert_eq!(peer(&served).ip().to_string(), *source);
        exchange(&mut probe, &mut served, 1000);
    }
}

#[test]
fn other_users_of_the_node_are_captured() {
    let lab = lab();
    let agent = lab.pod.listen_as_agent(ports::INBOUND_PLAINTEXT);
    for (client, pod) in CLIENT.iter().zip(POD) {
        let destination = at(pod, APPLICATION);
        let stream = lab.client.run(|| {
            // Of this thread only, and only until it ends.
            nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
            std::net::TcpStream::connect(&destination).unwrap()
        });
        let captured = accept(&agent);
        assert_eq!(peer(&captured).ip().to_string(), *client);
        assert_eq!(original_destination(&captured), socket(&destination));
        drop(stream);
    }
}

#[test]
fn forwarded_connections_are_captured() {
    let lab = lab();
    let outside = Namespace::new();
    lab.client.veth("outside", &outside, "eth0");
    lab.client.set("ipv4/ip_forward", "1");
    lab.client.address("outside", "10.8.0.1/24");
    outside.address("eth0", "10.8.0.2/24");
    outside.command("ip route add default via 10.8.0.1");

    let agent = lab.pod.listen_as_agent(ports::INBOUND_PLAINTEXT);
    let _stream = outside.connect(&at(POD[0], APPLICATION));
    let captured = accept(&agent);
    assert_eq!(peer(&captured).ip().to_string(), "10.8.0.2");
}

#[test]
fn pods_that_are_not_in_the_set_see_the_node() {
    let lab = lab();
    lab.client.apply(&redirect::plan_node(&NodePlan::default()));
    lab.pod.run(|| redirect::remove(Place::Workload)).unwrap();
    let application = lab.pod.listen(&at(POD[0], APPLICATION));
    let _stream = lab.client.connect(&at(POD[0], APPLICATION));
    assert_eq!(peer(&accept(&application)).ip().to_string(), CLIENT[0]);
}

#[test]
fn removing_leaves_nothing_on_the_node() {
    let lab = lab();
    assert!(lab.client.run(|| redirect::is_applied(Place::Node)).unwrap());
    lab.client.run(|| redirect::remove(Place::Node)).unwrap();
    assert_eq!(lab.client.command("nft list ruleset"), "");
    assert!(!lab.client.run(|| redirect::is_applied(Place::Node)).unwrap());
}

#[test]
fn thousands_of_pods_fit() {
    let namespace = Namespace::new();
    let workloads = (0..3000_u32).flat_map(|n| {
        let v4 = std::net::Ipv4Addr::from(0x0a00_0000 + n);
        let v6 = std::net::Ipv6Addr::from((0xfd00_u128 << 112) + u128::from(n));
        [v4.into(), v6.into()]
    });
    let plan = NodePlan { workloads: workloads.collect() };
    namespace.apply(&redirect::plan_node(&plan));
    let listed = namespace.command("nft list set inet isthmus_node pods_v6");
    assert_eq!(listed.matches("fd00::").count(), 3000, "{listed}");
}
