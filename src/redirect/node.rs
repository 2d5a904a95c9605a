//! The rules in the node's network namespace: kubelet probes get a source address that the capture rules accept.
//!
//! Only packets of a local root process get it. Forwarded packets (those of other pods and of other nodes) and packets
//! of other users of the node do not; a peer cannot claim the exemption by its route. As in Istio, any root process in
//! the node's namespace (so any `hostNetwork` pod that runs as root) has it.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::marks::{LOOPBACK_INTERFACE, PRIORITY_RAW, probe};
use super::program::{
    Action, Chain, ChainKind, Equality, Family, Hook, Match, Program, Protocol, Rule, Set, Table,
};
use crate::base::ports;

/// The table's name; a namespace that is node and workload at once (never so in Kubernetes) can have both tables.
pub(super) const TABLE: &str = "isthmus_node";

const SET_V4: &str = "pods_v4";
const SET_V6: &str = "pods_v6";
/// Counts packets with a spoofed probe address.
pub(super) const SPOOFED: &str = "spoofed_probes";
/// The user that the kubelet runs as.
const ROOT: u32 = 0;
/// One before the usual priority of source NAT (100): kube-proxy and CNI plugins masquerade there, and the first
/// translation wins.
const PRIORITY_BEFORE_SOURCE_NAT: i32 = 99;
/// Where packets have their final source address.
const PRIORITY_AFTER_SOURCE_NAT: i32 = 150;

/// Which workloads of this node are captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePlan {
    /// Their addresses; order and duplicates do not matter.
    pub workloads: Vec<IpAddr>,
}

/// The rules for `plan`. Apply the whole program again when a workload comes or goes.
pub fn plan_node(plan: &NodePlan) -> Program {
    let addresses: BTreeSet<IpAddr> = plan.workloads.iter().map(IpAddr::to_canonical).collect();
    let set = |name, family| Set {
        name,
        family,
        elements: addresses.iter().copied().filter(|one| Family::of(*one) == family).collect(),
    };
    let probe = |family, name, address| {
        let matches = [
            Match::SocketUser(ROOT),
            Match::DestinationIn(family, name),
            Match::Protocol(Protocol::Tcp),
        ];
        Rule::new("probes from the node", matches, Action::SourceNat(address))
    };
    let chain = Chain {
        name: "nat_postrouting",
        kind: ChainKind::Nat,
        hook: Hook::Postrouting,
        priority: PRIORITY_BEFORE_SOURCE_NAT,
        rules: vec![
            probe(Family::Ipv4, SET_V4, IpAddr::V4(ports::PROBE_ADDRESS_V4)),
            probe(Family::Ipv6, SET_V6, IpAddr::V6(ports::PROBE_ADDRESS_V6)),
        ],
    };
    let sets = vec![set(SET_V4, Family::Ipv4), set(SET_V6, Family::Ipv6)];
    let chains = vec![borrowed(), chain, opened()];
    let table = Table { name: TABLE, counters: vec![SPOOFED], sets, chains };
    Program { table, routing: Vec::new(), aligned_timestamps: false }
}

/// NAT assigns the address by the first packet of a connection; it does not check whose the next ones are. A SYN that
/// nobody answered leaves its ports to anyone who uses them within two minutes, another user of the node or, with IPv6,
/// a pod that sends from the node's address. Therefore packets that open a connection from the probe address are
/// checked for their user where they leave.
fn opened() -> Chain {
    let rules = Family::ALL.iter().flat_map(|&family| {
        let opens = [Match::Source(IpNet::from(probe(family))), Match::TcpSyn(Equality::Is)];
        let by_root = [opens.as_slice(), &[Match::SocketUser(ROOT)]].concat();
        [
            Rule::new("probes from the node", by_root, Action::Accept),
            Rule::new("nobody else opens a connection as a probe", opens, Action::Drop)
                .counted(SPOOFED),
        ]
    });
    Chain {
        name: "check_postrouting",
        kind: ChainKind::Filter,
        hook: Hook::Postrouting,
        priority: PRIORITY_AFTER_SOURCE_NAT,
        rules: rules.collect(),
    }
}

/// Packets with the probe address leave this node for its own pods, and none arrive at or pass through a node. A sender
/// that uses the address, a pod here or a host elsewhere, tries to pass for a probe.
fn borrowed() -> Chain {
    let rules = Family::ALL.iter().map(|&family| {
        let matches = [
            Match::InputInterface(Equality::IsNot, LOOPBACK_INTERFACE),
            Match::Source(IpNet::from(probe(family))),
        ];
        Rule::new("nobody sends from the address of probes", matches, Action::Drop).counted(SPOOFED)
    });
    Chain {
        name: "raw_prerouting",
        kind: ChainKind::Filter,
        hook: Hook::Prerouting,
        priority: PRIORITY_RAW,
        rules: rules.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_are_as_recorded() {
        let workloads = ["10.0.1.3", "10.0.1.2", "fd00::2", "10.0.1.3", "::ffff:10.0.1.4"];
        let plan = NodePlan { workloads: workloads.map(|one| one.parse().unwrap()).to_vec() };
        insta::with_settings!({
            snapshot_path => "../../tests/golden/redirect",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!("node", plan_node(&plan));
            insta::assert_snapshot!("node_without_workloads", plan_node(&NodePlan::default()));
        });
    }
}
