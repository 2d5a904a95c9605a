//! The rules in a workload's network namespace, from a plan of what to capture. They are Istio's in-pod rules
//! (istio-cni, `cni/pkg/nftables`), with additions that are explained below: only a SYN is translated, the agent's own
//! flows have their own conntrack zone, and connections that were not redirected are dropped (`check`).

use super::check;
use super::marks::{AGENT, BORROWED, LOOPBACK_INTERFACE, PRIORITY_RAW, host, loopback, probe};
use super::program::{
    Action, Chain, ChainKind, Equality, Family, Hook, Match, PolicyRoute, Program, Protocol, Rule,
    Table,
};
use crate::base::ports;

use Equality::{Is, IsNot};

/// The table's name; it is Isthmus's own, so that replacing it touches no other rules.
pub(super) const TABLE: &str = "isthmus";

/// The conntrack zone of the agent's flows; Istio uses the same number for the agent's DNS.
const AGENT_ZONE: u16 = 1;
/// The DNS port, whatever the transport.
const DNS_PORT: u16 = 53;

/// After conntrack and before NAT, where marks are set.
const PRIORITY_MANGLE: i32 = -150;
/// One before the usual priority of destination NAT (-100): the first translation wins, and a pod with its own network
/// behind it (containers, virtual machines) has rules there.
const PRIORITY_DESTINATION_NAT: i32 = -101;

/// What to capture of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturePlan {
    /// The namespace uses IPv4. Set `false` only if it cannot: a family without rules is not captured at all, so an
    /// address that is missing from `status.podIPs` would bypass policy.
    pub ipv4: bool,
    /// The namespace uses IPv6; as with [`CapturePlan::ipv4`]. Rules for a family that the kernel lacks are harmless.
    pub ipv6: bool,
    /// Capture inbound plaintext; `false` is Istio's ingress mode (`ambient.istio.io/bypass-inbound-capture`).
    pub inbound: bool,
    /// Redirect DNS queries to the stub on 15053.
    pub dns: bool,
}

impl Default for CapturePlan {
    /// Both families, both directions, no DNS.
    fn default() -> Self {
        Self { ipv4: true, ipv6: true, inbound: true, dns: false }
    }
}

impl CapturePlan {
    fn families(&self) -> Vec<Family> {
        let wanted = |family: &Family| match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        };
        Family::ALL.iter().copied().filter(wanted).collect()
    }
}

/// The rules for `plan`.
pub fn plan_workload(plan: &CapturePlan) -> Program {
    let families = plan.families();
    let mut chains = vec![raw_output(), mangle_prerouting(), mangle_output()];
    if plan.inbound {
        chains.push(nat_prerouting(&families));
    }
    chains.push(nat_output(&families, plan.dns));
    let counters = vec![check::INBOUND, check::OUTBOUND];
    if !families.is_empty() {
        if plan.inbound {
            chains.push(check::delivered(&families));
            chains.push(check::forwarded(&families));
        }
        chains.push(check::sent(&families, plan.dns));
    }
    let table = Table { name: TABLE, counters, sets: Vec::new(), chains };
    Program { table, routing: routing(&families), aligned_timestamps: true }
}

/// Replies to a borrowed address carry the mark (see `mangle_output`) and go to the agent instead of the network.
pub(super) fn routing(families: &[Family]) -> Vec<PolicyRoute> {
    let route = |&family| PolicyRoute {
        family,
        mark: BORROWED,
        priority: ports::ROUTE_RULE_PRIORITY,
        table: ports::ROUTE_TABLE,
    };
    families.iter().map(route).collect()
}

/// When the agent connects to the application from `client:X`, a plaintext client may be connected from the very same
/// `client:X`, and that flow is translated to 15006. In one zone the agent's SYN would be taken for a packet of the
/// client's flow and be sent to 15006 as well. Only the original direction is separated: replies come from an
/// application or a network without zones.
fn raw_output() -> Chain {
    let rule = Rule::new(
        "the agent's flows apart from those of the workload",
        [Match::PacketMark(Is, AGENT)],
        Action::SetOriginalZone(AGENT_ZONE),
    );
    Chain {
        name: "raw_output",
        kind: ChainKind::Filter,
        hook: Hook::Output,
        priority: PRIORITY_RAW,
        rules: vec![rule],
    }
}

/// A marked packet that arrives over loopback is the agent's, on its way to the application. Marks should not survive
/// over another interface, but some network plugins keep them; then the sender of the packet controls them.
fn mangle_prerouting() -> Chain {
    let local = Match::InputInterface(Is, LOOPBACK_INTERFACE);
    let rules = vec![
        // Packets that conntrack calls invalid, for example a SYN that races with a flow just reset, have no connection
        // that could be remembered, so the reply would be lost. The agent's SYN is retransmitted a second later.
        Rule::new(
            "replies to it would be lost",
            [local, Match::InvalidConnection, Match::TcpSyn(Is)],
            Action::Drop,
        ),
        Rule::new(
            "the agent's packet to the application: remember the flow",
            [local, Match::PacketMark(Is, AGENT)],
            Action::SetConnectionMark(BORROWED),
        ),
        Rule::new(
            "the reply of an application behind this namespace: to the agent",
            [Match::InputInterface(IsNot, LOOPBACK_INTERFACE), Match::ConnectionMark(Is, BORROWED)],
            Action::SetPacketMark(BORROWED),
        ),
    ];
    Chain {
        name: "mangle_prerouting",
        kind: ChainKind::Filter,
        hook: Hook::Prerouting,
        priority: PRIORITY_MANGLE,
        rules,
    }
}

