//! Comparing the host of a request, without building texts.

use std::net::Ipv6Addr;

use crate::model::StringMatch;

/// Whether the host fits, without regard to case (RFC 4343; CVE-2021-39155), and with or without its port: `a.com`
/// means `a.com:8080` too. Istio compares the port as well, so that a DENY for `a.com` misses `a.com:8080` and its pages
/// advise to list both; whoever lists both gets the same here.
pub(super) fn fits(value: &StringMatch, host: &str) -> bool {
    matches(value, host) || without_port(host).is_some_and(|name| matches(value, name))
}

/// Whether some server may take the host for one that fits: without user information and the root's dot too.
pub(super) fn may_fit(value: &StringMatch, host: &str) -> bool {
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let (name, port) = match without_port(host) {
        Some(name) => (name, &host[name.len()..]),
        None => (host, ""),
    };
    fits(value, host)
        || name.strip_suffix('.').is_some_and(|name| fits(value, &format!("{name}{port}")))
}

fn matches(value: &StringMatch, host: &str) -> bool {
    let host = host.as_bytes();
    // Most are written alike, which is quick to see.
    let equal = |one: &[u8], other: &[u8]| one == other || one.eq_ignore_ascii_case(other);
    match value {
        StringMatch::Present => !host.is_empty(),
        // Templates are for paths; elsewhere they are what they say.
        StringMatch::Exact(text) | StringMatch::Template(text) => {
            equal(host, text.as_bytes()) || is_same_address(text, host)
        }
        StringMatch::Prefix(text) => {
            host.get(..text.len()).is_some_and(|start| equal(start, text.as_bytes()))
        }
        StringMatch::Suffix(text) => {
            let start = host.len().checked_sub(text.len());
            start.and_then(|at| host.get(at..)).is_some_and(|end| equal(end, text.as_bytes()))
        }
    }
}

/// An IPv6 address has many spellings (RFC 5952, 2).
fn is_same_address(one: &str, other: &[u8]) -> bool {
    if !one.starts_with('[') || !other.starts_with(b"[") {
        return false;
    }
    let split = |text: &str| {
        let (address, port) = text.strip_prefix('[')?.split_once(']')?;
        Some((address.parse::<Ipv6Addr>().ok()?, port.to_owned()))
    };
    let other = str::from_utf8(other).ok().and_then(split);
    other.is_some() && split(one) == other
}

fn without_port(host: &str) -> Option<&str> {
    let (name, port) = host.rsplit_once(':')?;
    // The last group of an IPv6 address is not a port.
    let separate = !name.contains(':') || name.ends_with(']');
    (separate && port.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn case_and_port_do_not_matter() {
        let exact = |text: &str| StringMatch::Exact(text.into());
        let suffix = StringMatch::Suffix(".example".into());
        for (value, host, expected) in [
            (exact("Shop.example"), "shop.EXAMPLE", true),
            (exact("shop.example"), "shop.example:8080", true),
            (exact("shop.example"), "shop.example:", true),
            (exact("shop.example:80"), "shop.example:80", true),
            (exact("shop.example:80"), "shop.example", false),
            (exact("shop.example"), "shop.example.evil", false),
            (exact("shop.example"), "shop.example:80.evil", false),
            (exact("[::1]"), "[::1]:80", true),
            (exact("::"), "::1", false),
            (exact("[::1]"), "[0:0::1]:80", true),
            (exact("[::1]:80"), "[0::1]:80", true),
            (exact("[::1]:80"), "[0::1]:81", false),
            (suffix.clone(), "shop.Example:80", true),
            (suffix, "example", false),
            (StringMatch::Prefix("shop.example:".into()), "SHOP.example:80", true),
            (StringMatch::Present, "", false),
            (StringMatch::Present, "a", true),
        ] {
            assert_eq!(fits(&value, host), expected, "{value:?} {host}");
        }
    }

    #[test]
    fn disguises_are_seen_but_not_admitted() {
        let value = StringMatch::Exact("shop.example".into());
        for host in ["shop.example.", "shop.example.:80", "x@shop.example", "x:y@shop.example:80"] {
            assert!(may_fit(&value, host) && !fits(&value, host), "{host}");
        }
        for (value, host) in [
            (StringMatch::Exact("shop.example:80".into()), "SHOP.example.:80"),
            (StringMatch::Prefix("shop.example:".into()), "shop.example.:80"),
            (StringMatch::Suffix(".example:80".into()), "shop.example.:80"),
        ] {
            assert!(may_fit(&value, host) && !fits(&value, host), "{host}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_fitting_implies_maybe(host in ".{0,20}", text in ".{0,6}") {
            let text: crate::base::Str = text.into();
            for value in [
                StringMatch::Exact(text.clone()),
                StringMatch::Prefix(text.clone()),
                StringMatch::Suffix(text.clone()),
            ] {
                // User information hides the start of the host, which is not the host's.
                let plain = !host.contains('@');
                prop_assert!(!(plain && fits(&value, &host)) || may_fit(&value, &host));
            }
        }
    }
}
