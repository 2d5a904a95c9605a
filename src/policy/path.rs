//! The ways in which a path can be read.
//!
//! Servers differ: some resolve dot segments, some decode `%2F`, some merge slashes. Istio normalises the path that it
//! forwards; we forward what the client sent, and judge every reading of it (Istio, "Path normalization").

use std::borrow::Cow;

/// A path without its query: as sent, and, when that can be read differently, resolved and fully decoded.
pub(super) struct Readings<'a> {
    sent: &'a str,
    others: Vec<String>,
}

impl<'a> Readings<'a> {
    pub(super) fn of(path_and_query: &'a str) -> Self {
        let end = path_and_query.find(['?', '#']).unwrap_or(path_and_query.len());
        let sent = &path_and_query[..end];
        if !is_ambiguous(sent) {
            return Self { sent, others: Vec::new() };
        }
        let mut others = Vec::new();
        let resolved = resolve(&decode(sent, is_unreserved), false);
        let decoded = resolve(&decode(sent, |_| true), true);
        for reading in [resolved, decoded] {
            if reading != sent && !others.contains(&reading) {
                others.push(reading);
            }
        }
        Self { sent, others }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.sent).chain(self.others.iter().map(String::as_str))
    }
}

/// Something in it is encoded, a backslash, an empty segment, a dot segment or a path parameter.
fn is_ambiguous(path: &str) -> bool {
    path.contains(['%', '\\', ';']) || path.contains("//") || path.contains("/.")
}

/// Percent-decodes the octets that `wanted` takes.
fn decode(path: &str, wanted: impl Fn(u8) -> bool) -> String {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let octet = (byte == b'%').then(|| octet(bytes.get(at + 1..at + 3)?)).flatten();
        match octet.filter(|octet| wanted(*octet)) {
            Some(octet) => {
                decoded.push(octet);
                at += 3;
            }
            None => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    match String::from_utf8_lossy(&decoded) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}

fn octet(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits).ok()?;
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(())?;
    u8::from_str_radix(digits, 16).ok()
}

fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-._~".contains(&octet)
}

/// Resolves dot segments (RFC 3986, 5.2.4), backslashes taken for slashes; `merge` also drops empty segments and path
/// parameters (`;x`).
fn resolve(path: &str, merge: bool) -> String {
    let path = path.replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    let mut trailing = false;
    for segment in path.strip_prefix('/').unwrap_or(&path).split('/') {
        let segment = if merge { segment.split(';').next().unwrap_or_default() } else { segment };
        trailing = matches!(segment, "" | "." | "..");
        match segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            "" if merge => {}
            other => segments.push(other),
        }
    }
    let mut resolved = format!("/{}", segments.join("/"));
    if trailing && !resolved.ends_with('/') {
        resolved.push('/');
    }
    resolved
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn readings(path: &str) -> Vec<String> {
        Readings::of(path).iter().map(str::to_owned).collect()
    }

    #[test]
    fn a_plain_path_has_one_reading() {
        assert_eq!(readings("/a/b?c=/../d"), ["/a/b"]);
        assert_eq!(readings("/"), ["/"]);
        assert_eq!(readings("*"), ["*"]);
        assert_eq!(readings(""), [""]);
    }

    #[test]
    fn every_way_to_hide_a_path_is_read() {
        for hidden in [
            "/x/../admin",
            "/x/%2e%2e/admin",
            "/./admin",
            "//admin",
            "/%61dmin",
            "/x/..%2Fadmin",
            "\\admin",
            "/admin;v=1",
            "/%5Cadmin",
            "/x/..;/admin",
        ] {
            let readings = readings(hidden);
            assert!(readings.contains(&"/admin".to_string()), "{hidden}: {readings:?}");
        }
    }

    #[test]
    fn trailing_slashes_stay() {
        assert_eq!(readings("/a/./"), ["/a/./", "/a/"]);
        assert_eq!(readings("/a/.."), ["/a/..", "/"]);
    }

    proptest! {
        #[test]
        fn never_panics_and_resolving_is_idempotent(path in "[/a.%2eEfF;\\\\?é]{0,40}") {
            let _ = Readings::of(&path);
            for merge in [false, true] {
                let once = resolve(&path, merge);
                prop_assert_eq!(resolve(&once, merge), once);
            }
        }
    }
}
