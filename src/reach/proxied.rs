//! The header of the PROXY protocol (haproxy.org, "The PROXY protocol"): tells an endpoint outside of the mesh who the client is.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::traffic::ProxyProtocol;

/// The first bytes of version 2 (2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and that it speaks of a client.
const PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// The header for a connection of this client to this endpoint.
pub(super) fn header(version: ProxyProtocol, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let (source, target) = (from.ip().to_canonical(), to.ip().to_canonical());
    let ports = (from.port(), to.port());
    match (version, source, target) {
        (ProxyProtocol::V1, IpAddr::V4(source), IpAddr::V4(target)) => {
            format!("PROXY TCP4 {source} {target} {} {}\r\n", ports.0, ports.1).into_bytes()
        }
        (ProxyProtocol::V1, ..) => {
            let (source, target) = (text(source), text(target));
            format!("PROXY TCP6 {source} {target} {} {}\r\n", ports.0, ports.1).into_bytes()
        }
        (ProxyProtocol::V2, IpAddr::V4(source), IpAddr::V4(target)) => {
            binary(TCP_OVER_IPV4, &source.octets(), &target.octets(), ports)
        }
        (ProxyProtocol::V2, ..) => {
            binary(TCP_OVER_IPV6, &wide(source).octets(), &wide(target).octets(), ports)
        }
    }
}

/// Both addresses must be of one family.
fn wide(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn text(address: IpAddr) -> String {
    wide(address).to_string()
}

fn binary(family: u8, source: &[u8], target: &[u8], ports: (u16, u16)) -> Vec<u8> {
    let length = (source.len() + target.len() + 4) as u16;
    let mut header = SIGNATURE.to_vec();
    header.extend([PROXY, family]);
    header.extend(length.to_be_bytes());
    header.extend(source);
    header.extend(target);
    header.extend(ports.0.to_be_bytes());
    header.extend(ports.1.to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As in the examples and tables of the specification.
    #[test]
    fn headers_are_those_of_the_specification() {
        let four = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (from, to) = (four("192.168.0.1:56324"), four("192.168.0.11:443"));
        let (from6, to6) = (four("[2001:db8::1]:1"), four("[2001:db8::2]:443"));
        for (from, to, expected) in [
            (from, to, "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"),
            (from6, to6, "PROXY TCP6 2001:db8::1 2001:db8::2 1 443\r\n"),
            (from, to6, "PROXY TCP6 ::ffff:192.168.0.1 2001:db8::2 56324 443\r\n"),
            (
                four("[::ffff:192.168.0.1]:56324"),
                to,
                "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
            ),
        ] {
            let text = String::from_utf8(header(ProxyProtocol::V1, from, to)).unwrap();
            assert_eq!(text, expected);
            assert!(text.len() <= 107, "the longest that receivers take");
        }
        let bytes = header(ProxyProtocol::V2, from, to);
        assert_eq!(bytes[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c");
        assert_eq!(bytes[16..], [192, 168, 0, 1, 192, 168, 0, 11, 0xdc, 0x04, 0x01, 0xbb]);
        let bytes = header(ProxyProtocol::V2, from6, to6);
        assert_eq!((bytes[13], bytes.len()), (0x21, 16 + 36));
    }
}
