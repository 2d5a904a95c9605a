//! RequestHeaderModifier and ResponseHeaderModifier (Gateway API, HTTPHeaderFilter): `set`, then `add`, then `remove`.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};
use serde_json::Value;

use super::{Fault, Filter, ResponseHead, RuleContext, Seen};
use crate::base::schema::forms::{HEADER_NAME, HEADER_VALUE, any};
use crate::base::schema::{Objection, Rule, repeated};
use Rule::{Fields, List, Text, With};

const HEADERS: Rule = With(
    &List(0, 16, &Fields(&[("name", Text(HEADER_NAME)), ("value", Text(HEADER_VALUE))])),
    &[names_differ],
);
const SCHEMA: Rule =
    Fields(&[("set", HEADERS), ("add", HEADERS), ("remove", List(0, 16, &Text(any(256))))]);

/// The changes of a filter to headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct HeaderFilter {
    #[serde(serialize_with = "pairs")]
    pub set: Vec<(HeaderName, HeaderValue)>,
    #[serde(serialize_with = "pairs")]
    pub add: Vec<(HeaderName, HeaderValue)>,
    #[serde(serialize_with = "names")]
    pub remove: Vec<HeaderName>,
}

/// Changes the headers of requests.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RequestHeaders(pub HeaderFilter);

/// Changes the headers of responses.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ResponseHeaders(pub HeaderFilter);

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    #[serde(default)]
    set: Vec<WrittenHeader>,
    #[serde(default)]
    add: Vec<WrittenHeader>,
    #[serde(default, deserialize_with = "header_names")]
    remove: Vec<HeaderName>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHeader {
    #[serde(deserialize_with = "header_name")]
    name: HeaderName,
    #[serde(deserialize_with = "header_value")]
    value: HeaderValue,
}

impl Filter for RequestHeaders {
    type Manifest = Written;

    const SCHEMA: Rule = SCHEMA;
    const CHANGES: bool = true;

    fn read(written: &Written, _rule: &dyn RuleContext) -> Result<Self, Fault> {
        Ok(Self(HeaderFilter::of(written)))
    }

    fn change(&self, _uri: &mut Uri, headers: &mut HeaderMap) {
        self.0.apply(headers);
    }

    #[cfg(test)]
    fn samples() -> Vec<Value> {
        vec![serde_json::json!({
            "set": [{"name": "x-set", "value": "1"}],
            "add": [{"name": "x-add", "value": "1"}],
            "remove": ["x-sent"],
        })]
    }
}

impl Filter for ResponseHeaders {
    type Manifest = Written;

    const SCHEMA: Rule = SCHEMA;

    fn read(written: &Written, _rule: &dyn RuleContext) -> Result<Self, Fault> {
        Ok(Self(HeaderFilter::of(written)))
    }

    fn response(&self, head: &mut ResponseHead<'_>, _seen: &Seen) {
        self.0.apply(head.headers);
    }

    #[cfg(test)]
    fn samples() -> Vec<Value> {
        vec![serde_json::json!({"set": [{"name": "x-set", "value": "1"}]})]
    }
}

impl HeaderFilter {
    fn of(written: &Written) -> Self {
        let pairs = |list: &[WrittenHeader]| {
            list.iter().map(|it| (it.name.clone(), it.value.clone())).collect()
        };
        Self { set: pairs(&written.set), add: pairs(&written.add), remove: written.remove.clone() }
    }

    fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

fn names_differ(value: &Value) -> Option<Objection> {
    let twice = repeated(value.as_array()?, "name")?;
    Some(("", format!("name {twice:?} twice")))
}

fn header_name<'de, D: Deserializer<'de>>(from: D) -> Result<HeaderName, D::Error> {
    let text = String::deserialize(from)?;
    HeaderName::try_from(text.as_str())
        .map_err(|_| D::Error::custom(format!("{text:?} is not a header name")))
}

fn header_names<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<HeaderName>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    let name = |text: &String| {
        HeaderName::try_from(text.as_str())
            .map_err(|_| D::Error::custom(format!("{text:?} is not a header name")))
    };
    names.iter().map(name).collect()
}

fn header_value<'de, D: Deserializer<'de>>(from: D) -> Result<HeaderValue, D::Error> {
    let text = String::deserialize(from)?;
    HeaderValue::try_from(text.as_str())
        .map_err(|_| D::Error::custom(format!("{text:?} holds bytes that no header may have")))
}

pub(super) fn pairs<S: Serializer>(
    values: &[(HeaderName, HeaderValue)],
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(values.iter().map(|(name, value)| format!("{name}: {}", lossy(value))))
}

fn names<S: Serializer>(values: &[HeaderName], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(values.iter().map(HeaderName::as_str))
}

pub(super) fn value_option<S: Serializer>(
    value: &Option<HeaderValue>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => to.serialize_str(&lossy(value)),
        None => to.serialize_none(),
    }
}

pub(super) fn value<S: Serializer>(value: &HeaderValue, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&lossy(value))
}

fn lossy(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::filter::{HttpFilter, PathRewrite, Rewrite, change, changes};

    fn pair(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    }

    #[test]
    fn set_then_add_then_remove() {
        let filter = HeaderFilter {
            set: vec![pair("x-set", "new")],
            add: vec![pair("x-add", "second"), pair("x-fresh", "one")],
            remove: vec![HeaderName::from_static("x-gone")],
        };
        let mut headers: HeaderMap =
            [pair("x-set", "old"), pair("x-add", "first"), pair("x-gone", "1")]
                .into_iter()
                .collect();
        filter.apply(&mut headers);
        let all = |name: &str| headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(all("x-set"), ["new"]);
        assert_eq!(all("x-add"), ["first", "second"]);
        assert_eq!(all("x-fresh"), ["one"]);
        assert!(all("x-gone").is_empty());
    }

    #[test]
    fn filters_hold_in_their_order() {
        let host = |value| {
            let set = vec![pair("host", value)];
            HttpFilter::RequestHeaders(RequestHeaders(HeaderFilter {
                set,
                ..HeaderFilter::default()
            }))
        };
        let rewrite = HttpFilter::Rewrite(Rewrite {
            hostname: Some(HeaderValue::from_static("rewritten")),
            path: Some(PathRewrite::Full("/new".into())),
        });
        for (filters, expected) in
            [([host("set"), rewrite.clone()], "rewritten"), ([rewrite, host("set")], "set")]
        {
            let mut headers = HeaderMap::from_iter([pair("host", "old")]);
            let mut uri = Uri::from_static("/old?a=b");
            assert!(changes(&filters));
            change(&filters, &mut uri, &mut headers);
            assert_eq!(
                (uri.to_string().as_str(), &headers["host"]),
                ("/new?a=b", &expected.parse().unwrap())
            );
        }
    }
}
