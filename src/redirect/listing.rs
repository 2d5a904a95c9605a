//! Prints a [`Program`] in the syntax of `nft`: for golden files, logs and `isthmus dump`. The text is valid input for
//! `nft -f`; the namespace tests use that to prove that the kernel holds exactly what is printed. Routes and kernel
//! parameters, which `nft` does not know, are comments in the syntax of `ip` and `sysctl`.

use std::fmt::{Display, Formatter, Result};

use ipnet::IpNet;

use super::program::{
    Action, Chain, ChainKind, Equality, Family, Hook, Mark, Match, PolicyRoute, Program, Protocol,
    Rule, Set, Table,
};

impl Display for Program {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.routing.iter().try_for_each(|route| write!(f, "{route}"))?;
        if self.aligned_timestamps {
            writeln!(f, "# sysctl net.ipv4.tcp_timestamps=2 where it is 1")?;
        }
        write!(f, "{}", self.table)
    }
}

impl Display for PolicyRoute {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let version = match self.family {
            Family::Ipv4 => 4,
            Family::Ipv6 => 6,
        };
        let Mark { value, mask } = self.mark;
        let (priority, table) = (self.priority, self.table);
        writeln!(
            f,
            "# ip -{version} rule: priority {priority} fwmark {value:#x}/{mask:#x} lookup {table}"
        )?;
        writeln!(f, "# ip -{version} route: local default dev lo table {table}")
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "table inet {} {{", self.name)?;
        for counter in &self.counters {
            writeln!(f, "\tcounter {counter} {{\n\t\tpackets 0 bytes 0\n\t}}\n")?;
        }
        self.sets.iter().try_for_each(|set| writeln!(f, "{set}"))?;
        for (position, chain) in self.chains.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            write!(f, "{chain}")?;
        }
        writeln!(f, "}}")
    }
}

impl Display for Set {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let kind = match self.family {
            Family::Ipv4 => "ipv4_addr",
            Family::Ipv6 => "ipv6_addr",
        };
        writeln!(f, "\tset {} {{\n\t\ttype {kind}", self.name)?;
        if !self.elements.is_empty() {
            let elements: Vec<_> = self.elements.iter().map(ToString::to_string).collect();
            writeln!(f, "\t\telements = {{ {} }}", elements.join(", "))?;
        }
        writeln!(f, "\t}}")
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let kind = match self.kind {
            ChainKind::Filter => "filter",
            ChainKind::Route => "route",
            ChainKind::Nat => "nat",
        };
        let hook = match self.hook {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        };
        writeln!(f, "\tchain {} {{", self.name)?;
        writeln!(f, "\t\ttype {kind} hook {hook} priority {}; policy accept;", self.priority)?;
        self.rules.iter().try_for_each(|rule| writeln!(f, "\t\t{rule}"))?;
        writeln!(f, "\t}}")
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.matches.iter().try_for_each(|one| write!(f, "{one} "))?;
        if let Some(counter) = self.counter {
            write!(f, "counter name \"{counter}\" ")?;
        }
        write!(f, "{} comment \"{}\"", self.action, self.comment)
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Match::Family(Family::Ipv4) => write!(f, "meta nfproto ipv4"),
            Match::Family(Family::Ipv6) => write!(f, "meta nfproto ipv6"),
            Match::Protocol(protocol) => write!(f, "meta l4proto {protocol}"),
            Match::PacketMark(equality, mark) => marked(f, "meta", *equality, *mark),
            Match::ConnectionMark(equality, mark) => marked(f, "ct", *equality, *mark),
            Match::Source(network) => address(f, "saddr ", network),
            Match::Destination(Equality::Is, network) => address(f, "daddr ", network),
            Match::Destination(Equality::IsNot, network) => address(f, "daddr != ", network),
            Match::DestinationIn(Family::Ipv4, set) => write!(f, "ip daddr @{set}"),
            Match::DestinationIn(Family::Ipv6, set) => write!(f, "ip6 daddr @{set}"),
            Match::DestinationPort(equality, protocol, port) => {
                write!(f, "{protocol} dport {equality} {port}")
            }
            Match::InputInterface(equality, name) => write!(f, "iifname {equality} \"{name}\""),
            Match::OutputInterface(equality, name) => write!(f, "oifname {equality} \"{name}\""),
            Match::TcpSyn(equality) => {
                write!(f, "tcp flags & (fin | syn | rst | ack) {equality} syn")
            }
            Match::InvalidConnection => write!(f, "ct state invalid"),
            Match::ConfirmedConnection => write!(f, "ct status confirmed"),
            Match::TranslatedConnection => write!(f, "ct status dnat"),
            Match::UnboundSocket(equality) => write!(f, "socket wildcard {equality} 1"),
            Match::SocketUser(user) => write!(f, "meta skuid {user}"),
        }
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Action::Accept => write!(f, "accept"),
            Action::Drop => write!(f, "drop"),
            Action::Refuse => write!(f, "reject with tcp reset"),
            Action::Redirect(port) => write!(f, "redirect to :{port}"),
            Action::SourceNat(address) if address.is_ipv4() => write!(f, "snat ip to {address}"),
            Action::SourceNat(address) => write!(f, "snat ip6 to {address}"),
            Action::SetPacketMark(mark) => set_mark(f, "meta", *mark),
            Action::SetConnectionMark(mark) => set_mark(f, "ct", *mark),
            Action::SetOriginalZone(zone) => write!(f, "ct original zone set {zone}"),
        }
    }
}

impl Display for Equality {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Equality::Is => "==",
            Equality::IsNot => "!=",
        })
    }
}

/// For messages; `nft` has different words for a family in different places.
impl Display for Family {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        })
    }
}

impl Display for Protocol {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

fn marked(f: &mut Formatter<'_>, of: &str, equality: Equality, mark: Mark) -> Result {
    write!(f, "{of} mark & {:#x} {equality} {:#x}", mark.mask, mark.value)
}

fn set_mark(f: &mut Formatter<'_>, of: &str, mark: Mark) -> Result {
    write!(f, "{of} mark set {of} mark & {:#x} | {:#x}", !mark.mask, mark.value)
}

/// A host is written as an address, anything wider with its prefix length.
fn address(f: &mut Formatter<'_>, what: &str, network: &IpNet) -> Result {
    let family = if network.addr().is_ipv4() { "ip" } else { "ip6" };
    if network.prefix_len() == network.max_prefix_len() {
        write!(f, "{family} {what}{}", network.addr())
    } else {
        write!(f, "{family} {what}{network}")
    }
}
