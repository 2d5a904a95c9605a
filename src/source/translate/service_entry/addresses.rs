//! The addresses of an entry: single ones, and networks.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::Context;
use crate::base::ObjectKey;
use crate::source::objects::ServiceEntry;

#[derive(Default)]
pub(super) struct Addresses {
    pub(super) exact: Vec<IpAddr>,
    pub(super) networks: Vec<IpNet>,
}

pub(super) fn read(cx: &mut Context<'_>, key: &ObjectKey, texts: &[String]) -> Addresses {
    let mut addresses = Addresses::default();
    for (index, text) in texts.iter().enumerate() {
        match one(text) {
            Ok(network) if network.prefix_len() == network.max_prefix_len() => {
                addresses.exact.push(network.addr());
            }
            Ok(network) => addresses.networks.push(network),
            Err(why) => {
                let field = format!("spec.addresses[{index}]");
                cx.error::<ServiceEntry>(key, field, format!("{why}; it is left out"));
            }
        }
    }
    addresses
}

/// A network, or a single address as one.
pub(super) fn one(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    match text.parse::<IpNet>() {
        Ok(network) => Ok(network.trunc()),
        Err(_) => Err(format!("{text:?} is neither an IP address nor a network")),
    }
}