/// The agent's own packets of that flow have a mark already, and are routed with the flow.
///
/// This chain, the one above and the routes stay in ingress mode: without them inbound HBONE times out, because replies
/// to a borrowed address leave for the real client (istio-cni had that bug).
fn mangle_output() -> Chain {
    let rule = Rule::new(
        "the application's reply to a borrowed address: back to the agent",
        [Match::ConnectionMark(Is, BORROWED), Match::PacketMark(IsNot, AGENT)],
        Action::SetPacketMark(BORROWED),
    );
    Chain {
        name: "mangle_output",
        kind: ChainKind::Route,
        hook: Hook::Output,
        priority: PRIORITY_MANGLE,
        rules: vec![rule],
    }
}

/// Inbound plaintext goes to 15006; HBONE goes directly to its listener. It is redirected to its own port, so that no
/// rule of the pod forwards it elsewhere.
fn nat_prerouting(families: &[Family]) -> Chain {
    let mut rules = vec![older_connections()];
    rules.extend(families.iter().map(|&family| {
        Rule::new(
            "probes from the node",
            [Match::Source(host(probe(family))), Match::Protocol(Protocol::Tcp)],
            Action::Accept,
        )
    }));
    rules.extend(families.iter().map(|&family| {
        let matches = [
            Match::Destination(IsNot, loopback(family)),
            Match::DestinationPort(IsNot, Protocol::Tcp, ports::HBONE),
            Match::InputInterface(IsNot, LOOPBACK_INTERFACE),
        ];
        Rule::new("plaintext inbound", matches, Action::Redirect(ports::INBOUND_PLAINTEXT))
    }));
    rules.extend(families.iter().map(|&family| {
        let matches = [
            Match::Destination(IsNot, loopback(family)),
            Match::DestinationPort(Is, Protocol::Tcp, ports::HBONE),
            Match::InputInterface(IsNot, LOOPBACK_INTERFACE),
        ];
        Rule::new("tunnels", matches, Action::Redirect(ports::HBONE))
    }));
    destination_nat("nat_prerouting", Hook::Prerouting, rules)
}

/// Outbound connections go to 15001, except the agent's own and those that stay within the namespace.
fn nat_output(families: &[Family], dns: bool) -> Chain {
    let mut rules = vec![
        older_connections(),
        Rule::new("the agent's own", [Match::PacketMark(Is, AGENT)], Action::Accept),
        Rule::new(
            "replies to borrowed addresses",
            [Match::PacketMark(Is, BORROWED)],
            Action::Accept,
        ),
    ];
    if dns {
        rules.extend(families.iter().flat_map(|&family| dns_rules(family)));
    }
    rules.extend(families.iter().map(|&family| {
        let matches = [
            Match::OutputInterface(Is, LOOPBACK_INTERFACE),
            Match::Destination(IsNot, loopback(family)),
        ];
        Rule::new("calls to its own address", matches, Action::Accept)
    }));
    rules.extend(families.iter().map(|&family| {
        let matches = [Match::Destination(IsNot, loopback(family)), Match::Protocol(Protocol::Tcp)];
        Rule::new("outbound", matches, Action::Redirect(ports::OUTBOUND))
    }));
    destination_nat("nat_output", Hook::Output, rules)
}

/// Queries to a resolver on loopback (systemd-resolved, a cache in the pod) are not redirected; its own upstream
/// queries are.
fn dns_rules(family: Family) -> [Rule; 2] {
    [Protocol::Udp, Protocol::Tcp].map(|protocol| {
        let matches = [
            Match::Family(family),
            Match::DestinationPort(Is, protocol, DNS_PORT),
            Match::OutputInterface(IsNot, LOOPBACK_INTERFACE),
        ];
        Rule::new("DNS", matches, Action::Redirect(ports::DNS))
    })
}

/// Conntrack, once attached, takes the next packet of an old connection for the first of a new one. Translating it
/// would break that connection.
fn older_connections() -> Rule {
    Rule::new("connections from before capture", [Match::TcpSyn(IsNot)], Action::Accept)
}

fn destination_nat(name: &'static str, hook: Hook, rules: Vec<Rule>) -> Chain {
    Chain { name, kind: ChainKind::Nat, hook, priority: PRIORITY_DESTINATION_NAT, rules }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_are_as_recorded() {
        let all = CapturePlan::default();
        insta::with_settings!({
            snapshot_path => "../../tests/golden/redirect",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            let plan = plan_workload;
            insta::assert_snapshot!("workload", plan(&all));
            insta::assert_snapshot!("workload_dns", plan(&CapturePlan { dns: true, ..all }));
            insta::assert_snapshot!("workload_ingress", plan(&CapturePlan { inbound: false, ..all }));
            insta::assert_snapshot!("workload_ipv4", plan(&CapturePlan { ipv6: false, ..all }));
        });
    }

    #[test]
    fn ingress_mode_keeps_the_way_back_of_borrowed_addresses() {
        let program = plan_workload(&CapturePlan { inbound: false, ..CapturePlan::default() });
        let text = program.to_string();
        assert!(text.contains("ct mark set") && text.contains("meta mark set"), "{text}");
        assert!(!text.contains(":15006"), "{text}");
        assert_eq!(program.routing.len(), 2);
    }

    #[test]
    fn comments_fit_into_what_nft_shows() {
        let program = plan_workload(&CapturePlan { dns: true, ..CapturePlan::default() });
        for rule in program.table.chains.iter().flat_map(|chain| &chain.rules) {
            assert!(rule.comment.len() < 128 && !rule.comment.contains('"'), "{rule}");
        }
    }
}
