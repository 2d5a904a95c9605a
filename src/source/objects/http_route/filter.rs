//! The filters of an HTTPRoute or GRPCRoute rule, and of its backends.

use http::{HeaderName, HeaderValue};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::cors::RawCors;
use super::target::{
    MirrorFilter, RawMirror, RawRedirect, RawRewrite, RedirectFilter, RewriteFilter,
};
use crate::model::{Cors, HeaderFilter};

/// One entry of `filters`.
#[derive(Clone, Debug)]
pub enum RouteFilter {
    RequestHeaders(HeaderFilter),
    ResponseHeaders(HeaderFilter),
    Redirect(RedirectFilter),
    Rewrite(RewriteFilter),
    Mirror(Box<MirrorFilter>),
    Cors(Box<Cors>),
    Unsupported(Unsupported),
}

/// A part that says something that we do not carry out, or that nobody could.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// Relative to the filter or the rule.
    pub field: String,
    pub why: String,
}

/// `extensionRef` and the like are not read: their type alone says that the rule cannot be carried out.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawFilter {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    request_header_modifier: Option<RawHeaderFilter>,
    #[serde(default)]
    response_header_modifier: Option<RawHeaderFilter>,
    #[serde(default)]
    request_redirect: Option<RawRedirect>,
    #[serde(default)]
    url_rewrite: Option<RawRewrite>,
    #[serde(default)]
    request_mirror: Option<RawMirror>,
    #[serde(default)]
    cors: Option<RawCors>,
    #[serde(default, rename = "externalAuth")]
    _external_auth: Option<Value>,
    #[serde(default, rename = "extensionRef")]
    _extension_ref: Option<Value>,
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

impl Unsupported {
    pub(super) fn new(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { field: field.into(), why: why.into() }
    }
}

impl<'de> Deserialize<'de> for RouteFilter {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = RawFilter::deserialize(from)?;
        let headers = |content: Option<RawHeaderFilter>| {
            content.map(HeaderFilter::try_from).transpose().map_err(D::Error::custom)
        };
        let (field, filter) = match raw.kind.as_str() {
            "RequestHeaderModifier" => {
                let filter = headers(raw.request_header_modifier)?;
                ("requestHeaderModifier", filter.map(|it| Ok(RouteFilter::RequestHeaders(it))))
            }
            "ResponseHeaderModifier" => {
                let filter = headers(raw.response_header_modifier)?;
                ("responseHeaderModifier", filter.map(|it| Ok(RouteFilter::ResponseHeaders(it))))
            }
            "RequestRedirect" => {
                let filter = raw.request_redirect.map(RedirectFilter::try_from);
                ("requestRedirect", filter.map(|it| it.map(RouteFilter::Redirect)))
            }
            "URLRewrite" => {
                let filter = raw.url_rewrite.map(RewriteFilter::try_from);
                ("urlRewrite", filter.map(|it| it.map(RouteFilter::Rewrite)))
            }
            "RequestMirror" => {
                let filter = raw.request_mirror.map(MirrorFilter::try_from);
                ("requestMirror", filter.map(|it| it.map(|it| RouteFilter::Mirror(Box::new(it)))))
            }
            "CORS" => {
                let filter = raw.cors.map(Cors::try_from);
                ("cors", filter.map(|it| it.map(|it| RouteFilter::Cors(Box::new(it)))))
            }
            kind => {
                let why = format!("{kind:?} is not supported");
                return Ok(RouteFilter::Unsupported(Unsupported::new("type", why)));
            }
        };
        Ok(match filter {
            Some(Ok(filter)) => filter,
            Some(Err(Unsupported { field: inner, why })) => {
                RouteFilter::Unsupported(Unsupported::new(format!("{field}.{inner}"), why))
            }
            None => {
                let why = format!("a filter of type {} needs the field {field}", raw.kind);
                return Err(D::Error::custom(why));
            }
        })
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
