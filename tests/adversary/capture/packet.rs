//! Packets of IP by hand: fragments, and headers between IPv6 and TCP.

use std::net::IpAddr;

use super::raw::Wrap;

const TCP: u8 = 6;
const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;
const FOR_DESTINATION: u8 = 60;
/// The rest of a header of options that says nothing: its length beyond 8 bytes, and padding (PadN, RFC 8200, 4.2).
const NOTHING: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];

/// A segment in the packets that carry it.
pub fn packets(from: IpAddr, to: IpAddr, wrap: Wrap, segment: &[u8]) -> Vec<Vec<u8>> {
    let identification = fastrand::u16(1..);
    match wrap {
        Wrap::Plain => vec![packet(from, to, (identification, 0), TCP, segment)],
        Wrap::Fragments(size) => {
            let (first, rest) = segment.split_at(size.min(segment.len()));
            let fragment = |offset: usize, more: bool, part: &[u8]| match from {
                IpAddr::V4(_) => {
                    let place = (offset / 8) as u16 | u16::from(more) << 13;
                    packet(from, to, (identification, place), TCP, part)
                }
                IpAddr::V6(_) => {
                    let place = offset as u16 | u16::from(more);
                    let id = u32::from(identification).to_be_bytes();
                    let head = [&[TCP, 0], place.to_be_bytes().as_slice(), &id].concat();
                    packet(from, to, (0, 0), FRAGMENT, &[&head, part].concat())
                }
            };
            vec![fragment(0, true, first), fragment(first.len(), false, rest)]
        }
        Wrap::Headers => {
            let options = [&[FOR_DESTINATION], NOTHING.as_slice(), &[TCP], &NOTHING].concat();
            vec![packet(from, to, (0, 0), HOP_BY_HOP, &[&options, segment].concat())]
        }
    }
}

/// The kernel computes the length and the checksum of IPv4's header.
fn packet(from: IpAddr, to: IpAddr, v4: (u16, u16), next: u8, payload: &[u8]) -> Vec<u8> {
    let (identification, place) = v4;
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let (id, place) = (identification.to_be_bytes(), place.to_be_bytes());
            let head = [0x45, 0, 0, 0, id[0], id[1], place[0], place[1], 64, next, 0, 0];
            [&head, from.octets().as_slice(), &to.octets(), payload].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let length = (payload.len() as u16).to_be_bytes();
            let head = [0x60, 0, 0, 0, length[0], length[1], next, 64];
            [&head, from.octets().as_slice(), &to.octets(), payload].concat()
        }
        _ => Vec::new(),
    }
}
