//! The `ip rule` and the route that bring replies to borrowed addresses to the agent: packets under the mark are
//! delivered locally whatever their destination.

use netlink_packet_core::Emitable;
use netlink_packet_route::{
    AddressFamily,
    link::{LinkFlags, LinkMessage},
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
    rule::{RuleAction, RuleAttribute, RuleHeader, RuleMessage},
};
use nix::errno::Errno;

use super::{
    error::Error,
    netlink::{Request, Socket, Subsystem},
    program::{Family, PolicyRoute},
};

/// The index of `lo`, the same in every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;
/// How many equal rules or routes a removal deletes. There should be one; a crashed agent or a manual `ip rule` may
/// have left more, and the loop must be bounded.
const MOST_DUPLICATES: usize = 16;

const CREATE: u16 = libc::NLM_F_CREATE as u16;
const EXCLUSIVE: u16 = libc::NLM_F_EXCL as u16;
const REPLACE: u16 = libc::NLM_F_REPLACE as u16;

/// Adds what is missing. Returns the families that this namespace lacks.
pub fn apply(routes: &[PolicyRoute]) -> Result<Vec<Family>, Error> {
    let mut without = Vec::new();
    if routes.is_empty() {
        return Ok(without);
    }
    let mut socket = Socket::open(Subsystem::Route)?;
    for route in routes {
        match add(&mut socket, route) {
            Err(error) if is_absent(route.family, &error) => without.push(route.family),
            result => result?,
        }
    }
    Ok(without)
}

/// `ip link set lo up`.
pub fn raise_loopback() -> Result<(), Error> {
    let mut message = LinkMessage::default();
    message.header.index = LOOPBACK;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    let (body, object) = (emit(&message), "the loopback interface".into());
    let request = Request { kind: libc::RTM_NEWLINK, flags: 0, body, object }.awaited();
    Socket::open(Subsystem::Route)?.transact(&[request]).map(drop)
}

/// Removes all of them; a missing one is not an error.
pub fn remove(routes: &[PolicyRoute]) -> Result<(), Error> {
    let mut socket = Socket::open(Subsystem::Route)?;
    let mut result = Ok(());
    for route in routes {
        for request in [rule(route, libc::RTM_DELRULE, 0), local(route, libc::RTM_DELROUTE, 0)] {
            result = result.and(remove_all(&mut socket, route.family, request));
        }
    }
    result
}

/// The route first: a rule that points to an empty table would route packets to the network.
fn add(socket: &mut Socket, route: &PolicyRoute) -> Result<(), Error> {
    // Replacing also repairs a route that another program left in the table.
    socket.transact(&[local(route, libc::RTM_NEWROUTE, CREATE | REPLACE)])?;
    match socket.transact(&[rule(route, libc::RTM_NEWRULE, CREATE | EXCLUSIVE)]) {
        Err(error) if error.refusal() == Some(Errno::EEXIST) => Ok(()),
        result => result.map(drop),
    }
}

fn remove_all(socket: &mut Socket, family: Family, request: Request) -> Result<(), Error> {
    let requests = [request];
    for _ in 0..MOST_DUPLICATES {
        match socket.transact(&requests) {
            Ok(_) => {}
            Err(error) if matches!(error.refusal(), Some(Errno::ENOENT | Errno::ESRCH)) => break,
            Err(error) if is_absent(family, &error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether an error means that the family is missing: not in the kernel, or (`EACCES`) disabled on `lo` by
/// `net.ipv6.conf.lo.disable_ipv6`. A missing capability is `EPERM`.
fn is_absent(family: Family, error: &Error) -> bool {
    let refusal = error.refusal();
    family == Family::Ipv6
        && matches!(refusal, Some(Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP | Errno::EACCES))
}

/// `ip rule ... fwmark VALUE/MASK pref PRIORITY lookup TABLE`.
fn rule(route: &PolicyRoute, kind: u16, flags: u16) -> Request {
    let mut message = RuleMessage::default();
    message.header = RuleHeader {
        family: address_family(route.family),
        action: RuleAction::ToTable,
        ..RuleHeader::default()
    };
    message.attributes = vec![
        RuleAttribute::Priority(route.priority),
        RuleAttribute::FwMark(route.mark.value),
        RuleAttribute::FwMask(route.mark.mask),
        RuleAttribute::Table(route.table),
    ];
    let object = format!("the {} rule that leads to routing table {}", route.family, route.table);
    Request { kind, flags, body: emit(&message), object: object.into() }.awaited()
}

/// `ip route ... local default dev lo table TABLE`.
fn local(route: &PolicyRoute, kind: u16, flags: u16) -> Request {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: address_family(route.family),
        protocol: RouteProtocol::Static,
        scope: RouteScope::Host,
        kind: RouteType::Local,
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Table(route.table), RouteAttribute::Oif(LOOPBACK)];
    let object =
        format!("the {} route local default dev lo in table {}", route.family, route.table);
    Request { kind, flags, body: emit(&message), object: object.into() }.awaited()
}

fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    }
}

fn emit(message: &impl Emitable) -> Vec<u8> {
    let mut body = vec![0; message.buffer_len()];
    message.emit(&mut body);
    body
}
