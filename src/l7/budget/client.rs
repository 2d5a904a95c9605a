//! Who counts as one client, and whose client it is.
//!
//! A client is a proven identity at an address: one pod. The identity alone would make one client of all pods of a
//! Deployment; the address alone one of what a network translates. All clients of one namespace are a tenant, so that
//! many pods of one owner hold no more than the owner's part; and so are all clients without an identity together,
//! because whoever needs to prove nothing can come from as many addresses as it likes. Of an IPv6 address without an
//! identity the network counts (/64), which is what one subscriber or one machine is given.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::base::{Identity, Str};

/// One client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::l7) struct Client {
    identity: Option<Identity>,
    network: IpAddr,
}

/// Whose client it is: a trust domain's namespace, or nobody's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::l7) struct Tenant(Option<(Str, Str)>);

/// How much of an IPv6 address tells who it is: the subnet's part (RFC 4291, 2.5.4).
const SUBNET: u128 = !0 << 64;

impl Client {
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
