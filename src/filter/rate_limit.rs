//! The local rate limit of a TrafficPolicy (`rateLimit.local`): a number of requests per interval. The destination counts
//! them, per pod.

mod buckets;

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;

use super::grpc::RESOURCE_EXHAUSTED;
use super::{Answer, Cx, Fault, Filter, Flow, Half, RequestHead, RuleContext};
use crate::base::schema::forms::{DURATION, HEADER_NAME};
use crate::base::schema::{Objection, Rule, parse_duration};
use crate::base::{ObjectKey, PolicyEffect, PolicyNote, Reason};
use Rule::{Fields, List, Number, OneOf, Text, With};
use buckets::{Buckets, Rate, Taken};

/// The longest interval: what the API's unit `Hour` would be, many times over.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Enough for a limit per second of one pod; a higher number is a mistake.
const MOST: u32 = 1_000_000;

/// The body for the client: Envoy's text.
const TEXT: &str = "local_rate_limited";

#[derive(Clone, Debug, serde::Serialize)]
pub struct RateLimit {
    /// The policy that sets it.
    pub policy: ObjectKey,
    pub requests: u32,
    #[serde(serialize_with = "super::duration")]
    pub interval: Duration,
    pub burst: u32,
    /// Each combination of these keys has a bucket, for each pod.
    pub by: Vec<Key>,
    /// The limit rejects nothing, and counts the requests that it would reject.
    pub shadow: bool,
    #[serde(skip)]
    buckets: Arc<Buckets>,
}

