//! Where the agent itself connects to on behalf of a tenant: the one decision about addresses, made of each address right before it
//! is connected to.
//!
//! Whoever may write a RequestAuthentication has the agent, which runs in its node's network, send a GET; whoever may write an
//! XTelemetryPolicy has it send spans. Services of the node itself and of the cloud (credentials of machines) rely on it that nobody
//! else can.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Where clouds give credentials to machines, besides link-local addresses.
const METADATA: [&str; 8] = [
    // Azure's WireServer.
    "168.63.129.16/32",
    // Alibaba.
    "100.100.100.200/32",
    // Oracle, and the rest of what IANA keeps for protocols.
    "192.0.0.0/24",
    // AWS: the metadata, DNS and credentials of pods.
    "fd00:ec2::/32",
    // Google.
    "fd20:ce::/32",
    // Oracle.
    "fd00:c1::/32",
    // Scaleway.
    "fd00:42::/32",
    // DigitalOcean's and others' anycast names.
    "fd00:169:254::/48",
];

/// Why this address may not be connected to; `None`: it may. `allowed`: what a setting permits in spite of it.
pub fn refused(address: IpAddr, allowed: &[IpNet]) -> Option<&'static str> {
    let meant = meant(address);
    if allowed.iter().any(|net| net.contains(&address) || meant.is_some_and(|it| net.contains(&it)))
    {
        return None;
    }
    match meant {
        Some(IpAddr::V4(it)) => of_v4(it),
        Some(IpAddr::V6(it)) => of_v6(it),
        None => Some("leads through a tunnel to another address"),
    }
}

fn is_metadata(address: IpAddr) -> bool {
    METADATA.iter().filter_map(|net| net.parse::<IpNet>().ok()).any(|net| net.contains(&address))
}

fn of_v4(it: Ipv4Addr) -> Option<&'static str> {
    match it {
        _ if it.is_loopback() => Some("is a loopback address"),
        _ if it.octets()[0] == 0 => Some("is unspecified"),
        _ if it.is_link_local() => Some("is link-local, where clouds serve metadata"),
        _ if it.is_multicast() => Some("is a multicast address"),
        _ if it.octets()[0] >= 240 => Some("is reserved or a broadcast address"),
        _ if is_metadata(it.into()) => Some("is where a cloud serves metadata"),
        _ => None,
    }
}

fn of_v6(it: Ipv6Addr) -> Option<&'static str> {
    /// Deprecated, and of one link as the others.
    const SITE_LOCAL: u16 = 0xfec0;
    match it {
        _ if it.is_loopback() => Some("is a loopback address"),
        _ if it.is_unspecified() => Some("is unspecified"),
        _ if it.is_unicast_link_local() => Some("is link-local, where clouds serve metadata"),
        _ if it.segments()[0] & 0xffc0 == SITE_LOCAL => Some("is site-local"),
        _ if it.is_multicast() => Some("is a multicast address"),
        _ if is_metadata(it.into()) => Some("is where a cloud serves metadata"),
        _ => None,
    }
}

/// The address that is reached in the end, where another one is written into it. `None`: not to be told.
fn meant(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(it) = address else { return Some(address) };
    let [a, b, c, d, e, f, g, h] = it.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
    };
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0) if it.is_unspecified() || it.is_loopback() => Some(address),
        // Mapped (::ffff:0:0/96), translated (::ffff:0:0:0/96), compatible (::/96), NAT64 (64:ff9b::/96).
        (0, 0, 0, 0, 0, 0xffff | 0) | (0, 0, 0, 0, 0xffff, 0) | (0x64, 0xff9b, 0, 0, 0, 0) => {
            v4(g, h)
        }
        // 6to4.
        (0x2002, ..) => v4(b, c),
        // Local NAT64 and Teredo hide it.
        (0x64, 0xff9b, 1, ..) | (0x2001, 0, ..) => None,
        // ISATAP.
        (_, _, _, _, 0 | 0x200, 0x5efe) => v4(g, h),
        _ => Some(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_servers_may_be_connected_to() {
        for (address, permitted) in [
            ("10.0.0.1", true),
            ("172.16.0.9", true),
            ("192.168.1.1", true),
            ("100.64.0.1", true),
            ("203.0.113.9", true),
            ("142.250.1.1", true),
            ("2001:db8::1", true),
            ("2a00:1450:4001::200e", true),
            ("fd00:10:244::7", true),
            ("::ffff:10.0.0.1", true),
            ("64:ff9b::203.0.113.9", true),
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("169.254.169.254", false),
            ("169.254.0.1", false),
            ("169.254.170.23", false),
            ("224.0.0.1", false),
            ("239.255.255.250", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
            ("168.63.129.16", false),
            ("100.100.100.200", false),
            ("192.0.0.192", false),
            ("::", false),
            ("::1", false),
            ("fe80::1", false),
            ("febf::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
            ("fd00:ec2::254", false),
            ("fd00:ec2::23", false),
            ("fd20:ce::254", false),
            ("fd00:c1::a9fe:a9fe", false),
            ("fd00:42::42", false),
            // The same, written into others.
            ("::ffff:127.0.0.1", false),
            ("::ffff:169.254.169.254", false),
            ("::ffff:0:169.254.169.254", false),
            ("::169.254.169.254", false),
            ("::127.0.0.1", false),
            ("64:ff9b::169.254.169.254", false),
            ("64:ff9b:1::a9fe:a9fe", false),
            ("2002:a9fe:a9fe::1", false),
            ("2002:7f00:1::", false),
            ("2001:0:a9fe:a9fe::1", false),
            ("fd00:10::5efe:169.254.169.254", false),
        ] {
            let why = refused(address.parse().unwrap(), &[]);
            assert_eq!(why.is_none(), permitted, "{address}: {why:?}");
        }
    }

    #[test]
    fn a_setting_permits_what_it_names_and_nothing_else() {
        let allowed: Vec<IpNet> =
            ["127.0.0.0/30", "169.254.20.10/32", "fe80::/64"].map(|it| it.parse().unwrap()).into();
        for (address, permitted) in [
            ("127.0.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("127.0.0.4", false),
            ("169.254.20.10", true),
            ("169.254.20.11", false),
            ("169.254.169.254", false),
            ("fe80::9", true),
            ("fe80:0:0:1::9", false),
            ("::1", false),
        ] {
            let refused = refused(address.parse().unwrap(), &allowed);
            assert_eq!(refused.is_none(), permitted, "{address}");
        }
    }
}
