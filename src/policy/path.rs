//! The ways in which a path can be read.
//!
//! Servers differ: some resolve dot segments, some decode `%2F`, some merge slashes, some take `\` for `/`. Istio
//! normalises the path (its default is BASE: dot segments, unreserved octets, backslashes) and forwards the result; we
//! forward what the client sent and judge every reading of it (Istio, "Authorization Policy Normalization"). Octets are
//! decoded once, as in Istio. What allows more readings than can be listed is unclear: it matches whatever
//! refuses and nothing that admits.

use std::borrow::Cow;

use super::text;
use crate::model::StringMatch;

/// A path without its query: as sent and, when that can be read differently, the other ways.
pub(super) struct Readings<'a> {
    sent: &'a str,
    others: Vec<String>,
    unclear: bool,
}

impl<'a> Readings<'a> {
    pub(super) fn of(path_and_query: &'a str) -> Self {
        let end = path_and_query.find(['?', '#']).unwrap_or(path_and_query.len());
        let sent = &path_and_query[..end];
        let mut readings = Self { sent, others: Vec::new(), unclear: false };
        if is_plain(sent) {
            return readings;
        }
        match decode_all(sent) {
            Some(decoded) if sent.starts_with('/') => readings.add_others(&decoded),
            _ => readings.unclear = true,
        }
        readings
    }

    /// Some reading fits, as far as anybody can tell.
    pub(super) fn any(&self, value: &StringMatch) -> bool {
        self.unclear || self.iter().any(|reading| text::matches(value, reading))
    }

    /// Every reading fits. A value that is itself written with encoded octets is compared decoded too, but not
    /// with what was sent: `/a%2Fb` must not admit `/a/b`.
    pub(super) fn all(&self, value: &StringMatch) -> bool {
        if matches!(value, StringMatch::Exact(exact) if *exact == self.sent) {
            return true;
        }
        if self.unclear || !text::matches(value, self.sent) {
            return false;
        }
        let decoded = if self.others.is_empty() { None } else { decoded_value(value) };
        self.others.iter().all(|reading| {
            text::matches(value, reading)
                || decoded.as_ref().is_some_and(|value| text::matches(value, reading))
        })
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.sent).chain(self.others.iter().map(String::as_str))
    }

    fn add_others(&mut self, decoded: &str) {
        let dots = decoded.split(['/', '\\']).any(|segment| is_dots(without_parameters(segment)));
        if dots && is_separated_oddly(self.sent, decoded) {
            self.unclear = true;
            return;
        }
        for text in [&*decode(self.sent, is_unreserved), decoded] {
            if dots {
                let resolved = resolve(text);
                // Some keep the slash that a last dot segment leaves behind, some clean it away.
                if let Some(cleaned) = resolved.strip_suffix('/').filter(|path| !path.is_empty()) {
                    self.add(cleaned.to_owned());
                }
                self.add(resolved);
                self.add(text.to_owned());
            } else {
                self.add_separations(text);
            }
        }
    }

    /// Every combination of: `\` is `/`, empty segments are merged, path parameters (`;x`) are dropped.
    fn add_separations(&mut self, text: &str) {
        for choice in 0..8u8 {
            let mut reading = Cow::Borrowed(text);
            if choice & 1 != 0 {
                reading = reading.replace('\\', "/").into();
            }
            if choice & 2 != 0 {
                reading = rejoin(&reading, without_parameters, false).into();
            }
            if choice & 4 != 0 {
                reading = rejoin(&reading, |segment| segment, true).into();
            }
            self.add(reading.into_owned());
        }
    }

    fn add(&mut self, reading: String) {
        if reading != self.sent && !self.others.contains(&reading) {
            self.others.push(reading);
        }
    }
}

/// Nothing in it is encoded, a backslash, a path parameter, an empty segment or (perhaps) a dot segment.
fn is_plain(path: &str) -> bool {
    let odd = path.contains(['%', '\\', ';']) || path.contains("//") || path.contains("/.");
    !odd && (path.starts_with('/') || path.is_empty() || path == "*")
}

/// Servers disagree on where its segments end.
fn is_separated_oddly(sent: &str, decoded: &str) -> bool {
    let slashes = |text: &str| text.bytes().filter(|byte| *byte == b'/').count();
    decoded.contains(['\\', ';']) || decoded.contains("//") || slashes(sent) != slashes(decoded)
}

fn is_dots(segment: &str) -> bool {
    matches!(segment, "." | "..")
}

fn without_parameters(segment: &str) -> &str {
    segment.split_once(';').map_or(segment, |(segment, _)| segment)
}

fn rejoin(path: &str, each: impl Fn(&str) -> &str, merge: bool) -> String {
    let last = path.matches('/').count();
    let mut joined = String::with_capacity(path.len());
    for (at, segment) in path.split('/').enumerate() {
        if merge && segment.is_empty() && at != 0 && at != last {
            continue;
        }
        if at != 0 && !(merge && joined.ends_with('/')) {
            joined.push('/');
        }
        joined.push_str(each(segment));
    }
    joined
}

/// Decodes every octet. `None` for what nobody can be sure of: broken escapes, NUL (Istio answers 400), and overlong
/// encodings, in which old decoders see dots and slashes.
fn decode_all(path: &str) -> Option<String> {
    for (at, _) in path.match_indices('%') {
        let octet = octet(path.as_bytes().get(at + 1..at + 3)?)?;
        if matches!(octet, 0 | 0xC0 | 0xC1) {
            return None;
        }
    }
    Some(decode(path, |_| true))
}

/// Percent-decodes the octets that `wanted` takes, once.
fn decode(path: &str, wanted: impl Fn(u8) -> bool) -> String {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = if byte == b'%' { bytes.get(at + 1..at + 3).and_then(octet) } else { None };
        match escape.filter(|octet| wanted(*octet)) {
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
    String::from_utf8_lossy(&decoded).into_owned()
}

fn octet(digits: &[u8]) -> Option<u8> {
    let value =
        |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match digits {
        [high, low] => Some(value(*high)? << 4 | value(*low)?),
        _ => None,
    }
}

fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-._~".contains(&octet)
}

fn decoded_value(value: &StringMatch) -> Option<StringMatch> {
    let decoded = |text: &str| text.contains('%').then(|| decode(text, |_| true).into());
    Some(match value {
        StringMatch::Exact(text) => StringMatch::Exact(decoded(text)?),
        StringMatch::Prefix(text) => StringMatch::Prefix(decoded(text)?),
        StringMatch::Suffix(text) => StringMatch::Suffix(decoded(text)?),
        StringMatch::Template(text) => StringMatch::Template(decoded(text)?),
        StringMatch::Present => return None,
    })
}

/// Resolves dot segments (RFC 3986, 5.2.4).
fn resolve(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut trailing = false;
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        trailing = is_dots(segment);
        match segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    if trailing && !segments.is_empty() {
        segments.push("");
    }
    format!("/{}", segments.join("/"))
}

#[cfg(test)]
mod tests;
