//! The concurrency limit of a TrafficPolicy (`concurrencyLimit`): how many requests a pod has in progress on a port. The
//! destination counts them. A request beyond it is answered at once instead of waiting where others wait already.
//!
//! Clients have shares of it ([`shares`]), so that the excess of one namespace takes nothing from another, and requests of higher
//! priority may use more of it ([`priority`](super::priority)). The limit is fixed, or follows the latency ([`gradient`]).

mod gradient;
mod histogram;
mod limiter;
mod shares;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;

use super::grpc::{RESOURCE_EXHAUSTED, UNAVAILABLE};
use super::held::Held;
use super::{Answer, Cx, Fault, Filter, Flow, Half, RequestHead, RuleContext};
use crate::base::schema::forms::DURATION;
use crate::base::schema::{Objection, Rule, parse_duration};
use crate::base::{ObjectKey, PolicyEffect, PolicyNote, Reason};
use Rule::{Fields, Number, Text, With};
pub use gradient::{Adaptive, MinRtt};
use limiter::{Asked, Limiters, Subject};
pub use limiter::{LimitInUse, Place, Shed, limits_in_use};

/// More than one pod can have in progress; a higher number is a mistake.
const MOST: u32 = 1_000_000;
const LONGEST_WINDOW: Duration = Duration::from_secs(60);
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// The body for the client: Envoy's text.
const TEXT: &str = "reached concurrency limit";
/// When a client may try again, in seconds: places come back as fast as requests end.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");
/// Tells proxies that the destination is overloaded, so that they do not send the request again (Envoy).
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");

#[derive(Clone, Debug, serde::Serialize)]
pub struct ConcurrencyLimit {
    /// The policy that sets it.
    pub policy: ObjectKey,
    pub limit: Limit,
    /// Each client namespace, and each identity in it, has a share.
    pub fair: bool,
    /// The limit rejects nothing, and counts the requests that it would reject.
    pub shadow: bool,
    #[serde(skip)]
    limiters: Arc<Limiters>,
}

