//! Was this connection captured? This is the one place that decides, for both directions and both families, where a
//! packet is delivered, where it leaves, and where it is forwarded to a network behind a pod.
//!
//! NAT redirects only connections whose first packet it sees. A connection that conntrack already knows untranslated,
//! or whose SYN it calls invalid, bypasses NAT. Conntrack's state depends on what peers send (a bare ACK is enough),
//! and on what happened before the capture. Therefore nothing is inferred from it here: a SYN must be on a path that is
//! known to be right; otherwise it is dropped.
//!
//! Only packets that open a connection are checked: of SYN, ACK, FIN and RST just SYN, which Linux treats as an opening
//! at a listening socket whatever its other flags, options and data. Everything else belongs to a connection that was
//! checked when it began, or that is older than the capture and may continue.
//!
//! What happens to a SYN that fails the check:
//! - If it is the first packet of its connection for conntrack, it is dropped, and conntrack forgets it with the
//!   packet. The peer retransmits its SYN, which is redirected then. That resolves the harmless causes: a flow just
//!   reset, and rules that are being replaced.
//! - Otherwise its ports are those of an older connection that conntrack considers alive. A dropped SYN would be
//!   retransmitted in vain for as long, which may be five days. So it is reset: the client knows at once and takes
//!   another port, and conntrack (since Linux 6.5) closes its entry, so that the same ports can be used again ten
//!   seconds later. If conntrack considers the workload the initiator (it saw the workload first), it calls the SYN
//!   invalid and keeps its entry: the reset is the same, and the ports stay unusable.
//!
//! There is one other way to open a connection: an ACK with a SYN cookie, if the listening socket's queue overflowed a
//! short while ago. The kernel creates cookies with one secret for all network namespaces, so a pod on the same node
//! can have its own kernel create one for its neighbour. So a packet that opens nothing and belongs to no connection is
//! rejected if a listening socket waits for it, with the reset that the socket itself would send. The kernel only
//! distinguishes listening sockets on the wildcard address; one that is bound to the pod's address is not protected
//! from cookies.

use ipnet::IpNet;

use super::marks::{AGENT, BORROWED, LOOPBACK_INTERFACE, loopback, probe};
use super::program::{Action, Chain, ChainKind, Equality, Family, Hook, Match, Protocol, Rule};
use crate::base::ports;

use Equality::{Is, IsNot};

/// The counters of dropped packets, by direction.
pub(super) const INBOUND: &str = "uncaptured_inbound";
pub(super) const OUTBOUND: &str = "uncaptured_outbound";

/// After conntrack and every translation of a destination.
const PRIORITY: i32 = 0;

/// Packets that are delivered to a workload. These may open a connection here: the namespace itself and the agent, over
/// loopback; connections that are redirected to the agent's own listeners; probes of the node.
pub(super) fn delivered(families: &[Family]) -> Chain {
    let to_agent = |port, comment| {
        Rule::new(comment, [Match::DestinationPort(Is, Protocol::Tcp, port)], Action::Accept)
    };
    let mut rules = vec![
        Rule::new(
            "from within the namespace",
            [Match::InputInterface(Is, LOOPBACK_INTERFACE)],
            Action::Accept,
        ),
        // Nearly every packet: the kernel has its connection's socket at hand, and the rules below would accept it as
        // well.
        Rule::new(
            "of a connection here",
            [Match::TcpSyn(IsNot), Match::UnboundSocket(IsNot)],
            Action::Accept,
        ),
        to_agent(ports::INBOUND_PLAINTEXT, "captured"),
        to_agent(ports::HBONE, "tunnels"),
    ];
    rules.extend(families.iter().map(|&family| from_probes(family)));
    rules.push(Rule::new(
        "of no connection: only a SYN cookie could open one",
        [Match::TcpSyn(IsNot), Match::UnboundSocket(Is)],
        Action::Refuse,
    ));
    rules.push(under_way());
    rules.extend(families.iter().flat_map(|&family| uncaptured(family, INBOUND)));
    filter("check_input", Hook::Input, rules)
}

