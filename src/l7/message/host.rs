//! Which host a request may name: a uri-host with an optional port (RFC 9110, 7.2; RFC 3986, 3.2.2), in the one form
//! that routes, policies and applications read alike. Both halves ask here, for every version of HTTP.
//!
//! RFC 3986 admits more than any name or address needs. What servers read differently is refused, so that nobody can
//! name one host to a policy and another to an application: see `docs/policies.md` for the list.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};

/// The longest name that DNS has, in bytes, with the root's dot (RFC 1035, 2.3.4).
const LONGEST: usize = 255;

/// The port that `http` means when none is said.
const HTTP_PORT: u16 = 80;

/// The host of a request as it arrived, with its port; or why the request is answered 400. HTTP/1.0 need not name one
/// (RFC 1945, 10; RFC 9112, 3.3): then it is the address that the client `dialled`, as a URL would name it.
pub(in crate::l7) fn of_request<B>(
    request: &Request<B>,
    dialled: Option<SocketAddr>,
) -> Result<HeaderValue, &'static str> {
    let uri = request.uri();
    check_form(request.method(), uri, request.version())?;
    let named = header(request.headers())?;
    let host = match (uri.authority(), named) {
        (Some(authority), Some(named)) => {
            // RFC 9113, 8.3.1, and for absolute targets what the two RFCs 9112, 3.2 and 3.2.2, say together.
            if !named.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) {
                return Err("the host header is another than the target's");
            }
            HeaderValue::from_str(authority.as_str()).map_err(|_| "bad authority")?
        }
        (Some(authority), None) if request.version() != Version::HTTP_11 => {
            HeaderValue::from_str(authority.as_str()).map_err(|_| "bad authority")?
        }
        (None, Some(named)) => named.clone(),
        (None, None) if request.version() == Version::HTTP_10 => {
            of_address(dialled.ok_or("no host header")?)?
        }
        (_, None) => return Err("no host header"),
    };
    check(host.as_bytes())?;
    Ok(host)
}

/// The host of `http://address`.
fn of_address(address: SocketAddr) -> Result<HeaderValue, &'static str> {
    let text = match (address, address.port()) {
        (SocketAddr::V6(it), HTTP_PORT) => format!("[{}]", it.ip()),
        (SocketAddr::V6(it), port) => format!("[{}]:{port}", it.ip()),
        (SocketAddr::V4(it), HTTP_PORT) => it.ip().to_string(),
        (address, _) => address.to_string(),
    };
    HeaderValue::try_from(text).map_err(|_| "no host header")
}

/// The forms of a target (RFC 9112, 3.2): origin, absolute, and `*` for OPTIONS. That of CONNECT is not served.
fn check_form(method: &Method, uri: &Uri, version: Version) -> Result<(), &'static str> {
    if method == Method::CONNECT {
        return Err("CONNECT is not served");
    }
    match uri.scheme_str() {
        None if uri.authority().is_some() && version != Version::HTTP_2 => {
            return Err("the target is an authority, which is for CONNECT");
        }
        None => {}
        Some(scheme)
            if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") => {}
        Some(_) => return Err("the target's scheme is neither http nor https"),
    }
    if uri.path() == "*" && method != Method::OPTIONS {
        return Err("the target * is for OPTIONS");
    }
    Ok(())
}

/// The only host header, if there is one.
fn header(headers: &HeaderMap) -> Result<Option<&HeaderValue>, &'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err("more than one host header"),
    }
}

/// Whether exactly one host is named, and one that a request may name.
pub(in crate::l7) fn is_named(headers: &HeaderMap) -> bool {
    matches!(header(headers), Ok(Some(host)) if check(host.as_bytes()).is_ok())
}

/// The predicate: a host with an optional port.
fn check(host: &[u8]) -> Result<(), &'static str> {
    let text = str::from_utf8(host).map_err(|_| "the host is not ASCII")?;
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or("the host's bracket is not closed")?;
        address.parse::<Ipv6Addr>().map_err(|_| "the host in brackets is no IPv6 address")?;
        return match port.strip_prefix(':') {
            Some(port) => check_port(port),
            None if port.is_empty() => Ok(()),
            None => Err("something follows the host's bracket"),
        };
    }
    match text.split_once(':') {
        Some((name, port)) => check_name(name).and_then(|()| check_port(port)),
        None => check_name(text),
    }
}

/// A name as DNS has them, an underscore included, or an IPv4 address.
fn check_name(name: &str) -> Result<(), &'static str> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    if name.is_empty() {
        return Err("the host is empty");
    }
    if name.len() > LONGEST {
        return Err("the host is longer than any name");
    }
    if !name.bytes().all(is_name) {
        return Err("the host has characters that no name has");
    }
    // One dot at the end is the root's: clients write it to keep resolvers from searching.
    let absolute = name.strip_suffix('.').unwrap_or(name);
    if absolute.split('.').any(str::is_empty) {
        return Err("the host has an empty label");
    }
    // 010.0.0.1, 10.1 and 0xa000001 are addresses to some (URL Standard, "ends in a number").
    let last = absolute.rsplit('.').next().unwrap_or_default();
    let digits = |text: &str, hex: bool| {
        text.bytes().all(|byte| byte.is_ascii_digit() || hex && byte.is_ascii_hexdigit())
    };
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let is_number = digits(last, false) || hex.is_some_and(|rest| digits(rest, true));
    if is_number && name.parse::<Ipv4Addr>().is_err() {
        return Err("the host is an IPv4 address in a form that servers read differently");
    }
    Ok(())
}

