//! Hosts that are written otherwise than requests may name them (`docs/policies.md`, "HTTP").

use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest that a request may name.
const LONGEST: usize = 255;

/// What is odd about a whole host, with or without a port.
pub(super) fn odd(text: &str) -> Option<String> {
    let told = |why: &str| Some(format!("{text:?}: {why}"));
    if text.len() > LONGEST {
        return Some(format!(
            "a host has at most {LONGEST} characters, and one here has {}",
            text.len()
        ));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let address = rest.split_once(']').map(|(address, _)| address);
        let fits = address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
        return if fits { None } else { told("in brackets stands an IPv6 address") };
    }
    if text.contains(['[', ']']) {
        return told("brackets stand around an IPv6 address");
    }
    if text.matches(':').count() > 1 {
        return told("requests name an IPv6 address in brackets");
    }
    let name = text.split_once(':').map_or(text, |(name, _)| name);
    let last = name.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let number = last.strip_prefix("0x").unwrap_or(last);
    let numeric = !number.is_empty() && last.starts_with(|it: char| it.is_ascii_digit());
    let numeric = numeric
        && number.bytes().all(|it| it.is_ascii_hexdigit())
        && (last != number || number.bytes().all(|it| it.is_ascii_digit()));
    match numeric && name.trim_end_matches('.').parse::<Ipv4Addr>().is_err() {
        true => told("an IPv4 address has four decimal numbers"),
        false => None,
    }
}
