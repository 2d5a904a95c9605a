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
        let network = match text.parse::<IpAddr>() {
            Ok(address) => Some(IpNet::from(address)),
            Err(_) => text.parse::<IpNet>().ok().map(|network| network.trunc()),
        };
        match network {
            Some(network) if network.prefix_len() == network.max_prefix_len() => {
                addresses.exact.push(network.addr());
            }
            Some(network) => addresses.networks.push(network),
            None => {
                let reason =
                    format!("{text:?} is neither an IP address nor a network; it is left out");
                cx.error::<ServiceEntry>(key, format!("spec.addresses[{index}]"), reason);
            }
        }
    }
    addresses
}
