//! The readings of a URL path, in requests and in policies alike.
//!
//! Servers interpret paths differently: some resolve dot segments, some decode `%2F`, some merge slashes, some treat
//! `\` as `/`. Istio normalizes the path (its default is BASE: dot segments, unreserved octets, backslashes) and
//! forwards the result. Isthmus forwards what the client sent and evaluates every reading of it (Istio, "Authorization
//! Policy Normalization"). Octets are decoded once, as in Istio. A path with more readings than can be listed is
//! unclear.
//!
//! Spelling is not a reading: a non-ASCII character is the same as UTF-8 and percent-encoded, and the digits of an
//! escape are the same in either case (RFC 3987, 3.1; RFC 3986, 6.2.2.1). [`canonical`] removes these differences
//! before any comparison.

use std::borrow::Cow;

/// Why a path has no reliable reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnclearPath {
    #[error("has a % that two hexadecimal digits do not follow")]
    BrokenEscape,
    #[error("has a NUL character (%00), which ends the path for some servers")]
    Nul,
    #[error("has escapes that are not UTF-8 (overlong or invalid)")]
    NotUtf8,
    #[error("has dot segments beside separators that servers read differently (\\, ;, //, %2F)")]
    Dots,
}

/// A path without its query: as sent, in canonical spelling, and its other readings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathReadings<'a> {
    pub sent: Cow<'a, str>,
    pub others: Vec<String>,
    /// There are more readings than `sent` and `others`.
    pub unclear: Option<UnclearPath>,
}

impl<'a> PathReadings<'a> {
    /// Parses a path, without query and fragment.
    pub fn of(path: &'a str) -> Self {
        let mut readings = Self { sent: Cow::Borrowed(path), others: Vec::new(), unclear: None };
        if is_plain(path) {
            return readings;
        }
        match (canonical(path), decode_all(path)) {
            (Ok(sent), Ok(decoded)) => {
                readings.sent = sent;
                readings.add_others(&decoded);
            }
            (Err(why), _) | (_, Err(why)) => readings.unclear = Some(why),
        }
        readings
    }

    fn add_others(&mut self, decoded: &str) {
        let dots = decoded.split(['/', '\\']).any(|segment| is_dots(without_parameters(segment)));
        if dots && is_separated_oddly(&self.sent, decoded) {
            self.unclear = Some(UnclearPath::Dots);
            return;
        }
        // Some servers drop parameters before they decode: a `;` that comes from decoding then stays.
        let bare = decode(&rejoin(&self.sent, without_parameters, false), |_| true);
        for text in [&*decode(&self.sent, is_unreserved), decoded, &bare] {
            if dots {
                let resolved = resolve(text);
                // Some servers keep the slash that a trailing dot segment leaves behind, some remove it.
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

    /// Every combination of: `\` becomes `/`, empty segments are merged, path parameters (`;x`) are dropped.
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

/// The canonical spelling of equivalent paths: non-ASCII characters decoded, the digits of the remaining escapes in
/// upper case.
pub fn canonical(path: &str) -> Result<Cow<'_, str>, UnclearPath> {
    if !path.contains('%') {
        return Ok(Cow::Borrowed(path));
    }
    decode_all(path)?;
    let mut text = decode(path, |octet| !octet.is_ascii());
    let escapes: Vec<usize> = text.match_indices('%').map(|(at, _)| at).collect();
    for at in escapes {
        if let Some(digits) = text.get_mut(at + 1..at + 3) {
            digits.make_ascii_uppercase();
        }
    }
    Ok(Cow::Owned(text))
}

/// Decodes every octet, once.
pub fn decode_all(path: &str) -> Result<String, UnclearPath> {
    for (at, _) in path.match_indices('%') {
        match path.as_bytes().get(at + 1..at + 3).and_then(octet) {
            None => return Err(UnclearPath::BrokenEscape),
            Some(0) => return Err(UnclearPath::Nul),
            Some(_) => {}
        }
    }
    // Old decoders read dots and slashes from overlong encodings; servers differ on other invalid bytes.
    String::from_utf8(decode_bytes(path, |_| true)).map_err(|_| UnclearPath::NotUtf8)
}

/// Decodes octets that need no encoding (RFC 3986, 6.2.2.2), once; `None` if the result is not valid.
pub fn decode_unreserved(path: &str) -> Option<String> {
    decode_all(path).ok().map(|_| decode(path, is_unreserved))
}

/// The path contains no escape, backslash, path parameter, empty segment or (possible) dot segment.
pub fn is_plain(path: &str) -> bool {
    let mut before = 0;
    path.bytes().all(|byte| {
        let before = std::mem::replace(&mut before, byte);
        let is_odd_segment = matches!((before, byte), (b'/', b'/' | b'.'));
        !(is_odd_segment || matches!(byte, b'%' | b'\\' | b';'))
    })
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

fn decode(path: &str, wanted: impl Fn(u8) -> bool) -> String {
    String::from_utf8_lossy(&decode_bytes(path, wanted)).into_owned()
}

/// Percent-decodes the octets that `wanted` accepts, once.
fn decode_bytes(path: &str, wanted: impl Fn(u8) -> bool) -> Vec<u8> {
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
    decoded
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

/// One server's reading of a path: each bit of `choice` stands for one difference between servers.
#[cfg(test)]
pub(crate) fn served_as(path: &str, choice: u8) -> String {
    let mut read = if choice & 1 == 0 { path.to_owned() } else { decode(path, |_| true) };
    read = decode(&read, is_unreserved);
    if choice & 2 != 0 {
        read = read.replace('\\', "/");
    }
    if choice & 4 != 0 {
        read = rejoin(&read, without_parameters, false);
    }
    if choice & 8 != 0 {
        read = rejoin(&read, |segment| segment, true);
    }
    resolve(&read)
}

#[cfg(test)]
mod tests;
