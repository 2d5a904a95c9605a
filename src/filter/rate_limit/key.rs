//! Parts of a bucket's key: what tells requests apart. As a hash for the buckets of an agent, and as text for those who count
//! elsewhere.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use super::super::{Cx, RequestHead};
use crate::base::Str;
use crate::base::schema::forms::{HEADER_NAME, any};
use crate::base::schema::{Objection, Rule};
use Rule::{Fields, List, Number, OneOf, Text, With};

/// At the most so many parts.
const MOST: usize = 4;
const MEMBERS: &str = "goes with the types Header (header), Claim (claim) and Address (ipv4PrefixLength, ipv6PrefixLength), with \
                       its own and with no other";

/// The keys that the API server accepts.
pub(super) const SCHEMA: Rule = List(
    0,
    MOST,
    &With(
        &Fields(&[
            ("type", OneOf(&["Identity", "Namespace", "Address", "Header", "Claim", "Route"])),
            ("header", Text(HEADER_NAME)),
            ("claim", Text(any(256))),
            ("ipv4PrefixLength", Number(0, 32)),
            ("ipv6PrefixLength", Number(0, 128)),
        ]),
        &[members_go_with_type],
    ),
);

/// A part of a bucket's key.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Key {
    /// The client's, proven by mutual TLS. Plaintext has one bucket.
    Identity,
    /// The client's, by its identity.
    Namespace,
    /// The client's, as far as these prefixes go.
    Address { ipv4: u8, ipv6: u8 },
    /// All values of a header; requests without it have one bucket.
    Header(#[serde(serialize_with = "super::super::text")] HeaderName),
    /// Of the request's verified token: by its name, or else by the path that dots part. Requests without it have one bucket.
    Claim(Str),
    /// Route and rule.
    Route,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    #[serde(rename = "type")]
    kind: KeyType,
    #[serde(default)]
    header: Option<String>,
    #[serde(default)]
    claim: Option<String>,
    #[serde(default)]
    ipv4_prefix_length: Option<u8>,
    #[serde(default)]
    ipv6_prefix_length: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum KeyType {
    Identity,
    Namespace,
    Address,
    Header,
    Claim,
    Route,
}

impl Written {
    /// The member at fault, and why.
    pub(super) fn read(&self) -> Result<Key, (&'static str, String)> {
        let Self { kind, header, claim, ipv4_prefix_length, ipv6_prefix_length } = self;
        let present = [
            ("header", KeyType::Header, header.is_some()),
            ("claim", KeyType::Claim, claim.is_some()),
            ("ipv4PrefixLength", KeyType::Address, ipv4_prefix_length.is_some()),
            ("ipv6PrefixLength", KeyType::Address, ipv6_prefix_length.is_some()),
        ];
        let foreign = present.iter().find(|(_, of, is_there)| *is_there && of != kind);
        if let Some((member, ..)) = foreign {
            return Err((member, MEMBERS.to_owned()));
        }
        match (kind, header.as_deref(), claim.as_deref()) {
            (KeyType::Header, Some(name), _) => HeaderName::try_from(name)
                .map(Key::Header)
                .map_err(|_| ("header", format!("{name:?} is not a header name"))),
            (KeyType::Header, None, _) => {
                Err(("header", "is missing; the type Header needs it".to_owned()))
            }
            (KeyType::Claim, _, Some(path)) if !path.is_empty() => Ok(Key::Claim(path.into())),
            (KeyType::Claim, ..) => {
                Err(("claim", "is missing; the type Claim needs it".to_owned()))
            }
            (KeyType::Address, ..) => {
                let (ipv4, ipv6) =
                    (ipv4_prefix_length.unwrap_or(32), ipv6_prefix_length.unwrap_or(128));
                match (ipv4 <= 32, ipv6 <= 128) {
                    (false, _) => Err(("ipv4PrefixLength", format!("{ipv4} is not from 0 to 32"))),
                    (_, false) => Err(("ipv6PrefixLength", format!("{ipv6} is not from 0 to 128"))),
                    _ => Ok(Key::Address { ipv4, ipv6 }),
                }
            }
            (KeyType::Identity, ..) => Ok(Key::Identity),
            (KeyType::Namespace, ..) => Ok(Key::Namespace),
            (KeyType::Route, ..) => Ok(Key::Route),
        }
    }
}

pub fn members_go_with_type(value: &Value) -> Option<Objection> {
    let kind = value.get("type")?.as_str()?;
    let members = [
        ("header", "Header", true),
        ("claim", "Claim", true),
        ("ipv4PrefixLength", "Address", false),
        ("ipv6PrefixLength", "Address", false),
    ];
    let wrong = members.into_iter().find(|(member, of, needed)| {
        let is_there = value.get(*member).is_some();
        if kind == *of { *needed && !is_there } else { is_there }
    });
    wrong.map(|(member, ..)| (member, MEMBERS.to_owned()))
}

impl Key {
    /// What the descriptor of a request calls it (Envoy, `RateLimitDescriptor`).
    pub fn name(&self) -> &str {
        match self {
            Key::Identity => "identity",
            Key::Namespace => "namespace",
            Key::Address { .. } => "remote_address",
            Key::Header(name) => name.as_str(),
            Key::Claim(path) => path,
            Key::Route => "route",
        }
    }

    pub fn is_claim(&self) -> bool {
        matches!(self, Key::Claim(_))
    }

    /// Of a request; empty where it has none.
    pub fn text<'a>(&self, head: &'a RequestHead<'_>, cx: &'a Cx<'_>) -> Cow<'a, str> {
        match self {
            Key::Identity => cx.identity.map(ToString::to_string).unwrap_or_default().into(),
            Key::Namespace => cx.identity.map_or("", |it| &it.namespace).into(),
            Key::Address { ipv4, ipv6 } => {
                let (address, length) = masked(cx.address, *ipv4, *ipv6);
                match (length, address.is_ipv4()) {
                    (32, true) | (128, false) => address.to_string().into(),
                    _ => format!("{address}/{length}").into(),
                }
            }
            Key::Header(name) => {
                let mut values = head.headers.get_all(name).iter().map(HeaderValue::as_bytes);
                let first = values.next().unwrap_or_default();
                let rest: Vec<&[u8]> = values.collect();
                if rest.is_empty() {
                    return String::from_utf8_lossy(first);
                }
                let all = [&[first][..], &rest].concat().join(&b","[..]);
                String::from_utf8_lossy(&all).into_owned().into()
            }
            Key::Claim(path) => {
                let texts = cx.claims.map(|claims| claims.texts(path)).unwrap_or_default();
                match <[_; 1]>::try_from(texts) {
                    Ok([one]) => one,
                    Err(several) => several.join(",").into(),
                }
            }
            Key::Route => {
                cx.route.map(|(route, rule)| format!("{route}/{rule}")).unwrap_or_default().into()
            }
        }
    }

    /// Connections have it as well as requests.
    pub fn is_of_connection(&self) -> bool {
        matches!(self, Key::Identity | Key::Namespace | Key::Address { .. })
    }

    /// Of a request, or of a connection, which has no head.
    pub fn hash<H: Hasher>(&self, head: Option<&RequestHead<'_>>, cx: &Cx<'_>, to: &mut H) {
        match self {
            Key::Identity => cx.identity.hash(to),
            Key::Namespace => cx.identity.map(|it| &it.namespace).hash(to),
            Key::Address { ipv4, ipv6 } => masked(cx.address, *ipv4, *ipv6).0.hash(to),
            Key::Route => cx.route.hash(to),
            Key::Claim(path) => {
                if let Some(claims) = cx.claims {
                    claims.texts(path).hash(to);
                }
                to.write_u8(0xff);
            }
            Key::Header(name) => {
                let values = head.into_iter().flat_map(|head| head.headers.get_all(name));
                values.for_each(|value| value.as_bytes().hash(to));
                to.write_u8(0xff);
            }
        }
    }
}

/// The network of an address, and the length of its prefix. An IPv4 address in IPv6's form is the same as in its own.
fn masked(address: IpAddr, ipv4: u8, ipv6: u8) -> (IpAddr, u8) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(ipv4)).unwrap_or(0);
            (IpAddr::V4((address.to_bits() & mask).into()), ipv4)
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(ipv6)).unwrap_or(0);
            (IpAddr::V6((address.to_bits() & mask).into()), ipv6)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart_as_far_as_the_prefix() {
        for (address, ipv4, ipv6, expected) in [
            ("10.1.2.3", 32, 0, "10.1.2.3"),
            ("10.1.2.3", 24, 0, "10.1.2.0"),
            ("10.1.2.3", 0, 0, "0.0.0.0"),
            ("::ffff:10.1.2.3", 16, 128, "10.1.0.0"),
            ("2001:db8:1:2:3::4", 0, 64, "2001:db8:1:2::"),
            ("2001:db8::4", 0, 128, "2001:db8::4"),
            ("2001:db8::4", 0, 0, "::"),
        ] {
            let (found, _) = masked(address.parse().unwrap(), ipv4, ipv6);
            assert_eq!(found.to_string(), expected, "{address} {ipv4} {ipv6}");
        }
    }
}
