//! How VirtualServices compare texts (Istio, StringMatch).

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::base::{Regex, RegexError};
use crate::filter::TextMatch;

/// `StringMatch`: one of these, or none for a text that is there.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StringMatch {
    #[serde(default)]
    pub exact: Option<String>,
    #[serde(default)]
    pub prefix: Option<String>,
    #[serde(default)]
    pub regex: Option<WrittenRegex>,
}

/// A regular expression, compiled once for all rules that are made of it.
#[derive(Clone, Debug, PartialEq)]
pub struct WrittenRegex {
    text: String,
    read: Result<Regex, String>,
}

impl<'de> Deserialize<'de> for WrittenRegex {
    /// What is no expression is a matter of whoever asks for it; that the object has more than it may is not.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match Regex::whole(&text) {
            Err(error @ RegexError::Budget(_)) => Err(D::Error::custom(error)),
            read => Ok(Self { read: read.map_err(|error| format!("value: {error}")), text }),
        }
    }
}

impl StringMatch {
    /// `None`: whatever it is. `regex: "*"` is that as well, as in Istio.
    pub fn text(&self) -> Result<Option<TextMatch>, String> {
        let Self { exact, prefix, regex } = self;
        Ok(Some(match (exact, prefix, regex) {
            (None, None, None) => return Ok(None),
            (Some(text), None, None) => TextMatch::Exact(text.as_str().into()),
            (None, Some(text), None) => TextMatch::Prefix(text.as_str().into()),
            (None, None, Some(written)) if written.text == "*" => return Ok(None),
            (None, None, Some(written)) => TextMatch::Regex(written.read.clone()?),
            _ => return Err("has more than one of exact, prefix and regex".to_owned()),
        }))
    }
}
