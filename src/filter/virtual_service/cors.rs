//! `corsPolicy` (Istio, CorsPolicy), as Envoy's CORS filter does it: an origin that is allowed is told by its name, never by `*`.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;

use super::StringMatch;
use crate::base::schema::{Rule, parse_istio_duration};
use crate::filter::{
    Answer, Cx, Fault, Filter, Flow, RequestHead, ResponseHead, RuleContext, Seen, TextMatch,
    header_modifier,
};
use Rule::{Fields, OneOf};

/// Which other sites' scripts may call.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CorsPolicy {
    /// `None`: any origin.
    pub origins: Vec<Option<TextMatch>>,
    pub credentials: bool,
    /// Lists as they are sent; `None`: no header.
    #[serde(serialize_with = "header_modifier::value_option")]
    pub methods: Option<HeaderValue>,
    #[serde(serialize_with = "header_modifier::value_option")]
    pub headers: Option<HeaderValue>,
    #[serde(serialize_with = "header_modifier::value_option")]
    pub exposed: Option<HeaderValue>,
    /// In seconds.
    #[serde(serialize_with = "header_modifier::value_option")]
    pub max_age: Option<HeaderValue>,
    /// A preflight of an origin that is not allowed is answered as well; else the application gets it.
    pub keeps_unmatched: bool,
}

/// `CorsPolicy`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    /// The older form of `allowOrigins`.
    #[serde(default)]
    allow_origin: Vec<String>,
    #[serde(default)]
    allow_origins: Vec<StringMatch>,
    #[serde(default)]
    allow_methods: Vec<String>,
    #[serde(default)]
    allow_headers: Vec<String>,
    #[serde(default)]
    expose_headers: Vec<String>,
    #[serde(default)]
    max_age: Option<String>,
    #[serde(default)]
    allow_credentials: Option<bool>,
    #[serde(default)]
    unmatched_preflights: Option<String>,
}

impl Filter for CorsPolicy {
    type Manifest = Written;

    const SCHEMA: Rule =
        Fields(&[("unmatchedPreflights", OneOf(&["UNSPECIFIED", "FORWARD", "IGNORE"]))]);

    fn read(written: &Written, _rule: &dyn RuleContext) -> Result<Self, Fault> {
        let max_age = match &written.max_age {
            None => None,
            Some(text) => match parse_istio_duration(text) {
                Some(time) => Some(HeaderValue::from(time.as_secs())),
                None => {
                    let why = format!("{text:?} is not a duration such as 24h");
                    return Err(Fault::field("maxAge", why));
                }
            },
        };
        let keeps_unmatched = match written.unmatched_preflights.as_deref() {
            None | Some("UNSPECIFIED" | "FORWARD") => false,
            Some("IGNORE") => true,
            Some(other) => {
                let why = format!("{other:?} is neither FORWARD nor IGNORE");
                return Err(Fault::field("unmatchedPreflights", why));
            }
        };
        Ok(Self {
            origins: written.origins()?,
            credentials: written.allow_credentials.unwrap_or_default(),
            methods: list("allowMethods", &written.allow_methods)?,
            headers: list("allowHeaders", &written.allow_headers)?,
            exposed: list("exposeHeaders", &written.expose_headers)?,
            max_age,
            keeps_unmatched,
        })
    }

    fn request(&self, head: &mut RequestHead<'_>, _cx: &Cx<'_>) -> Flow {
        let asks = *head.method == Method::OPTIONS
            && head.headers.get(ACCESS_CONTROL_REQUEST_METHOD).is_some_and(|it| !it.is_empty());
        let origin = head.headers.get(ORIGIN).filter(|origin| asks && !origin.is_empty());
        let Some(origin) = origin else { return Flow::Next };
        let mut headers = HeaderMap::new();
        if self.allows(origin) {
            self.allow(origin, &mut headers);
            for (name, value) in [
                (ACCESS_CONTROL_ALLOW_METHODS, &self.methods),
                (ACCESS_CONTROL_ALLOW_HEADERS, &self.headers),
                (ACCESS_CONTROL_MAX_AGE, &self.max_age),
            ] {
                set(&mut headers, name, value);
            }
        } else if !self.keeps_unmatched {
            return Flow::Next;
        }
        Flow::Answer(Answer::plain(StatusCode::OK, headers))
    }

    fn remembers(&self) -> Option<HeaderName> {
        Some(ORIGIN)
    }

    fn response(&self, head: &mut ResponseHead<'_>, seen: &Seen) {
        if let Some(origin) = seen.get(&ORIGIN).filter(|origin| self.allows(origin)) {
            self.allow(origin, head.headers);
            set(head.headers, ACCESS_CONTROL_EXPOSE_HEADERS, &self.exposed);
        }
    }

    #[cfg(test)]
    fn samples() -> Vec<serde_json::Value> {
        vec![
            serde_json::json!({"allowOrigins": [{"exact": "https://a.example"}], "maxAge": "24h"}),
            serde_json::json!({"allowOrigins": [{"regex": ".*"}], "unmatchedPreflights": "IGNORE"}),
        ]
    }
}

impl Written {
    /// The older field counts only without the newer one.
    fn origins(&self) -> Result<Vec<Option<TextMatch>>, Fault> {
        // Envoy asks whether a match takes the text "*".
        let exact = |text: &str| (text != "*").then(|| TextMatch::Exact(text.into()));
        if self.allow_origins.is_empty() {
            return Ok(self.allow_origin.iter().map(|text| exact(text)).collect());
        }
        let origins = self.allow_origins.iter().enumerate().map(|(index, written)| {
            let read = written.text();
            let read = read.map_err(|why| Fault::field(format!("allowOrigins[{index}]"), why))?;
            Ok(match read {
                Some(TextMatch::Exact(text)) => exact(&text),
                other => other,
            })
        });
        origins.collect()
    }
}

