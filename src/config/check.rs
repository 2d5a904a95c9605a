//! What several settings may be: ranges, and the forms of texts.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
pub(super) const KIB: usize = 1024;
pub(super) const MIB: usize = 1024 * KIB;
pub(super) const GIB: usize = 1024 * MIB;
/// Below it, a single lost packet counts as a failure.
pub(super) const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=MINUTE;
/// More than any machine has; guards against a number meant for another key.
pub(super) const THREADS: RangeInclusive<usize> = 1..=256;
pub(super) const PERCENT: RangeInclusive<usize> = 1..=100;
/// The number of ports of one address bounds what one workload can use.
pub(super) const CONNECTIONS: RangeInclusive<usize> = 1..=1_000_000;
/// More than any node has.
pub(super) const MAX_BYTES: usize = 1024 * GIB;

/// Every namespace.
const ALL: &str = "*";

/// A DNS subdomain as Kubernetes names objects (RFC 1123).
pub(super) fn dns_name(text: &str) -> Result<(), String> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    if text.len() <= 253 && text.split('.').all(label) {
        return Ok(());
    }
    Err(format!(
        "{text:?} is not a DNS name; use lower case letters, digits, `-` and `.` (RFC 1123)"
    ))
}

pub(super) fn dns_name_or_empty(text: &str) -> Result<(), String> {
    if text.is_empty() { Ok(()) } else { dns_name(text) }
}

pub(super) fn namespace_or_all(text: &str) -> Result<(), String> {
    if text == ALL { Ok(()) } else { dns_name(text) }
}

/// A cluster's name is an identifier of the operator's, not a DNS name: Istio's own default has a capital.
pub(super) fn identifier(text: &str) -> Result<(), String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !text.is_empty() && text.len() <= 253 && text.bytes().all(good) {
        return Ok(());
    }
    Err(format!("{text:?} is not a name; use letters, digits, `-`, `_` and `.`"))
}

/// What an issuer needs: a host with a port, and TLS wherever a token would cross a network.
pub(super) fn ca_address(text: &str) -> Result<(), String> {
    let wrong = |why: &str| {
        Err(format!("{text:?} {why}; write it as \"https://istiod.istio-system.svc:15012\""))
    };
    let Ok(uri) = text.parse::<http::Uri>() else { return wrong("is not an address") };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let loopback =
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if loopback => {}
        Some("http") => return wrong("would send the agent's token in plain text"),
        _ => return wrong("does not begin with https://"),
    }
    if uri.port_u16().is_none_or(|port| port == 0) {
        return wrong("has no port");
    }
    let bare = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
    if bare { Ok(()) } else { wrong("goes on after the port") }
}

/// A host with a port, such as a collector's.
pub(super) fn host_and_port_or_empty(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let wrong = |why: &str| Err(format!("{text:?} {why}; write it as \"collector.example:4317\""));
    if text.contains("://") {
        return wrong("has a scheme, which the protocol's setting names");
    }
    let Ok(authority) = text.parse::<http::uri::Authority>() else {
        return wrong("is not a host with a port");
    };
    match authority.port_u16() {
        Some(port) if port > 0 && !text.contains('@') => Ok(()),
        _ => wrong("has no port"),
    }
}

/// A network, or one address.
pub(super) fn network(text: &str) -> Result<(), String> {
    let read = text.parse::<IpNet>().is_ok() || text.parse::<IpAddr>().is_ok();
    let wrong = || format!("{text:?} is not a CIDR, such as \"10.0.0.0/8\" or \"fd00::/8\"");
    read.then_some(()).ok_or_else(wrong)
}

/// A protocol of `Upgrade` (RFC 9110, 7.8) that is not HTTP.
pub(super) fn upgrade(text: &str) -> Result<(), String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_token) {
        return Err(format!("{text:?} is not the name of a protocol, such as \"websocket\""));
    }
    let name = text.split('/').next().unwrap_or_default().to_ascii_lowercase();
    if matches!(name.as_str(), "h2c" | "h2" | "http") {
        return Err(format!("{text:?} carries further requests, which no policy would judge"));
    }
    Ok(())
}
