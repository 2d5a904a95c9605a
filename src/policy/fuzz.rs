//! What fuzzers try on what policies compare: paths and hosts that clients choose, against models of what servers make
//! of them. A value that refuses must be seen in whatever some server reads; one that admits must fit every reading.

use super::path::Readings;
use super::{host, text};
use crate::base::path::canonical;
use crate::model::StringMatch;

/// A path: what a DENY sees of it, if a server that decodes, cleans, merges or cuts it arrives at the value.
pub fn path(bytes: &[u8]) {
    let Ok(sent) = std::str::from_utf8(bytes) else { return };
    let readings = Readings::of(sent);
    let path = sent.find(['?', '#']).map_or(sent, |end| &sent[..end]);
    if path.starts_with('/') {
        for (at, (server, read)) in servers(path).into_iter().enumerate() {
            // Values of policies are in the canonical spelling; a % that was decoded is written %25.
            let value = if at == 0 { read.clone() } else { read.replace('%', "%25") };
            let Ok(canonical) = canonical(&value) else { continue };
            let exact = StringMatch::Exact(canonical.as_ref().into());
            assert!(
                readings.any(&exact),
                "{server} reads {sent:?} as {read:?}, and a DENY misses it"
            );
            // An ALLOW for something else must not take it, unless it is what was sent to the letter.
            let other = StringMatch::Prefix("/public/".into());
            if readings.all(&other) {
                assert!(
                    text::matches(&other, &read),
                    "{server} reads {sent:?} as {read:?}: admitted"
                );
            }
        }
    }
    let Ok(path) = canonical(path) else { return };
    for value in values(&path) {
        assert!(!readings.all(&value) || readings.any(&value), "{value:?} {sent:?}");
    }
    disguised(&path, &readings);
}

/// Unreserved characters mean the same with and without an escape (RFC 3986, 6.2.2.2).
fn disguised(path: &str, readings: &Readings<'_>) {
    for which in 1..=3 {
        let disguised: String = path.char_indices().fold(String::new(), |mut text, (at, c)| {
            if at % which == 0
                && !is_in_escape(path, at)
                && (c.is_ascii_alphanumeric() || "-._~".contains(c))
            {
                text += &format!("%{:02x}", u32::from(c));
            } else {
                text.push(c);
            }
            text
        });
        let other = Readings::of(&disguised);
        for value in values(path) {
            assert!(
                !readings.any(&value) || other.any(&value),
                "{value:?}: {path:?} {disguised:?}"
            );
            assert!(
                !other.all(&value) || readings.any(&value),
                "{value:?}: {path:?} {disguised:?}"
            );
        }
    }
}

fn is_in_escape(path: &str, at: usize) -> bool {
    let before = path.as_bytes().get(at.saturating_sub(2)..at).unwrap_or_default();
    before.contains(&b'%')
}

/// Values that stand close to the path.
fn values(path: &str) -> Vec<StringMatch> {
    let middle = (0..=path.len() / 2)
        .rev()
        .find(|at| path.is_char_boundary(*at) && !is_in_escape(path, *at))
        .unwrap_or(0);
    let (start, end) = path.split_at(middle);
    let (upper, last) = path.rfind('/').map_or(("", path), |at| path.split_at(at));
    vec![
        StringMatch::Exact(path.into()),
        StringMatch::Prefix(start.into()),
        StringMatch::Suffix(end.into()),
        StringMatch::Template(format!("{upper}/{{*}}").into()),
        StringMatch::Template(format!("{upper}/{{**}}").into()),
        StringMatch::Template(format!("/{{**}}{last}").into()),
        StringMatch::Template(format!("{upper}/{{**}}{last}").into()),
        StringMatch::Present,
    ]
}

/// What servers make of a path, each written down independently of [`Readings`].
fn servers(path: &str) -> Vec<(&'static str, String)> {
    let mut all = vec![("one that changes nothing", path.to_owned())];
    if let Some(decoded) = decoded(path) {
        all.push(("one that decodes (Node, Python)", decoded.clone()));
        all.push(("one that decodes, merges and resolves (nginx, Apache)", clean(&decoded)));
        all.push(("one that takes \\ for / (IIS)", clean(&decoded.replace('\\', "/"))));
        let bare = without_parameters(path);
        if let Some(decoded) = self::decoded(&bare) {
            all.push(("one that drops parameters first (Tomcat, Jetty)", clean(&decoded)));
        }
    }
    all
}

/// `None` for what such servers answer with 400: broken escapes, NUL, no UTF-8.
fn decoded(path: &str) -> Option<String> {
    let (mut out, mut rest) = (Vec::new(), path.as_bytes());
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            out.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            out.push(*first);
        }
    }
    if out.contains(&0) { None } else { String::from_utf8(out).ok() }
}

/// Empty and dot segments are gone; a slash at the end stays.
fn clean(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => _ = segments.pop(),
            other => segments.push(other),
        }
    }
    let directory =
        ["/", "/.", "/.."].iter().any(|end| path.ends_with(end)) && !segments.is_empty();
    format!("/{}{}", segments.join("/"), if directory { "/" } else { "" })
}

fn without_parameters(path: &str) -> String {
    let cut = |segment: &str| segment.split(';').next().unwrap_or_default().to_owned();
    path.split('/').map(cut).collect::<Vec<_>>().join("/")
}

fn is_name(host: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !host.is_empty() && host.bytes().all(fits)
}

fn is_literal(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
}

/// A host: what fits may fit, in any case and with a port; and what servers make of it is seen.
pub fn host(bytes: &[u8]) {
    let Ok(sent) = std::str::from_utf8(bytes) else { return };
    let name = sent.rsplit_once('@').map_or(sent, |(_, host)| host);
    let name = match name.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => name,
    };
    let undotted = name.strip_suffix('.').unwrap_or(name);
    // Others are answered 400 before any policy, addresses with a dot behind them too.
    let hosts = [(undotted, is_name(undotted)), (name, is_literal(name))];
    for (name, _) in hosts.into_iter().filter(|(_, is_host)| *is_host) {
        let exact = StringMatch::Exact(name.to_ascii_uppercase().into());
        assert!(host::may_fit(&exact, sent), "{sent:?}");
    }
    for value in values(sent) {
        let plain = !sent.contains('@');
        assert!(!(plain && host::fits(&value, sent)) || host::may_fit(&value, sent), "{value:?}");
        let louder = sent.to_ascii_uppercase();
        assert_eq!(host::fits(&value, sent), host::fits(&value, &louder), "{value:?} {sent:?}");
    }
}