/// 1 to 65535, in its only form: one that is empty or has leading zeros would not be equal to itself in a policy.
fn check_port(port: &str) -> Result<(), &'static str> {
    let is_plain = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
    match port.parse::<u16>() {
        Ok(1..) if is_plain => Ok(()),
        _ => Err("the host's port is not a number from 1 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_an_optional_port() {
        for host in [
            "details",
            "DETAILS:80",
            "details.bookinfo.svc.cluster.local.",
            "details.:9080",
            "my_service",
            "xn--caf-dma.example",
            "1password.example",
            "10.0.0.1",
            "10.0.0.1:65535",
            "[::1]",
            "[fd00::1]:8080",
            "[::ffff:10.0.0.1]",
            "a.b-c.d~e",
        ] {
            assert_eq!(check(host.as_bytes()), Ok(()), "{host}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let long = "a".repeat(LONGEST + 1);
        for host in [
            "",
            " ",
            " details",
            "details ",
            "de tails",
            "details\t",
            "details\x01",
            "details\0",
            "user@details",
            "user:pw@details:80",
            "details@",
            "details, reviews",
            "details,reviews",
            "details;reviews",
            "details/",
            "details/admin",
            "details?x",
            "details#x",
            "details\\reviews",
            "http://details",
            "details%2e",
            "det%61ils",
            "caf\u{e9}",
            "details\u{3002}",
            "details..",
            ".",
            "..",
            ".details",
            "a..b",
            "details:",
            ":80",
            ":",
            "details:0",
            "details:080",
            "details:65536",
            "details:99999999999999999999",
            "details:-1",
            "details:+80",
            "details: 80",
            "details:80:80",
            "details:http",
            "::1",
            "[::1",
            "::1]",
            "[]",
            "[::1]80",
            "[::1]:",
            "[::1].",
            "[::1%25eth0]",
            "[fe80::1%eth0]",
            "[10.0.0.1]",
            "[v1.x]",
            "[details]",
            "010.0.0.1",
            "10.1",
            "10.0.0.1.",
            "10.0.0.256",
            "1",
            "0x7f000001",
            "0x",
            "a.0x7f",
            "2130706433",
            "*",
            "*.details",
            "details!",
            "{details}",
            "\"details\"",
            &long,
        ] {
            assert!(check(host.as_bytes()).is_err(), "{host:?}");
        }
        assert!(check(b"caf\xe9").is_err());
    }

    fn request(version: Version, method: &str, uri: &str, hosts: &[&'static str]) -> Request<()> {
        let mut request =
            Request::builder().version(version).method(method).uri(uri).body(()).unwrap();
        for host in hosts {
            request.headers_mut().append(HOST, HeaderValue::from_static(host));
        }
        request
    }

    #[test]
    fn target_and_header_name_one_host() {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        for (version, method, uri, hosts, expected) in [
            (one, "GET", "/", &["a:80"][..], Some("a:80")),
            (Version::HTTP_10, "GET", "/", &["a"], Some("a")),
            (Version::HTTP_10, "GET", "/", &[], Some("10.96.0.1")),
            (Version::HTTP_10, "GET", "/", &["a", "a"], None),
            (Version::HTTP_10, "GET", "http://a/x", &[], Some("a")),
            (one, "GET", "/", &[], None),
            (one, "GET", "/", &["a", "a"], None),
            (one, "GET", "/", &["a", "b"], None),
            (one, "GET", "http://a/x", &["A"], Some("a")),
            (one, "GET", "http://a/x", &["b"], None),
            (one, "GET", "http://a/x", &["a:80"], None),
            (one, "GET", "http://a/x", &[], None),
            (one, "GET", "http://u@a/x", &["a"], None),
            (one, "GET", "http://u@a/x", &["u@a"], None),
            (one, "GET", "https://a", &["a"], Some("a")),
            (one, "GET", "ftp://a/x", &["a"], None),
            (one, "GET", "a:80", &["a:80"], None),
            (one, "CONNECT", "a:80", &["a:80"], None),
            (one, "OPTIONS", "*", &["a"], Some("a")),
            (one, "GET", "*", &["a"], None),
            (two, "GET", "http://a/x", &[], Some("a")),
            (two, "GET", "https://a:1/x", &["a:1"], Some("a:1")),
            (two, "GET", "http://a/x", &["b"], None),
            (two, "GET", "/x", &["a"], Some("a")),
            (two, "GET", "/x", &[], None),
            (two, "CONNECT", "a:80", &[], None),
        ] {
            let dialled = "10.96.0.1:80".parse().ok();
            let host = of_request(&request(version, method, uri, hosts), dialled);
            let host = host.ok().map(|host| host.to_str().unwrap().to_owned());
            assert_eq!(host.as_deref(), expected, "{version:?} {method} {uri} {hosts:?}");
        }
    }

    #[test]
    fn an_address_is_named_as_in_a_url() {
        for (address, host) in [
            ("10.0.0.1:80", "10.0.0.1"),
            ("10.0.0.1:8080", "10.0.0.1:8080"),
            ("[fd00::1]:80", "[fd00::1]"),
            ("[fd00::1]:9080", "[fd00::1]:9080"),
        ] {
            let named = of_address(address.parse().unwrap()).unwrap();
            assert_eq!(named, host);
            assert_eq!(check(named.as_bytes()), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn what_passes_has_one_reading(host in "[a-cA-C0-9x.:\\[\\]@,%~_ -]{0,12}") {
            if check(host.as_bytes()).is_ok() {
                let authority: http::uri::Authority = host.parse().unwrap();
                prop_assert_eq!(authority.as_str(), &host);
                let port = authority.port().map_or(String::new(), |port| format!(":{port}"));
                prop_assert_eq!(format!("{}{port}", authority.host()), host);
            }
        }
    }
}