/// How many requests are permitted.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Limit {
    Fixed(u32),
    Adaptive(Arc<Adaptive>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    #[serde(default)]
    fixed: Option<WrittenFixed>,
    #[serde(default)]
    adaptive: Option<WrittenAdaptive>,
    #[serde(default)]
    fair_share: Option<bool>,
    #[serde(default)]
    shadow_mode: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenFixed {
    requests: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenAdaptive {
    #[serde(default)]
    min_requests: Option<u32>,
    #[serde(default)]
    max_requests: Option<u32>,
    #[serde(default)]
    percentile: Option<u32>,
    #[serde(default)]
    window: Option<String>,
    #[serde(default)]
    min_rtt: Option<WrittenMinRtt>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenMinRtt {
    #[serde(default)]
    interval: Option<String>,
    #[serde(default)]
    requests: Option<u32>,
    #[serde(default)]
    jitter: Option<u32>,
    #[serde(default)]
    buffer: Option<u32>,
    #[serde(default)]
    fixed: Option<String>,
}

impl PartialEq for ConcurrencyLimit {
    /// Both set the same limit; what is in progress is not compared.
    fn eq(&self, other: &Self) -> bool {
        let Self { policy, limit, fair, shadow, limiters: _ } = self;
        (policy, limit, fair, shadow) == (&other.policy, &other.limit, &other.fair, &other.shadow)
    }
}

impl Eq for ConcurrencyLimit {}

impl Filter for ConcurrencyLimit {
    type Manifest = Written;

    const SCHEMA: Rule = With(
        &Fields(&[
            ("fixed", Fields(&[("requests", Number(1, MOST as i64))])),
            (
                "adaptive",
                With(
                    &Fields(&[
                        ("minRequests", Number(1, MOST as i64)),
                        ("maxRequests", Number(1, MOST as i64)),
                        ("percentile", Number(1, 99)),
                        ("window", Text(DURATION)),
                        (
                            "minRtt",
                            Fields(&[
                                ("interval", Text(DURATION)),
                                ("requests", Number(1, 10_000)),
                                ("jitter", Number(0, 100)),
                                ("buffer", Number(0, 1000)),
                                ("fixed", Text(DURATION)),
                            ]),
                        ),
                    ]),
                    &[bounds_are_in_order],
                ),
            ),
        ]),
        &[is_one_kind],
    );
    const HALF: Half = Half::Destination;

    fn read(written: &Written, rule: &dyn RuleContext) -> Result<Self, Fault> {
        let limit = match (&written.fixed, &written.adaptive) {
            (Some(WrittenFixed { requests }), None) => {
                Limit::Fixed(number("fixed.requests", Some(*requests), 1, 1, MOST)?)
            }
            (None, Some(adaptive)) => Limit::Adaptive(Arc::new(adaptive.read()?)),
            _ => return Err(Fault::field("fixed", "needs either fixed or adaptive")),
        };
        Ok(Self {
            policy: rule.policy(),
            limit,
            fair: written.fair_share.unwrap_or(true),
            shadow: written.shadow_mode,
            limiters: Arc::default(),
        })
    }

    fn request(&self, _head: &mut RequestHead<'_>, cx: &Cx<'_>) -> Flow {
        let subject = Subject { service: cx.service, port: cx.port, pod: cx.pod };
        let limiter = self.limiters.of(&self.policy, subject);
        let (limit, adaptive) = match &self.limit {
            Limit::Fixed(requests) => (*requests, None),
            Limit::Adaptive(by) => (limiter.adapted(by), Some(by)),
        };
        let asked = Asked {
            limit,
            room: cx.level.map_or(limit, |level| level.room(limit)),
            client: cx.identity,
            fair: self.fair,
            always: self.shadow,
        };
        match limiter.enter(&asked, adaptive) {
            (Some(held), shed) => {
                let (held, note) = (Held::Place(held), shed.map(|_| self.note()));
                Flow::Hold { held, note }
            }
            (None, shed) => Flow::Answer(self.answer(shed.unwrap_or(Shed::Limit), limit)),
        }
    }

    /// What is in progress stays counted, even if the numbers have changed.
    fn inherit(&mut self, before: &Self) {
        if self.policy == before.policy {
            self.limiters = before.limiters.clone();
        }
    }

    #[cfg(test)]
    fn samples() -> Vec<serde_json::Value> {
        let min_rtt =
            serde_json::json!({"interval": "30s", "requests": 10, "jitter": 5, "buffer": 10});
        vec![
            serde_json::json!({"fixed": {"requests": 3}}),
            serde_json::json!({"adaptive": {}, "shadowMode": true}),
            serde_json::json!({"adaptive": {"maxRequests": 50, "minRtt": min_rtt}, "fairShare": false}),
        ]
    }
}

impl ConcurrencyLimit {
    fn note(&self) -> PolicyNote {
        PolicyNote { policy: self.policy.clone(), effect: PolicyEffect::WouldShed }
    }

    /// 429 to a client that has its share, 503 to one that finds others before it.
    fn answer(&self, shed: Shed, limit: u32) -> Answer {
        let (status, grpc) = match shed {
            Shed::Share => (StatusCode::TOO_MANY_REQUESTS, RESOURCE_EXHAUSTED),
            Shed::Limit | Shed::Priority => (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
        };
        let because = match shed {
            Shed::Limit => "all are in progress",
            Shed::Priority => "what is left is for requests of higher priority",
            Shed::Share => "the client has its share of them",
        };
        let mut headers = HeaderMap::from_iter([(http::header::RETRY_AFTER, RETRY_AFTER)]);
        if shed != Shed::Share {
            headers.insert(OVERLOADED, HeaderValue::from_static("true"));
        }
        Answer {
            status,
            headers,
            text: TEXT,
            body: None,
            reason: Reason::Overflow,
            why: format!(
                "the TrafficPolicy {} permits {limit} requests at once, and {because}",
                self.policy
            ),
            grpc: Some(grpc),
        }
    }
}

impl WrittenAdaptive {
    fn read(&self) -> Result<Adaptive, Fault> {
        let min = number("adaptive.minRequests", self.min_requests, 3, 1, MOST)?;
        let max = number("adaptive.maxRequests", self.max_requests, min.max(1000), 1, MOST)?;
        if min > max {
            let why = format!("{max} is less than minRequests, which is {min}");
            return Err(Fault::field("adaptive.maxRequests", why));
        }
        let written = self.min_rtt.clone().unwrap_or_default();
        let time = |field: &str, text: &Option<String>, longest: Duration| {
            duration(&format!("adaptive.{field}"), text.as_deref(), longest)
        };
        let interval = time("minRtt.interval", &written.interval, LONGEST_INTERVAL)?;
        let min_rtt = MinRtt {
            interval: interval.unwrap_or(Duration::from_secs(60)),
            requests: number("adaptive.minRtt.requests", written.requests, 50, 1, 10_000)?,
            jitter: number("adaptive.minRtt.jitter", written.jitter, 15, 0, 100)?,
            buffer: number("adaptive.minRtt.buffer", written.buffer, 25, 0, 1000)?,
            fixed: time("minRtt.fixed", &written.fixed, LONGEST_WINDOW)?,
        };
        Ok(Adaptive {
            min,
            max,
            percentile: number("adaptive.percentile", self.percentile, 50, 1, 99)?,
            window: time("window", &self.window, LONGEST_WINDOW)?
                .unwrap_or(Duration::from_millis(100)),
            min_rtt,
        })
    }
}

fn number(
    field: &str,
    written: Option<u32>,
    default: u32,
    least: u32,
    most: u32,
) -> Result<u32, Fault> {
    let number = written.unwrap_or(default);
    match (least..=most).contains(&number) {
        true => Ok(number),
        false => Err(Fault::field(field, format!("{number} is not from {least} to {most}"))),
    }
}

fn duration(field: &str, text: Option<&str>, longest: Duration) -> Result<Option<Duration>, Fault> {
    let Some(text) = text else { return Ok(None) };
    match parse_duration(text).filter(|it| !it.is_zero() && *it <= longest) {
        Some(time) => Ok(Some(time)),
        None => {
            let why = format!("{text:?} is not a duration up to {longest:?} such as 100ms or 1m");
            Err(Fault::field(field, why))
        }
    }
}

fn is_one_kind(value: &serde_json::Value) -> Option<Objection> {
    let has = |field: &str| value.get(field).is_some();
    (has("fixed") == has("adaptive"))
        .then(|| ("fixed", "needs either fixed or adaptive".to_owned()))
}

fn bounds_are_in_order(value: &serde_json::Value) -> Option<Objection> {
    let bound = |field: &str| value.get(field).and_then(serde_json::Value::as_u64);
    let (min, max) = (bound("minRequests").unwrap_or(3), bound("maxRequests")?);
    (min > max).then(|| ("maxRequests", format!("{max} is less than minRequests, which is {min}")))
}
