//! The filters of an HTTPRoute rule.

use http::{HeaderName, HeaderValue};
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};

use crate::model::{HeaderFilter, HttpFilter};

/// One entry of `filters`.
#[derive(Clone, Debug)]
pub enum HttpRouteFilter {
    Supported(HttpFilter),
    /// Its type, which may also be one that Gateway API does not know.
    Unsupported(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawFilter {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    request_header_modifier: Option<RawHeaderFilter>,
    #[serde(default)]
    response_header_modifier: Option<RawHeaderFilter>,
    #[serde(default, rename = "requestRedirect")]
    _request_redirect: IgnoredAny,
    #[serde(default, rename = "urlRewrite")]
    _url_rewrite: IgnoredAny,
    #[serde(default, rename = "requestMirror")]
    _request_mirror: IgnoredAny,
    #[serde(default, rename = "cors")]
    _cors: IgnoredAny,
    #[serde(default, rename = "externalAuth")]
    _external_auth: IgnoredAny,
    #[serde(default, rename = "extensionRef")]
    _extension_ref: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawHeaderFilter {
    #[serde(default)]
    set: Vec<RawHeader>,
    #[serde(default)]
    add: Vec<RawHeader>,
    #[serde(default)]
    remove: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHeader {
    #[serde(deserialize_with = "header_name")]
    name: HeaderName,
    #[serde(deserialize_with = "header_value")]
    value: HeaderValue,
}

impl<'de> Deserialize<'de> for HttpRouteFilter {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = RawFilter::deserialize(from)?;
        let (field, content, wrap): (_, _, fn(HeaderFilter) -> HttpFilter) = match raw.kind.as_str()
        {
            "RequestHeaderModifier" => {
                ("requestHeaderModifier", raw.request_header_modifier, HttpFilter::RequestHeaders)
            }
            "ResponseHeaderModifier" => (
                "responseHeaderModifier",
                raw.response_header_modifier,
                HttpFilter::ResponseHeaders,
            ),
            _ => return Ok(HttpRouteFilter::Unsupported(raw.kind)),
        };
        let content = content.ok_or_else(|| {
            D::Error::custom(format!("a filter of type {} needs the field {field}", raw.kind))
        })?;
        let filter = content.try_into().map_err(D::Error::custom)?;
        Ok(HttpRouteFilter::Supported(wrap(filter)))
    }
}

impl TryFrom<RawHeaderFilter> for HeaderFilter {
    type Error = String;

    fn try_from(raw: RawHeaderFilter) -> Result<Self, String> {
        let pairs = |list: Vec<RawHeader>| list.into_iter().map(|it| (it.name, it.value)).collect();
        let names = raw.remove.iter().map(|name| {
            HeaderName::try_from(name.as_str())
                .map_err(|_| format!("remove: {name:?} is not a header name"))
        });
        Ok(HeaderFilter {
            remove: names.collect::<Result<_, _>>()?,
            set: pairs(raw.set),
            add: pairs(raw.add),
        })
    }
}

fn header_name<'de, D: Deserializer<'de>>(from: D) -> Result<HeaderName, D::Error> {
    let text = String::deserialize(from)?;
    HeaderName::try_from(text.as_str())
        .map_err(|_| D::Error::custom(format!("{text:?} is not a header name")))
}

fn header_value<'de, D: Deserializer<'de>>(from: D) -> Result<HeaderValue, D::Error> {
    let text = String::deserialize(from)?;
    HeaderValue::try_from(text.as_str())
        .map_err(|_| D::Error::custom(format!("{text:?} holds bytes that no header may have")))
}