/// A part of a bucket's key.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Key {
    /// The client's, proven by mutual TLS. Plaintext has one bucket.
    Identity,
    /// The client's.
    Address,
    /// All values of a header; requests without it have one bucket.
    Header(#[serde(serialize_with = "super::text")] HeaderName),
    /// Route and rule.
    Route,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    local: Local,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Local {
    requests: u32,
    interval: String,
    #[serde(default)]
    burst: Option<u32>,
    #[serde(default)]
    keys: Vec<WrittenKey>,
    #[serde(default)]
    shadow_mode: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenKey {
    #[serde(rename = "type")]
    kind: KeyType,
    #[serde(default)]
    header: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum KeyType {
    Identity,
    Address,
    Header,
    Route,
}

/// The key of a request's bucket.
struct Asking<'a>(&'a RateLimit, &'a RequestHead<'a>, &'a Cx<'a>);

impl PartialEq for RateLimit {
    /// Both set the same limit; the counts are not compared.
    fn eq(&self, other: &Self) -> bool {
        let Self { policy, requests, interval, burst, by, shadow, buckets: _ } = self;
        (policy, requests, interval) == (&other.policy, &other.requests, &other.interval)
            && (burst, by, shadow) == (&other.burst, &other.by, &other.shadow)
    }
}

impl Eq for RateLimit {}

impl Filter for RateLimit {
    type Manifest = Written;

    const SCHEMA: Rule = Fields(&[(
        "local",
        Fields(&[
            ("requests", Number(1, MOST as i64)),
            ("interval", Text(DURATION)),
            ("burst", Number(1, MOST as i64)),
            (
                "keys",
                List(
                    0,
                    4,
                    &With(
                        &Fields(&[
                            ("type", OneOf(&["Identity", "Address", "Header", "Route"])),
                            ("header", Text(HEADER_NAME)),
                        ]),
                        &[header_goes_with_type],
                    ),
                ),
            ),
        ]),
    )]);
    const HALF: Half = Half::Destination;

    fn read(written: &Written, rule: &dyn RuleContext) -> Result<Self, Fault> {
        let Local { requests, interval, burst, keys, shadow_mode } = &written.local;
        let fault = |field: &str, why: String| Fault::field(format!("local.{field}"), why);
        let is_count = |count: u32| (1..=MOST).contains(&count);
        if !is_count(*requests) {
            return Err(fault("requests", format!("{requests} is not from 1 to {MOST}")));
        }
        let burst = burst.unwrap_or(*requests);
        if !is_count(burst) {
            return Err(fault("burst", format!("{burst} is not from 1 to {MOST}")));
        }
        let read = parse_duration(interval).filter(|it| !it.is_zero() && *it <= LONGEST);
        let Some(interval) = read else {
            let why =
                format!("{interval:?} is not a duration up to 24h such as 500ms, 10s or 1h30m");
            return Err(fault("interval", why));
        };
        let by = keys.iter().enumerate().map(|(index, key)| {
            key.read().map_err(|why| fault(&format!("keys[{index}].header"), why))
        });
        Ok(Self {
            policy: rule.policy(),
            requests: *requests,
            interval,
            burst,
            by: by.collect::<Result<_, _>>()?,
            shadow: *shadow_mode,
            buckets: Arc::default(),
        })
    }

    fn request(&self, head: &mut RequestHead<'_>, cx: &Cx<'_>) -> Flow {
        let rate = Rate { token: self.interval / self.requests, burst: self.burst };
        match self.buckets.take(&Asking(self, head, cx), rate) {
            Taken::Token => Flow::Next,
            Taken::None { .. } if self.shadow => Flow::Note(PolicyNote {
                policy: self.policy.clone(),
                effect: PolicyEffect::WouldLimit,
            }),
            Taken::None { next, all } => Flow::Answer(self.answer(next, all)),
        }
    }

    /// An empty bucket stays empty, even if the numbers have changed.
    fn inherit(&mut self, before: &Self) {
        if self.by == before.by && self.policy == before.policy {
            self.buckets = before.buckets.clone();
        }
    }

    #[cfg(test)]
    fn samples() -> Vec<serde_json::Value> {
        let keys =
            serde_json::json!([{"type": "Identity"}, {"type": "Header", "header": "x-user"}]);
        vec![
            serde_json::json!({"local": {"requests": 1, "interval": "1h", "keys": keys}}),
            serde_json::json!({"local": {"requests": 5, "interval": "1s", "burst": 9, "shadowMode": true}}),
        ]
    }
}

impl RateLimit {
    /// 429 with the state of the client's bucket.
    fn answer(&self, next: Duration, all: Duration) -> Answer {
        let seconds =
            |time: Duration| HeaderValue::from(time.as_nanos().div_ceil(1_000_000_000) as u64);
        let headers = [
            ("retry-after", seconds(next)),
            ("x-ratelimit-limit", self.burst.into()),
            ("x-ratelimit-remaining", 0.into()),
            ("x-ratelimit-reset", seconds(all)),
        ];
        let headers = headers.map(|(name, value)| (HeaderName::from_static(name), value));
        Answer {
            body: None,
            status: StatusCode::TOO_MANY_REQUESTS,
            headers: HeaderMap::from_iter(headers),
            text: TEXT,
            reason: Reason::RateLimited,
            why: format!(
                "the TrafficPolicy {} permits {} requests in {:?}",
                self.policy, self.requests, self.interval
            ),
            grpc: Some(RESOURCE_EXHAUSTED),
        }
    }
}

impl WrittenKey {
    fn read(&self) -> Result<Key, String> {
        match (self.kind, self.header.as_deref()) {
            (KeyType::Header, Some(name)) => HeaderName::try_from(name)
                .map(Key::Header)
                .map_err(|_| format!("{name:?} is not a header name")),
            (KeyType::Header, None) => Err("is missing; the type Header needs it".to_owned()),
            (_, Some(_)) => Err("goes with the type Header, and with no other".to_owned()),
            (KeyType::Identity, None) => Ok(Key::Identity),
            (KeyType::Address, None) => Ok(Key::Address),
            (KeyType::Route, None) => Ok(Key::Route),
        }
    }
}

fn header_goes_with_type(value: &serde_json::Value) -> Option<Objection> {
    let is_header = value.get("type")? == "Header";
    (is_header != value.get("header").is_some())
        .then(|| ("header", "goes with the type Header, and with no other".to_owned()))
}

impl Hash for Asking<'_> {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let Asking(limit, head, cx) = self;
        cx.service.hash(to);
        cx.pod.hash(to);
        for key in &limit.by {
            match key {
                Key::Identity => cx.identity.hash(to),
                Key::Address => cx.address.hash(to),
                Key::Route => cx.route.hash(to),
                Key::Header(name) => {
                    let values = head.headers.get_all(name).iter();
                    values.for_each(|value| value.as_bytes().hash(to));
                    to.write_u8(0xff);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
