//! The marks and addresses by which the rules of workloads, of the node and of uncaptured packets recognize packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use super::program::{Family, Mark};
use crate::base::ports;

pub(super) const LOOPBACK_INTERFACE: &str = "lo";
/// Not just 127.0.0.1 as in Istio: stub resolvers and debuggers use others.
const LOOPBACK_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);

/// Before conntrack (-200), where a zone must be chosen.
pub(super) const PRIORITY_RAW: i32 = -300;

pub(super) const AGENT: Mark = Mark { value: ports::SOCKET_MARK, mask: ports::MARK_MASK };
pub(super) const BORROWED: Mark = Mark { value: ports::CONNECTION_MARK, mask: ports::MARK_MASK };

pub(super) fn loopback(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => IpNet::V4(LOOPBACK_V4),
        Family::Ipv6 => host(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    }
}

pub(super) fn probe(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::V4(ports::PROBE_ADDRESS_V4),
        Family::Ipv6 => IpAddr::V6(ports::PROBE_ADDRESS_V6),
    }
}

pub(super) fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}
