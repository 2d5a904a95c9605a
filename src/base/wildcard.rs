//! Which names a host of the form `*.example.org` covers: the one decision about it, of what clients claim in HTTP and in TLS.
//!
//! As in Istio, whose DNS and routes agree on it: one label or more in place of the asterisk, and never the bare domain.

use std::borrow::Cow;

/// A name's greatest length, in bytes, without the root's dot (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// The name as it is looked up, in lower case and without the root's dot, if `wildcard` covers it. `wildcard` is in lower case and
/// begins with `*.`; anything else covers nothing. An internationalized name counts in its ASCII form only (`xn--…`).
pub fn covered<'a>(wildcard: &str, name: &'a str) -> Option<Cow<'a, str>> {
    let domain = wildcard.strip_prefix('*').filter(|it| it.starts_with('.') && it.len() > 1)?;
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > LONGEST_NAME || !name.split('.').all(is_label) {
        return None;
    }
    let name = match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    };
    name.ends_with(domain).then_some(name)
}

fn is_label(label: &str) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=LONGEST_LABEL).contains(&label.len()) && label.bytes().all(is_of_name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_wildcard_covers_one_label_or_more_and_nothing_that_can_be_read_in_two_ways() {
        let long = format!("{}.example.org", "a".repeat(63));
        let longer = format!("{}.example.org", "a".repeat(64));
        let longest = format!("{}example.org", "abc.".repeat(60));
        for (name, expected) in [
            ("a.example.org", Some("a.example.org")),
            ("a.b.c.example.org", Some("a.b.c.example.org")),
            ("A.Example.ORG", Some("a.example.org")),
            ("a.example.org.", Some("a.example.org")),
            ("xn--caf-dma.example.org", Some("xn--caf-dma.example.org")),
            ("_sip.example.org", Some("_sip.example.org")),
            ("1.example.org", Some("1.example.org")),
            (long.as_str(), Some(long.as_str())),
            (longest.as_str(), Some(longest.as_str())),
            ("example.org", None),
            (".example.org", None),
            ("..example.org", None),
            ("a..example.org", None),
            ("a.example.org..", None),
            ("badexample.org", None),
            ("a.example.org.evil", None),
            ("a.example.orgx", None),
            ("*.example.org", None),
            ("*", None),
            ("", None),
            (".", None),
            ("a.example.org:80", None),
            ("user@a.example.org", None),
            ("http://a.example.org", None),
            ("a/.example.org", None),
            ("a\\.example.org", None),
            ("a%2eexample.org", None),
            ("a b.example.org", None),
            ("a\0.example.org", None),
            ("a\n.example.org", None),
            ("caf\u{e9}.example.org", None),
            ("a\u{3002}example.org", None),
            ("10.0.0.1", None),
            ("[::1]", None),
            ("::1", None),
            (longer.as_str(), None),
        ] {
            assert_eq!(covered("*.example.org", name).as_deref(), expected, "{name:?}");
        }
        let too_long = format!("{}example.org", "abc.".repeat(61));
        assert!(too_long.len() > LONGEST_NAME && covered("*.example.org", &too_long).is_none());
        for wildcard in ["example.org", "*example.org", "*", "*.", ""] {
            assert_eq!(covered(wildcard, "a.example.org"), None, "{wildcard:?}");
        }
    }

    proptest! {
        /// Whatever a client claims, what is covered is one name below the domain, and is read as the same name again.
        #[test]
        fn what_is_covered_is_a_name_below(name in "[a-cA-C.*@:/\\x00-\\x20-]{0,6}(\\.Example\\.org)?\\.?") {
            if let Some(covered_name) = covered("*.example.org", &name) {
                prop_assert!(covered_name.ends_with(".example.org"));
                prop_assert!(!covered_name.contains("..") && !covered_name.starts_with('.'));
                prop_assert_eq!(covered("*.example.org", &covered_name), Some(covered_name.clone()));
            }
        }
    }
}
