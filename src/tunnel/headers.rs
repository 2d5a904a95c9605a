//! The request that opens a stream, as HTTP headers: `:authority`, `forwarded` and `baggage`.
//!
//! Input from a peer is bounded, and ambiguous input counts as absent: of two values where one is expected, one could
//! be an agent's and the other an application's.

mod baggage;
mod forwarded;

use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, Method, Request, Uri, Version, request};

pub use self::baggage::Baggage;
use self::forwarded::Forwarded;
use super::ConnectRequest;

pub(super) const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
/// The longest value of `baggage` that is kept, in bytes: what W3C Baggage requires every platform to carry.
pub(super) const MAX_BAGGAGE: usize = 8192;
/// The longest name of a host, in bytes (RFC 1035, 2.3.4).
const MAX_HOST: usize = 253;

impl ConnectRequest {
    pub(super) fn to_http(&self) -> Result<Request<()>, http::Error> {
        let uri = Uri::builder().authority(self.authority.as_str()).build()?;
        let mut request =
            Request::builder().method(Method::CONNECT).version(Version::HTTP_2).uri(uri);
        let forwarded = Forwarded { client: self.forwarded_for, host: self.forwarded_host.clone() };
        if !forwarded.is_empty() {
            request = request.header(FORWARDED, forwarded.to_string());
        }
        if let Some(baggage) = &self.baggage {
            request = request.header(BAGGAGE, baggage);
        }
        request.body(())
    }

    /// `None` if it is not a CONNECT to an address and port or a host and port.
    pub(super) fn from_http(head: &request::Parts) -> Option<Self> {
        let is_plain_connect = head.method == Method::CONNECT
            && head.uri.scheme().is_none()
            && head.extensions.get::<h2::ext::Protocol>().is_none();
        let authority = head.uri.authority()?.as_str();
        if !is_plain_connect || !is_authority(authority) {
            return None;
        }
        let forwarded =
            single(&head.headers, &FORWARDED).and_then(Forwarded::parse).unwrap_or_default();
        let baggage =
            single(&head.headers, &BAGGAGE).filter(|baggage| baggage.len() <= MAX_BAGGAGE);
        Some(Self {
            authority: authority.to_owned(),
            forwarded_for: forwarded.client,
            forwarded_host: forwarded.host,
            baggage: baggage.map(str::to_owned),
        })
    }
}

/// Parses the `ip:port` of an authority (`10.0.0.1:80`, `[fd00::1]:80`). Host names, scopes, user names and port 0 are
/// rejected; an IPv4-mapped address becomes IPv4.
pub fn parse_authority(authority: &str) -> Option<(IpAddr, u16)> {
    if authority.contains('%') {
        return None;
    }
    let address: SocketAddr = authority.parse().ok()?;
    (address.port() != 0).then(|| (address.ip().to_canonical(), address.port()))
}

fn is_authority(authority: &str) -> bool {
    parse_authority(authority).is_some()
        || authority.rsplit_once(':').is_some_and(|(host, port)| {
            is_host(host)
                && port.bytes().all(|byte| byte.is_ascii_digit())
                && port.parse::<u16>().is_ok_and(|port| port != 0)
        })
}

/// The characters of a host name, and `_` and `*`, which names of services may contain.
fn is_host(text: &str) -> bool {
    (1..=MAX_HOST).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte))
}

/// The value of a header that was sent exactly once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::Str;

    #[test]
    fn authorities() {
        for (text, expected) in [
            ("10.0.0.1:80", Some(("10.0.0.1", 80))),
            ("[fd00::1]:65535", Some(("fd00::1", 65535))),
            ("[::ffff:10.0.0.1]:80", Some(("10.0.0.1", 80))),
            ("10.0.0.1", None),
            ("10.0.0.1:0", None),
            ("10.0.0.1:65536", None),
            ("10.0.0.1:+80", None),
            ("010.0.0.1:80", None),
            ("fd00::1:80", None),
            ("[fe80::1%1]:80", None),
            ("user@10.0.0.1:80", None),
            ("reviews.bookinfo:80", None),
            (" 10.0.0.1:80", None),
            ("", None),
        ] {
            let expected = expected.map(|(ip, port)| (ip.parse::<IpAddr>().unwrap(), port));
            assert_eq!(parse_authority(text), expected, "{text}");
        }
        for (text, expected) in [
            ("10.0.0.1:80", true),
            ("reviews.bookinfo.svc.cluster.local:9080", true),
            ("reviews", false),
            ("reviews:", false),
            ("reviews:+80", false),
            (":80", false),
            ("user@reviews:80", false),
            ("a:b:80", false),
        ] {
            assert_eq!(is_authority(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_sent_twice_does_not_count() {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri("10.0.0.1:80")
            .header(FORWARDED, "for=\"10.0.0.2:1\";host=a")
            .header(FORWARDED, "for=\"10.0.0.2:1\";host=b")
            .header(BAGGAGE, "a=b")
            .header(BAGGAGE, "c=d");
        let (head, ()) = request.body(()).unwrap().into_parts();
        let request = ConnectRequest::from_http(&head).unwrap();
        assert_eq!(
            (request.forwarded_for, request.forwarded_host, request.baggage),
            (None, None, None)
        );
    }

    proptest! {
        #[test]
        fn requests_survive_the_wire(
            address in any::<SocketAddr>(),
            port in 1u16..,
            host in proptest::option::of("[a-z0-9.-]{1,40}"),
            baggage in proptest::option::of("[ -~]{0,60}"),
        ) {
            let address = SocketAddr::new(address.ip().to_canonical(), port);
            let request = ConnectRequest {
                authority: address.to_string(),
                forwarded_for: Some(address),
                forwarded_host: host.map(Str::from),
                baggage,
            };
            let (head, ()) = request.to_http().unwrap().into_parts();
            prop_assert_eq!(ConnectRequest::from_http(&head), Some(request.clone()));
            prop_assert_eq!(
                parse_authority(&request.authority),
                Some((address.ip(), address.port()))
            );
        }

        #[test]
        fn authorities_never_panic(text in "[\\[\\]0-9a-f:.%@]{0,40}") {
            if let Some((ip, port)) = parse_authority(&text) {
                let printed = SocketAddr::new(ip, port).to_string();
                prop_assert_eq!(parse_authority(&printed), Some((ip, port)));
            }
        }
    }
}
