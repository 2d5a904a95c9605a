//! A request's path against the values of policies, in every way in which either can be read ([`crate::base::path`]).
//! What is unclear matches whatever refuses and nothing that admits.

use super::text;
use crate::base::path::{PathReadings, decode_all, decode_unreserved, is_plain};
use crate::model::StringMatch;

/// The readings of a request's path, without its query.
pub(super) struct Readings<'a> {
    readings: PathReadings<'a>,
    unclear: bool,
}

impl<'a> Readings<'a> {
    pub(super) fn of(path_and_query: &'a str) -> Self {
        let end = path_and_query.bytes().position(|byte| matches!(byte, b'?' | b'#'));
        let path = &path_and_query[..end.unwrap_or(path_and_query.len())];
        let readings = PathReadings::of(path);
        // An origin, nothing (an absolute target without a path) or the server as a whole (RFC 9112, 3.2).
        let usual = path.starts_with('/') || matches!(path, "" | "*");
        let unclear = readings.unclear.is_some() || !usual;
        Self { readings, unclear }
    }

    /// Some reading of the path fits some reading of the value, as far as anybody can tell.
    pub(super) fn any(&self, value: &StringMatch) -> bool {
        let fits = |value: &StringMatch| self.iter().any(|reading| text::matches(value, reading));
        self.unclear || fits(value) || other_readings(value).iter().any(fits)
    }

    /// Every reading fits. A value that is itself written with encoded octets is compared decoded too, but not
    /// with what was sent: `/a%2Fb` must not admit `/a/b`.
    pub(super) fn all(&self, value: &StringMatch) -> bool {
        if matches!(value, StringMatch::Exact(exact) if *exact == self.readings.sent) {
            return true;
        }
        if self.unclear || !text::matches(value, &self.readings.sent) {
            return false;
        }
        let others = &self.readings.others;
        let decoded = if others.is_empty() { None } else { decoded(value) };
        others.iter().all(|reading| {
            text::matches(value, reading)
                || decoded.as_ref().is_some_and(|value| text::matches(value, reading))
        })
    }

    /// It can be read in more ways than can be listed.
    pub(super) fn is_unclear(&self) -> bool {
        self.unclear
    }

    /// As it was sent first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        let sent: &str = &self.readings.sent;
        std::iter::once(sent).chain(self.readings.others.iter().map(String::as_str))
    }
}

/// What else a value can mean, for a match that refuses. Of an open end nobody knows what comes, so there only
/// octets are decoded: all, or those that mean the same to every server.
fn other_readings(value: &StringMatch) -> Vec<StringMatch> {
    match value {
        StringMatch::Exact(text) if !is_plain(text) => {
            let others = PathReadings::of(text).others.into_iter();
            others.map(|text| StringMatch::Exact(text.into())).collect()
        }
        _ => [decoded(value), remade(value, decode_unreserved)].into_iter().flatten().collect(),
    }
}

fn decoded(value: &StringMatch) -> Option<StringMatch> {
    remade(value, |text| decode_all(text).ok())
}

/// The value with another text, where it has escapes.
fn remade(value: &StringMatch, text_of: fn(&str) -> Option<String>) -> Option<StringMatch> {
    let (text, made): (_, fn(crate::base::Str) -> StringMatch) = match value {
        StringMatch::Exact(text) => (text, StringMatch::Exact),
        StringMatch::Prefix(text) => (text, StringMatch::Prefix),
        StringMatch::Suffix(text) => (text, StringMatch::Suffix),
        StringMatch::Template(text) => (text, StringMatch::Template),
        StringMatch::Present => return None,
    };
    let text = text.contains('%').then(|| text_of(text))??;
    Some(made(text.into()))
}

#[cfg(test)]
mod tests;