/// Packets that the pod's own rules forward to a network behind the workload (nested containers, virtual machines).
/// Captured connections are never forwarded: the agent accepts them, and connects to what is behind as it does to any
/// application. So only probes may open a connection here. Whether a socket behind would accept a SYN cookie cannot be
/// determined from here. But a connection that conntrack first sees in its middle was not translated when it began; a
/// translated one is therefore not genuine.
pub(super) fn forwarded(families: &[Family]) -> Chain {
    let mut rules = vec![
        Rule::new("under way", [Match::TcpSyn(IsNot), Match::ConfirmedConnection], Action::Accept),
        Rule::new(
            "of no connection: only a SYN cookie could open one",
            [Match::TcpSyn(IsNot), Match::TranslatedConnection],
            Action::Refuse,
        ),
        under_way(),
    ];
    rules.extend(families.iter().map(|&family| from_probes(family)));
    rules.extend(families.iter().flat_map(|&family| uncaptured(family, INBOUND)));
    filter("check_forward", Hook::Forward, rules)
}

/// Packets that a workload sends. Only the agent may open a connection to elsewhere. The workload's connections stay in
/// the namespace, or are redirected to the agent there. NAT changes the destination, and not the interface that is seen
/// here.
///
/// The agent's connection to an application that the pod's own rules forward to a network behind it is remembered like
/// those over loopback: the replies arrive by another interface, for an address that is not this namespace's.
pub(super) fn sent(families: &[Family], dns: bool) -> Chain {
    let mut rules = vec![
        under_way(),
        Rule::new(
            "the agent's, to an application behind this namespace: remember the flow",
            [Match::PacketMark(Is, AGENT), Match::TranslatedConnection],
            Action::SetConnectionMark(BORROWED),
        ),
        Rule::new(
            "stays within the namespace",
            [Match::OutputInterface(Is, LOOPBACK_INTERFACE)],
            Action::Accept,
        ),
        Rule::new("the agent's own", [Match::PacketMark(Is, AGENT)], Action::Accept),
    ];
    let stub = dns.then_some(ports::DNS);
    for port in [ports::OUTBOUND].into_iter().chain(stub) {
        rules.extend(families.iter().map(|&family| {
            let matches = [
                Match::Destination(Is, loopback(family)),
                Match::DestinationPort(Is, Protocol::Tcp, port),
            ];
            Rule::new("captured", matches, Action::Accept)
        }));
    }
    rules.extend(families.iter().flat_map(|&family| uncaptured(family, OUTBOUND)));
    filter("check_output", Hook::Output, rules)
}

fn from_probes(family: Family) -> Rule {
    let source = Match::Source(IpNet::from(probe(family)));
    Rule::new("probes from the node", [source], Action::Accept)
}

/// Nearly every packet.
fn under_way() -> Rule {
    Rule::new("opens no connection", [Match::TcpSyn(IsNot)], Action::Accept)
}

fn uncaptured(family: Family, counter: &'static str) -> [Rule; 3] {
    let opens = [Match::Family(family), Match::TcpSyn(Is)];
    let refused = |older| {
        let reuses = [opens.as_slice(), &[older]].concat();
        Rule::new("not captured: ports of an older connection", reuses, Action::Refuse)
            .counted(counter)
    };
    [
        refused(Match::ConfirmedConnection),
        refused(Match::InvalidConnection),
        Rule::new("not captured", opens, Action::Drop).counted(counter),
    ]
}