impl CorsPolicy {
    fn allows(&self, origin: &HeaderValue) -> bool {
        let text = origin.to_str().ok().filter(|text| !text.is_empty());
        text.is_some_and(|text| {
            self.origins.iter().any(|it| it.as_ref().is_none_or(|wanted| wanted.matches(text)))
        })
    }

    fn allow(&self, origin: &HeaderValue, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        // A cache must not give this to another site.
        headers.append(VARY, HeaderValue::from(ORIGIN));
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &Option<HeaderValue>) {
    if let Some(value) = value {
        headers.insert(name, value.clone());
    }
}

fn list(field: &str, list: &[String]) -> Result<Option<HeaderValue>, Fault> {
    if list.is_empty() {
        return Ok(None);
    }
    let bad = |_| Fault::field(field, "is not something that a header can say");
    HeaderValue::try_from(list.join(",")).map(Some).map_err(bad)
}

#[cfg(test)]
mod tests {
    use http::Uri;
    use serde_json::{Value, json};

    use super::*;

    struct Nothing;

    impl RuleContext for Nothing {}

    fn read(written: Value) -> Result<CorsPolicy, Fault> {
        CorsPolicy::read(&serde_json::from_value(written).unwrap(), &Nothing)
    }

    /// What a preflight gets; `None`: the application answers it.
    fn preflight(policy: &CorsPolicy, origin: &'static str) -> Option<HeaderMap> {
        let pairs = [(ORIGIN, origin), (ACCESS_CONTROL_REQUEST_METHOD, "PUT")];
        let pairs = pairs.map(|(name, value)| (name, HeaderValue::from_static(value)));
        let mut headers = HeaderMap::from_iter(pairs);
        let uri = Uri::from_static("/");
        let mut head = RequestHead { method: &Method::OPTIONS, uri: &uri, headers: &mut headers };
        match policy.request(&mut head, &Cx::fixture()) {
            Flow::Answer(answer) => {
                assert_eq!(answer.status, StatusCode::OK);
                Some(answer.headers)
            }
            _ => None,
        }
    }

    #[test]
    fn origins_are_compared_as_texts() {
        for (origins, origin, allowed) in [
            (json!({"allowOrigins": [{"exact": "https://a.example"}]}), "https://a.example", true),
            (
                json!({"allowOrigins": [{"exact": "https://a.example"}]}),
                "https://a.example:8443",
                false,
            ),
            (json!({"allowOrigins": [{"prefix": "https://a."}]}), "https://a.example:8443", true),
            (
                json!({"allowOrigins": [{"regex": "https://.*[.]example"}]}),
                "https://b.example",
                true,
            ),
            (
                json!({"allowOrigins": [{"regex": "https://.*[.]example"}]}),
                "https://b.example.org",
                false,
            ),
            (json!({"allowOrigins": [{"exact": "*"}]}), "https://any.example", true),
            (json!({"allowOrigin": ["*"]}), "https://any.example", true),
            (json!({"allowOrigin": ["https://a.example"]}), "https://a.example", true),
            (json!({}), "https://a.example", false),
        ] {
            let policy = read(origins.clone()).unwrap();
            assert_eq!(preflight(&policy, origin).is_some(), allowed, "{origins} {origin}");
        }
    }

    #[test]
    fn preflights_get_the_lists_and_responses_what_is_exposed() {
        let policy = read(json!({
            "allowOrigins": [{"exact": "https://a.example"}],
            "allowMethods": ["GET", "PUT"],
            "allowHeaders": ["x-one", "x-two"],
            "exposeHeaders": ["x-three"],
            "maxAge": "24h",
            "allowCredentials": true,
        }))
        .unwrap();
        let headers = preflight(&policy, "https://a.example").unwrap();
        for (name, value) in [
            (ACCESS_CONTROL_ALLOW_ORIGIN, "https://a.example"),
            (ACCESS_CONTROL_ALLOW_METHODS, "GET,PUT"),
            (ACCESS_CONTROL_ALLOW_HEADERS, "x-one,x-two"),
            (ACCESS_CONTROL_MAX_AGE, "86400"),
            (ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
        ] {
            assert_eq!(headers[&name], value, "{name}");
        }
        assert!(!headers.contains_key(ACCESS_CONTROL_EXPOSE_HEADERS));
    }

    #[test]
    fn a_preflight_of_another_origin_is_forwarded_unless_it_is_to_be_ignored() {
        let policy = |unmatched: &str| {
            let origins = json!([{"exact": "https://a.example"}]);
            read(json!({"allowOrigins": origins, "unmatchedPreflights": unmatched})).unwrap()
        };
        assert!(preflight(&policy("FORWARD"), "https://b.example").is_none());
        assert!(preflight(&policy("UNSPECIFIED"), "https://b.example").is_none());
        assert!(preflight(&policy("IGNORE"), "https://b.example").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_policy_is_a_fault() {
        for (written, field) in [
            (json!({"maxAge": "long"}), "maxAge"),
            (json!({"unmatchedPreflights": "NEVER"}), "unmatchedPreflights"),
            (json!({"allowOrigins": [{"regex": "("}]}), "allowOrigins[0]"),
            (json!({"allowHeaders": ["a\nb"]}), "allowHeaders"),
        ] {
            match read(written.clone()) {
                Err(Fault::Field { field: found, .. }) => assert_eq!(found, field, "{written}"),
                other => panic!("{written}: {other:?}"),
            }
        }
    }
}
