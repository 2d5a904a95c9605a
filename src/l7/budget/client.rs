//! Who counts as one client, and whose client it is.
//!
//! A client is a proven identity at an address of one of its pods: one pod. The identity alone would make one client of
//! all pods of a Deployment; the address alone one of what a network translates. All clients of one namespace are a
//! tenant, so that many pods of one owner hold no more than the owner's part; and so are all clients without an identity
//! together, because whoever needs to prove nothing can come from as many addresses as it likes. Of an IPv6 address without an
//! identity the network counts (/64), which is what one subscriber or one machine is given.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::base::{Identity, Str};
use crate::model::Workload;
use crate::world::World;

/// One client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::l7) struct Client {
    identity: Option<Identity>,
    network: IpAddr,
}

/// Whose client it is: a trust domain's namespace, or nobody's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::l7) struct Tenant(Option<(Str, Str)>);

/// Stands for every address where the mesh knows no pod of a client's identity.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// How much of an IPv6 address tells who it is: the subnet's part (RFC 4291, 2.5.4).
const SUBNET: u128 = !0 << 64;

impl Client {
    /// A pod of this node, which connects from its own addresses only.
    pub(in crate::l7) fn local(workload: &Workload, address: IpAddr) -> Self {
        Self::new(Some(&workload.identity), address)
    }

    /// Whoever arrived from `address`. A proven identity counts once for all addresses where the mesh knows no pod of it: a
    /// pod can give itself as many as it likes.
    pub(in crate::l7) fn arrived(
        world: &World,
        identity: Option<&Identity>,
        address: IpAddr,
    ) -> Self {
        let address = address.to_canonical();
        let known = identity.is_none() || world.source_at(address, identity).is_some();
        Self::new(identity, if known { address } else { NOWHERE })
    }

    pub(in crate::l7) fn new(identity: Option<&Identity>, address: IpAddr) -> Self {
        let network = match address.to_canonical() {
            IpAddr::V6(address) if identity.is_none() => {
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & SUBNET))
            }
            address => address,
        };
        Self { identity: identity.cloned(), network }
    }

    pub(in crate::l7) fn tenant(&self) -> Tenant {
        let of = |identity: &Identity| (identity.trust_domain.clone(), identity.namespace.clone());
        Tenant(self.identity.as_ref().map(of))
    }

    pub(in crate::l7) fn is(&self, identity: &Identity, address: IpAddr) -> bool {
        self.identity.as_ref() == Some(identity) && self.network == address.to_canonical()
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.identity, self.network) {
            (Some(identity), NOWHERE) => write!(f, "{identity} at unknown addresses"),
            (Some(identity), address) => write!(f, "{identity} at {address}"),
            (None, IpAddr::V6(network)) => write!(f, "{network}/64 without an identity"),
            (None, address) => write!(f, "{address} without an identity"),
        }
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some((trust_domain, namespace)) => {
                write!(f, "all clients of namespace {namespace} of {trust_domain}")
            }
            None => f.write_str("all clients without an identity"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::fixture::{Fixture, workload};

    #[test]
    fn an_identity_counts_once_where_none_of_its_pods_is() {
        let pod = workload("shop/web", "10.0.0.1");
        let identity = pod.identity.clone();
        let world = Fixture::default().workload(pod).build();
        let client = |identity: Option<&Identity>, address: &str| {
            Client::arrived(&world, identity, address.parse().unwrap())
        };
        let own = client(Some(&identity), "10.0.0.1");
        assert_eq!(own, client(Some(&identity), "::ffff:10.0.0.1"));
        let [one, other] = ["10.0.0.7", "fd00::8"].map(|address| client(Some(&identity), address));
        assert!(one == other && one != own, "{one}, {other}");
        let neighbour = Identity::new("cluster.local", "shop", "other");
        assert_eq!(client(Some(&neighbour), "10.0.0.1"), client(Some(&neighbour), "10.0.0.9"));
        assert_ne!(client(None, "10.0.0.7"), client(None, "10.0.0.8"));
    }

    #[test]
    fn a_client_is_an_identity_at_an_address_or_a_network() {
        let shop = Identity::new("cluster.local", "shop", "default");
        let admin = Identity::new("cluster.local", "shop", "admin");
        let client = |identity: Option<&Identity>, address: &str| {
            Client::new(identity, address.parse().unwrap())
        };
        for (one, other, same) in [
            (client(Some(&shop), "10.0.0.1"), client(Some(&shop), "10.0.0.1"), true),
            (client(Some(&shop), "10.0.0.1"), client(Some(&shop), "::ffff:10.0.0.1"), true),
            (client(Some(&shop), "10.0.0.1"), client(Some(&shop), "10.0.0.2"), false),
            (client(Some(&shop), "10.0.0.1"), client(Some(&admin), "10.0.0.1"), false),
            (client(Some(&shop), "10.0.0.1"), client(None, "10.0.0.1"), false),
            (client(Some(&shop), "fd00::1"), client(Some(&shop), "fd00::2"), false),
            (client(None, "10.0.0.1"), client(None, "10.0.0.2"), false),
            (client(None, "fd00::1"), client(None, "fd00::ffff:1:2:3"), true),
            (client(None, "fd00::1"), client(None, "fd00:0:0:1::1"), false),
        ] {
            assert_eq!(one == other, same, "{one}, {other}");
        }
        assert_eq!(client(Some(&shop), "fd00::1").tenant(), client(Some(&admin), "::2").tenant());
        assert_eq!(client(None, "10.0.0.1").tenant(), client(None, "fd00::1").tenant());
        let elsewhere = Identity::new("other.example", "shop", "default");
        assert_ne!(client(Some(&elsewhere), "::1").tenant(), client(Some(&shop), "::1").tenant());
        assert_eq!(client(None, "fd00::1").to_string(), "fd00::/64 without an identity");
    }
}
