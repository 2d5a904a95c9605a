//! A [`Rule`] as expressions. Marks, users and connection states are compared in the host's byte order, packet fields
//! in the network's.

use ipnet::IpNet;

use super::{
    super::{
        netlink::Attributes,
        program::{Action, Equality, Family, Mark, Match, Protocol, Rule},
    },
    abi,
    expression::{Expressions, Header, address, protocol_family},
};

/// Registers hold an interface's name padded to this length (`IFNAMSIZ`).
const INTERFACE_NAME_LENGTH: usize = 16;
/// The offsets of ports and flags in a TCP header; UDP has its ports there too.
const DESTINATION_PORT_OFFSET: u32 = 2;
const TCP_FLAGS_OFFSET: u32 = 13;
const TCP_FIN: u8 = 1;
const TCP_SYN: u8 = 2;
const TCP_RST: u8 = 4;
const TCP_ACK: u8 = 16;

/// Which address of the network header.
#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

/// The value of `NFTA_RULE_EXPRESSIONS`.
pub fn expressions(rule: &Rule) -> Attributes {
    let matched = rule.matches.iter().fold(Expressions::default(), one_match);
    let counted = match rule.counter {
        Some(counter) => matched.count(counter),
        None => matched,
    };
    action(counted, rule.action).finish()
}

fn one_match(so_far: Expressions, one: &Match) -> Expressions {
    match *one {
        Match::Family(of) => family(so_far, of),
        Match::Protocol(of) => protocol(so_far, of),
        Match::PacketMark(equality, mark) => {
            marked(so_far.load_meta(libc::NFT_META_MARK), equality, mark)
        }
        Match::ConnectionMark(equality, mark) => {
            marked(so_far.load_connection(libc::NFT_CT_MARK), equality, mark)
        }
        Match::Source(of) => network(so_far, Side::Source, Equality::Is, of),
        Match::Destination(equality, of) => network(so_far, Side::Destination, equality, of),
        Match::DestinationIn(of, set) => load_address(so_far, Side::Destination, of).look_up(set),
        Match::DestinationPort(equality, of, port) => protocol(so_far, of)
            .load_payload(Header::Transport, DESTINATION_PORT_OFFSET, 2)
            .compare(equality, &port.to_be_bytes()),
        Match::InputInterface(equality, name) => {
            so_far.load_meta(libc::NFT_META_IIFNAME).compare(equality, &padded(name))
        }
        Match::OutputInterface(equality, name) => {
            so_far.load_meta(libc::NFT_META_OIFNAME).compare(equality, &padded(name))
        }
        Match::TcpSyn(equality) => protocol(so_far, Protocol::Tcp)
            .load_payload(Header::Transport, TCP_FLAGS_OFFSET, 1)
            .bitwise(&[TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK], &[0])
            .compare(equality, &[TCP_SYN]),
        Match::InvalidConnection => any_bit(so_far, libc::NFT_CT_STATE, abi::STATE_INVALID),
        Match::ConfirmedConnection => any_bit(so_far, libc::NFT_CT_STATUS, abi::STATUS_CONFIRMED),
        Match::TranslatedConnection => any_bit(so_far, libc::NFT_CT_STATUS, abi::STATUS_TRANSLATED),
        Match::UnboundSocket(equality) => {
            so_far.load_socket(abi::SOCKET_WILDCARD).compare(equality, &[1])
        }
        Match::SocketUser(user) => {
            so_far.load_meta(libc::NFT_META_SKUID).compare(Equality::Is, &user.to_ne_bytes())
        }
    }
}

fn action(matched: Expressions, action: Action) -> Expressions {
    match action {
        Action::Accept => matched.verdict(libc::NF_ACCEPT),
        Action::Drop => matched.verdict(libc::NF_DROP),
        Action::Refuse => matched.refuse(),
        Action::Redirect(port) => matched.load_value(&port.to_be_bytes()).redirect(),
        Action::SourceNat(to) => matched.load_value(&address(to)).source_nat(Family::of(to)),
        Action::SetPacketMark(mark) => {
            let (mask, xor) = replaced_bits(mark);
            matched
                .load_meta(libc::NFT_META_MARK)
                .bitwise(&mask, &xor)
                .store_meta(libc::NFT_META_MARK)
        }
        Action::SetConnectionMark(mark) => {
            let (mask, xor) = replaced_bits(mark);
            matched
                .load_connection(libc::NFT_CT_MARK)
                .bitwise(&mask, &xor)
                .store_connection(libc::NFT_CT_MARK)
        }
        Action::SetOriginalZone(zone) => {
            matched.load_value(&zone.to_ne_bytes()).store_original(libc::NFT_CT_ZONE)
        }
    }
}

fn family(so_far: Expressions, of: Family) -> Expressions {
    so_far.load_meta(libc::NFT_META_NFPROTO).compare(Equality::Is, &[protocol_family(of)])
}

fn protocol(so_far: Expressions, of: Protocol) -> Expressions {
    let number = match of {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
    };
    so_far.load_meta(libc::NFT_META_L4PROTO).compare(Equality::Is, &[number as u8])
}

fn marked(loaded: Expressions, equality: Equality, mark: Mark) -> Expressions {
    loaded.bitwise(&mark.mask.to_ne_bytes(), &[0; 4]).compare(equality, &mark.value.to_ne_bytes())
}

/// Any of these bits is set in a property of the connection.
fn any_bit(so_far: Expressions, key: libc::c_int, bits: u32) -> Expressions {
    so_far
        .load_connection(key)
        .bitwise(&bits.to_ne_bytes(), &[0; 4])
        .compare(Equality::IsNot, &[0; 4])
}

/// An interface's name as registers hold it.
fn padded(name: &str) -> Vec<u8> {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(INTERFACE_NAME_LENGTH, 0);
    padded
}

/// Keeps the bits outside of the mask and sets the others to the value.
fn replaced_bits(mark: Mark) -> ([u8; 4], [u8; 4]) {
    ((!mark.mask).to_ne_bytes(), (mark.value & mark.mask).to_ne_bytes())
}

fn network(so_far: Expressions, side: Side, equality: Equality, of: IpNet) -> Expressions {
    let loaded = load_address(so_far, side, Family::of(of.addr()));
    let value = address(of.network());
    if of.prefix_len() == of.max_prefix_len() {
        return loaded.compare(equality, &value);
    }
    let none = vec![0; value.len()];
    loaded.bitwise(&address(of.netmask()), &none).compare(equality, &value)
}

/// An address has different offsets in the two headers, so the family is checked first.
fn load_address(so_far: Expressions, side: Side, of: Family) -> Expressions {
    let (offset, length) = match (of, side) {
        (Family::Ipv4, Side::Source) => (12, 4),
        (Family::Ipv4, Side::Destination) => (16, 4),
        (Family::Ipv6, Side::Source) => (8, 16),
        (Family::Ipv6, Side::Destination) => (24, 16),
    };
    family(so_far, of).load_payload(Header::Network, offset, length)
}
