//! URLRewrite (Gateway API, HTTPURLRewriteFilter): what is forwarded instead.

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Uri};
use serde::Deserialize;

use super::{Fault, Filter, PathRewrite, RuleContext, header_modifier, path};
use crate::base::schema::Rule;
use crate::base::schema::forms::SUBDOMAIN;
use Rule::{Fields, Text};

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Rewrite {
    #[serde(serialize_with = "header_modifier::value_option")]
    pub hostname: Option<HeaderValue>,
    pub path: Option<PathRewrite>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    path: Option<path::Written>,
}

impl Filter for Rewrite {
    type Manifest = Written;

    const SCHEMA: Rule = Fields(&[("hostname", Text(SUBDOMAIN)), ("path", path::SCHEMA)]);
    const CHANGES: bool = true;

    fn read(written: &Written, rule: &dyn RuleContext) -> Result<Self, Fault> {
        let value = |name: &String| {
            let bad = |_| Fault::field("hostname", format!("{name:?} is not a host name"));
            HeaderValue::try_from(path::hostname(name)?).map_err(bad)
        };
        Ok(Self {
            hostname: written.hostname.as_ref().map(value).transpose()?,
            path: written.path.as_ref().map(|path| path.read(rule)).transpose()?,
        })
    }

    fn change(&self, uri: &mut Uri, headers: &mut HeaderMap) {
        if let Some(path) = &self.path {
            path::apply(path, uri);
        }
        if let Some(hostname) = &self.hostname {
            headers.insert(HOST, hostname.clone());
        }
    }

    #[cfg(test)]
    fn samples() -> Vec<serde_json::Value> {
        let full = serde_json::json!({"type": "ReplaceFullPath", "replaceFullPath": "/new"});
        let prefix =
            serde_json::json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"});
        vec![
            serde_json::json!({"hostname": "a.example", "path": full}),
            serde_json::json!({"path": prefix}),
        ]
    }
}
