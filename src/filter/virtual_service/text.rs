//! How VirtualServices compare texts (Istio, StringMatch).

use serde::Deserialize;

use crate::filter::{TextMatch, whole};

/// `StringMatch`: one of these, or none for a text that is there.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StringMatch {
    #[serde(default)]
    pub exact: Option<String>,
    #[serde(default)]
    pub prefix: Option<String>,
    #[serde(default)]
    pub regex: Option<String>,
}

impl StringMatch {
    /// `None`: whatever it is. `regex: "*"` is that as well, as in Istio.
    pub fn text(&self) -> Result<Option<TextMatch>, String> {
        let Self { exact, prefix, regex } = self;
        Ok(Some(match (exact, prefix, regex) {
            (None, None, None) => return Ok(None),
            (Some(text), None, None) => TextMatch::Exact(text.as_str().into()),
            (None, Some(text), None) => TextMatch::Prefix(text.as_str().into()),
            (None, None, Some(text)) if text == "*" => return Ok(None),
            (None, None, Some(text)) => TextMatch::Regex(whole(text)?),
            _ => return Err("has more than one of exact, prefix and regex".to_owned()),
        }))
    }
}
