//! How values of security policies compare texts.

use std::fmt;

use crate::base::Str;

/// How AuthorizationPolicy compares texts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum StringMatch {
    Exact(Str),
    /// `text*`
    Prefix(Str),
    /// `*text`
    Suffix(Str),
    /// `*`: there is a value, and it is not empty.
    Present,
    /// A path template with `{*}` (one segment) and `{**}` (any number of them), only in `paths`; the whole text.
    Template(Str),
}

/// As it is written in a policy.
impl fmt::Display for StringMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StringMatch::Exact(text) | StringMatch::Template(text) => write!(f, "{text:?}"),
            StringMatch::Prefix(text) => write!(f, "{:?}", format!("{text}*")),
            StringMatch::Suffix(text) => write!(f, "{:?}", format!("*{text}")),
            StringMatch::Present => f.write_str("\"*\""),
        }
    }
}
