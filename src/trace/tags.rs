//! Tags that operators add to spans (Istio's `customTags`).

use http::{HeaderMap, HeaderName};

use crate::base::Str;

/// One tag.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Tag {
    pub name: Str,
    pub value: TagValue,
}

/// Where the value comes from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TagValue {
    /// Always this: a literal, or an environment variable as it was when the configuration was read.
    Literal(Str),
    /// A header of the request, or this when it has none. Without a default there is no tag then.
    Header {
        #[serde(serialize_with = "as_text")]
        name: HeaderName,
        default: Option<Str>,
    },
}

impl TagValue {
    /// The value for a request.
    pub(super) fn read(&self, headers: &HeaderMap) -> Option<Str> {
        /// A value is not longer than what the access log shows of a field.
        const MOST: usize = 1_024;
        match self {
            TagValue::Literal(text) => Some(text.clone()),
            TagValue::Header { name, default } => match headers.get(name) {
                Some(value) => {
                    let bytes = value.as_bytes();
                    let shown = bytes.get(..MOST).unwrap_or(bytes);
                    Some(Str::from(&*String::from_utf8_lossy(shown)))
                }
                None => default.clone(),
            },
        }
    }
}

fn as_text<S: serde::Serializer>(name: &HeaderName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}
