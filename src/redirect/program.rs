//! The rules as plain data, which can be printed ([`Display`](std::fmt::Display) in the syntax of `nft`), compared and
//! encoded. A [`Match`] includes what it depends on (`tcp dport` implies TCP, an IPv4 address implies IPv4), so matches
//! can be in any order.

use std::net::IpAddr;

use ipnet::IpNet;

/// Everything that one network namespace needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub table: Table,
    pub routing: Vec<PolicyRoute>,
    /// Whether TCP timestamps lose their random offset per destination.
    pub aligned_timestamps: bool,
}

/// One table of family `inet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub name: &'static str,
    /// Named counters, for [`Rule::counter`].
    pub counters: Vec<&'static str>,
    pub sets: Vec<Set>,
    pub chains: Vec<Chain>,
}

/// A named set of addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub name: &'static str,
    pub family: Family,
    /// All of [`Set::family`], sorted, without duplicates.
    pub elements: Vec<IpAddr>,
}

/// A base chain with policy accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub name: &'static str,
    pub kind: ChainKind,
    pub hook: Hook,
    /// Smaller is earlier. Conntrack itself is at -200.
    pub priority: i32,
    pub rules: Vec<Rule>,
}

/// All matches must hold for the action to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub matches: Vec<Match>,
    pub action: Action,
    /// Which of [`Table::counters`] counts the packets that match.
    pub counter: Option<&'static str>,
    /// Shown by `nft list`; at most 127 bytes, no quotes.
    pub comment: &'static str,
}

/// Policy routing of packets under a mark: an `ip rule` and the one route of its table, `local default dev lo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyRoute {
    pub family: Family,
    pub mark: Mark,
    pub priority: u32,
    pub table: u32,
}

/// The chain's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    Filter,
    /// Reroutes a packet when its mark changed.
    Route,
    /// Sees the first packet of a connection only.
    Nat,
}

/// Where the kernel calls a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    Ipv4,
    Ipv6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// A value under a mask, of a packet's or a connection's mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub value: u32,
    pub mask: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Equality {
    Is,
    IsNot,
}

/// One condition on a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    Family(Family),
    Protocol(Protocol),
    PacketMark(Equality, Mark),
    ConnectionMark(Equality, Mark),
    Source(IpNet),
    Destination(Equality, IpNet),
    /// The destination is an element of the set of that name and family.
    DestinationIn(Family, &'static str),
    DestinationPort(Equality, Protocol, u16),
    /// The interface that the packet arrived by.
    InputInterface(Equality, &'static str),
    /// The interface that the packet leaves by.
    OutputInterface(Equality, &'static str),
    /// TCP, and the packet opens a connection: of SYN, ACK, FIN and RST just SYN is set.
    TcpSyn(Equality),
    /// Conntrack cannot classify the packet, so no NAT chain will see it.
    InvalidConnection,
    /// Conntrack knows the connection from an earlier packet.
    ConfirmedConnection,
    /// NAT translates the connection to another destination than the dialled one.
    TranslatedConnection,
    /// The packet is for a socket here that is bound to no address (a listening one), or for one that is bound.
    UnboundSocket(Equality),
    /// A local process of this user sent the packet; forwarded packets have no user and never match.
    SocketUser(u32),
}

/// What is done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Accept,
    Drop,
    /// Drop, and answer with a reset.
    Refuse,
    /// Deliver to this port of this host; the original destination stays readable (`SO_ORIGINAL_DST`).
    Redirect(u16),
    SourceNat(IpAddr),
    /// Set the bits of the mask, leave the others.
    SetPacketMark(Mark),
    /// Set the bits of the mask, leave the others.
    SetConnectionMark(Mark),
    /// Track the connection in this zone in its original direction, and in the default zone in the other.
    SetOriginalZone(u16),
}

impl Family {
    /// Both, in the order in which rules are written.
    pub const ALL: &'static [Family] = &[Family::Ipv4, Family::Ipv6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
    }
}

impl Table {
    /// The same table for a kernel that lacks named counters, resets or socket lookup: it drops the same SYNs, and no
    /// others.
    #[must_use]
    pub fn plain(&self) -> Table {
        let mut table = Table { counters: Vec::new(), ..self.clone() };
        for chain in &mut table.chains {
            let looks_up = |it: &Match| matches!(it, Match::UnboundSocket(_));
            chain.rules.retain(|rule| !rule.matches.iter().any(looks_up));
        }
        for rule in table.chains.iter_mut().flat_map(|chain| &mut chain.rules) {
            rule.counter = None;
            if rule.action == Action::Refuse {
                rule.action = Action::Drop;
            }
        }
        table
    }
}

impl Rule {
    /// A rule whose comment says why it is there.
    pub fn new(comment: &'static str, matches: impl Into<Vec<Match>>, action: Action) -> Self {
        Self { matches: matches.into(), action, counter: None, comment }
    }

    /// The same rule, counting in this counter.
    #[must_use]
    pub fn counted(self, counter: &'static str) -> Self {
        Self { counter: Some(counter), ..self }
    }
}