fn filter(name: &'static str, hook: Hook, rules: Vec<Rule>) -> Chain {
    Chain { name, kind: ChainKind::Filter, hook, priority: PRIORITY, rules }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets as the rules see them, and what each chain says of them.
    #[derive(Clone, Copy)]
    struct Packet {
        interface: &'static str,
        source: &'static str,
        destination: &'static str,
        port: u16,
        mark: u32,
        syn: bool,
        confirmed: bool,
        translated: bool,
        invalid: bool,
        /// Whether the socket that takes it listens on the wildcard address.
        socket: Option<bool>,
    }

    const FROM_OUTSIDE: Packet = Packet {
        interface: "eth0",
        source: "10.0.0.9",
        destination: "10.0.0.1",
        port: 8080,
        mark: 0,
        syn: true,
        confirmed: false,
        translated: false,
        invalid: false,
        socket: None,
    };

    fn matches(one: &Match, packet: &Packet) -> bool {
        let eq = |equality: &Equality, is: bool| is == (*equality == Is);
        let (source, destination): (std::net::IpAddr, std::net::IpAddr) =
            (packet.source.parse().unwrap(), packet.destination.parse().unwrap());
        match one {
            Match::Family(family) => Family::of(destination) == *family,
            Match::TcpSyn(equality) => eq(equality, packet.syn),
            Match::InputInterface(equality, name) | Match::OutputInterface(equality, name) => {
                eq(equality, packet.interface == *name)
            }
            Match::DestinationPort(equality, Protocol::Tcp, port) => {
                eq(equality, packet.port == *port)
            }
            Match::PacketMark(equality, mark) => {
                eq(equality, packet.mark & mark.mask == mark.value)
            }
            Match::Source(network) => network.contains(&source),
            Match::Destination(equality, network) => eq(equality, network.contains(&destination)),
            Match::ConfirmedConnection => packet.confirmed,
            Match::TranslatedConnection => packet.translated,
            Match::InvalidConnection => packet.invalid,
            // No socket at all is neither.
            Match::UnboundSocket(equality) => {
                packet.socket.is_some_and(|unbound| eq(equality, unbound))
            }
            other => panic!("the check has no business with {other}"),
        }
    }

    fn verdict(chain: &Chain, packet: &Packet) -> Action {
        let decides = |it: &&Rule| !matches!(it.action, Action::SetConnectionMark(_));
        let is_met = |it: &&Rule| it.matches.iter().all(|one| matches(one, packet));
        let rule = chain.rules.iter().filter(decides).find(is_met);
        let action = rule.map_or(Action::Accept, |rule| rule.action);
        let counted = rule.is_some_and(|rule| rule.counter.is_some());
        let caught = action != Action::Accept && packet.syn;
        assert_eq!(counted, caught, "what is caught is counted, and nothing else");
        action
    }

    #[test]
    fn what_is_delivered() {
        let chain = delivered(Family::ALL);
        let it = |packet: Packet| verdict(&chain, &packet);
        let six = |packet: Packet| Packet { source: "fd00::9", destination: "fd00::1", ..packet };
        for packet in [FROM_OUTSIDE, six(FROM_OUTSIDE)] {
            assert_eq!(it(packet), Action::Drop);
        }
        for packet in [FROM_OUTSIDE, six(FROM_OUTSIDE)] {
            assert_eq!(it(Packet { confirmed: true, ..packet }), Action::Refuse);
            assert_eq!(it(Packet { invalid: true, ..packet }), Action::Refuse);
        }
        // A mark that came over the network is nobody's.
        assert_eq!(it(Packet { mark: AGENT.value, ..FROM_OUTSIDE }), Action::Drop);
        for port in [ports::OUTBOUND, ports::DNS, 53, 22] {
            assert_eq!(it(Packet { port, ..FROM_OUTSIDE }), Action::Drop);
        }
        for source in ["127.0.0.1", "10.0.0.1"] {
            assert_eq!(it(Packet { source, ..FROM_OUTSIDE }), Action::Drop);
        }
        assert_eq!(it(Packet { destination: "127.0.0.1", ..FROM_OUTSIDE }), Action::Drop);

        for port in [ports::INBOUND_PLAINTEXT, ports::HBONE] {
            assert_eq!(it(Packet { port, ..FROM_OUTSIDE }), Action::Accept);
        }
        assert_eq!(it(Packet { interface: "lo", ..FROM_OUTSIDE }), Action::Accept);
        assert_eq!(it(Packet { source: "169.254.7.127", ..FROM_OUTSIDE }), Action::Accept);
        for confirmed in [false, true] {
            let under_way = Packet { syn: false, confirmed, ..FROM_OUTSIDE };
            assert_eq!(it(under_way), Action::Accept);
            assert_eq!(it(Packet { socket: Some(false), ..under_way }), Action::Accept);
            let stray = Packet { socket: Some(true), ..under_way };
            assert_eq!(it(stray), Action::Refuse);
            assert_eq!(it(Packet { port: ports::HBONE, ..stray }), Action::Accept);
        }
    }

    #[test]
    fn what_is_forwarded() {
        let chain = forwarded(Family::ALL);
        let it = |packet: Packet| verdict(&chain, &packet);
        let six = |packet: Packet| Packet { source: "fd00::9", destination: "fd00::1", ..packet };
        for packet in [FROM_OUTSIDE, six(FROM_OUTSIDE)] {
            for translated in [false, true] {
                let packet = Packet { translated, ..packet };
                assert_eq!(it(packet), Action::Drop);
                assert_eq!(it(Packet { confirmed: true, ..packet }), Action::Refuse);
                assert_eq!(it(Packet { invalid: true, ..packet }), Action::Refuse);
                // Nothing that is forwarded is the agent's, or for it.
                assert_eq!(it(Packet { mark: AGENT.value, ..packet }), Action::Drop);
                for port in [ports::INBOUND_PLAINTEXT, ports::HBONE] {
                    assert_eq!(it(Packet { port, ..packet }), Action::Drop);
                }
                let under_way = Packet { syn: false, confirmed: true, ..packet };
                assert_eq!(it(under_way), Action::Accept);
            }
            let first_heard_of = Packet { syn: false, ..packet };
            assert_eq!(it(first_heard_of), Action::Accept);
            assert_eq!(it(Packet { translated: true, ..first_heard_of }), Action::Refuse);
        }
        assert_eq!(it(Packet { source: "169.254.7.127", ..FROM_OUTSIDE }), Action::Accept);
    }

    #[test]
    fn what_is_sent() {
        const SENT: Packet = Packet { source: "10.0.0.1", destination: "10.0.0.9", ..FROM_OUTSIDE };
        let it = |packet: Packet| verdict(&sent(Family::ALL, false), &packet);
        assert_eq!(it(SENT), Action::Drop);
        assert_eq!(it(Packet { confirmed: true, ..SENT }), Action::Refuse);
        assert_eq!(it(Packet { invalid: true, ..SENT }), Action::Refuse);
        for port in [ports::OUTBOUND, ports::HBONE, 53] {
            assert_eq!(it(Packet { port, ..SENT }), Action::Drop);
        }
        // Loopback addresses that leave by another interface were not redirected.
        assert_eq!(it(Packet { destination: "127.0.0.1", ..SENT }), Action::Drop);
        assert_eq!(it(Packet { destination: "169.254.7.127", ..SENT }), Action::Drop);

        for translated in [false, true] {
            assert_eq!(it(Packet { mark: AGENT.value, translated, ..SENT }), Action::Accept);
        }
        assert_eq!(it(Packet { interface: "lo", ..SENT }), Action::Accept);
        assert_eq!(it(Packet { syn: false, ..SENT }), Action::Accept);
        let captured = Packet { destination: "127.0.0.1", port: ports::OUTBOUND, ..SENT };
        assert_eq!(it(captured), Action::Accept);
    }

    #[test]
    fn the_stub_is_there_only_where_dns_is_captured() {
        let to_stub = Packet { destination: "127.0.0.1", port: ports::DNS, ..FROM_OUTSIDE };
        assert_eq!(verdict(&sent(Family::ALL, true), &to_stub), Action::Accept);
        assert_eq!(verdict(&sent(Family::ALL, false), &to_stub), Action::Drop);
    }

    #[test]
    fn a_family_that_is_not_captured_is_not_judged() {
        let packet = Packet { source: "fd00::9", destination: "fd00::1", ..FROM_OUTSIDE };
        assert_eq!(verdict(&delivered(&[Family::Ipv4]), &packet), Action::Accept);
        assert_eq!(verdict(&forwarded(&[Family::Ipv4]), &packet), Action::Accept);
        assert_eq!(verdict(&sent(&[Family::Ipv4], false), &packet), Action::Accept);
    }
}
