//! Matches of headers and texts, for routes and policies alike (Gateway API, HTTPHeaderMatch): how they are written, and
//! whether one takes a request.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use crate::base::{Regex, Str};

/// A header, and what its value must be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(try_from = "WrittenMatch")]
pub struct HeaderMatch {
    #[serde(serialize_with = "super::text")]
    pub name: HeaderName,
    pub value: TextMatch,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum TextMatch {
    Exact(Str),
    Prefix(Str),
    /// The whole text.
    Regex(#[serde(serialize_with = "super::text")] Regex),
}

/// For people: as it would be written, in quotes.
impl fmt::Display for TextMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TextMatch::Exact(text) => write!(f, "{text:?}"),
            TextMatch::Prefix(text) => write!(f, "{:?}", format!("{text}*")),
            TextMatch::Regex(regex) => write!(f, "/{regex}/"),
        }
    }
}

/// A name and a match of the value, as they are written.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WrittenMatch {
    #[serde(default, rename = "type")]
    kind: MatchType,
    pub name: String,
    value: String,
}

/// Schemas say which of them the API server takes: routes have no `Prefix`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum MatchType {
    #[default]
    Exact,
    Prefix,
    RegularExpression,
}

impl WrittenMatch {
    pub fn text(&self) -> Result<TextMatch, String> {
        let value = self.value.as_str();
        Ok(match self.kind {
            MatchType::Exact => TextMatch::Exact(value.into()),
            MatchType::Prefix => TextMatch::Prefix(value.into()),
            MatchType::RegularExpression => TextMatch::Regex(whole(value)?),
        })
    }
}

impl TryFrom<WrittenMatch> for HeaderMatch {
    type Error = String;

    fn try_from(written: WrittenMatch) -> Result<Self, String> {
        let name = HeaderName::try_from(written.name.as_str())
            .map_err(|_| format!("name: {:?} is not a header name", written.name))?;
        Ok(Self { name, value: written.text()? })
    }
}

/// A regular expression that has to match the whole text.
pub fn whole(pattern: &str) -> Result<Regex, String> {
    Regex::whole(pattern).map_err(|error| format!("value: {error}"))
}

impl HeaderMatch {
    pub fn matches(&self, headers: &HeaderMap) -> bool {
        sent_text(headers, &self.name).is_some_and(|text| self.value.matches(&text))
    }
}

/// What matches compare with. A header that was sent several times counts as one with the values joined by a comma (RFC 9110, 5.3);
/// one that is not readable text matches nothing.
pub fn sent_text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<Cow<'h, str>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str();
    if values.next().is_none() {
        return first.ok().map(Cow::Borrowed);
    }
    let all: Result<Vec<&str>, _> = headers.get_all(name).iter().map(HeaderValue::to_str).collect();
    Some(Cow::Owned(all.ok()?.join(",")))
}

impl TextMatch {
    pub fn matches(&self, text: &str) -> bool {
        match self {
            TextMatch::Exact(exact) => text == exact.as_str(),
            TextMatch::Prefix(prefix) => text.starts_with(prefix.as_str()),
            TextMatch::Regex(regex) => regex.is_whole(text),
        }
    }

    /// The length of what is written: a longer one is the more specific match.
    pub fn written_length(&self) -> usize {
        match self {
            TextMatch::Exact(text) | TextMatch::Prefix(text) => text.len(),
            TextMatch::Regex(regex) => regex.as_str().len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(written: Value) -> Result<HeaderMatch, serde_json::Error> {
        serde_json::from_value(written)
    }

    #[test]
    fn headers_match_exactly_by_prefix_and_by_expression() {
        for (kind, value, sent, expected) in [
            (None, "curl", &["curl"][..], true),
            (None, "curl", &["curl/8"], false),
            (None, "a,b", &["a", "b"], true),
            (None, "a", &["a", "b"], false),
            (None, "a", &[], false),
            (Some("Exact"), "", &[""], true),
            (Some("Prefix"), "curl/", &["curl/8"], true),
            (Some("Prefix"), "curl/", &["Curl/8"], false),
            (Some("Prefix"), "a", &["a", "b"], true),
            (Some("RegularExpression"), "curl/[0-9]+", &["curl/8"], true),
            (Some("RegularExpression"), "curl/[0-9]+", &["curl/8.1"], false),
            (Some("RegularExpression"), "a|ab", &["ab"], true),
        ] {
            let mut written = json!({"name": "User-Agent", "value": value});
            if let Some(kind) = kind {
                written["type"] = kind.into();
            }
            let matched = read(written.clone()).unwrap();
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append("user-agent", HeaderValue::from_static(value));
            }
            assert_eq!(matched.matches(&headers), expected, "{written} {sent:?}");
        }
    }

    #[test]
    fn a_match_that_cannot_be_read_is_rejected() {
        for (written, why) in [
            (json!({"name": "a b", "value": "x"}), "not a header name"),
            (json!({"name": "a", "value": "x", "type": "Suffix"}), "unknown variant"),
            (json!({"name": "a", "value": "(", "type": "RegularExpression"}), "regular expression"),
            (json!({"name": "a", "value": "a)(b", "type": "RegularExpression"}), "regular"),
            (json!({"name": "a"}), "missing field"),
            (json!({"name": "a", "value": "x", "values": []}), "unknown field"),
        ] {
            let error = read(written.clone()).unwrap_err().to_string();
            assert!(error.contains(why), "{written}: {error}");
        }
    }
}
