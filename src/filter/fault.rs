//! The fault of a TrafficPolicy (`fault`): some of the requests wait, and some are answered instead of forwarded, so that
//! clients can be tried against a destination that is slow or fails. The client's half does it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;

use super::share::turn;
use super::{Answer, Cx, Fault, Filter, Flow, RequestHead, RuleContext, Share, Waited};
use crate::base::schema::forms::{DURATION, HEADER_NAME, HEADER_VALUE};
use crate::base::schema::{Objection, Rule, parse_duration};
use crate::base::{ObjectKey, Reason};
use Rule::{Fields, List, Number, Text, With};

/// Longer than any client waits.
const LONGEST: Duration = Duration::from_secs(3600);
/// What the client reads: Envoy's text.
const TEXT: &str = "fault filter abort";
/// gRPC's highest status.
const MOST_GRPC: u32 = 16;

#[derive(Clone, Debug, serde::Serialize)]
pub struct Injection {
    /// The policy that says so.
    pub policy: ObjectKey,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// Only requests that have all of these are meant.
    #[serde(serialize_with = "super::header_modifier::pairs")]
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How many requests were considered so far.
    #[serde(skip)]
    turns: Arc<Turns>,
}

/// An answer instead of the application's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Abort {
    #[serde(serialize_with = "super::text")]
    pub status: StatusCode,
    /// `None`: what gRPC makes of the HTTP status.
    pub grpc: Option<u32>,
    pub share: Share,
}

/// How long a request waits before it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Delay {
    #[serde(serialize_with = "super::duration")]
    pub time: Duration,
    pub share: Share,
}

#[derive(Debug)]
struct Turns {
    abort: AtomicU64,
    delay: AtomicU64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    #[serde(default)]
    abort: Option<WrittenAbort>,
    #[serde(default)]
    delay: Option<WrittenDelay>,
    #[serde(default)]
    headers: Vec<WrittenHeader>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenAbort {
    #[serde(default)]
    http_status: Option<u16>,
    #[serde(default)]
    grpc_status: Option<u32>,
    #[serde(default)]
    percentage: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenDelay {
    fixed_delay: String,
    #[serde(default)]
    percentage: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHeader {
    name: String,
    value: String,
}

impl PartialEq for Injection {
    /// Both do the same; whose turn it is is no part of it.
    fn eq(&self, other: &Self) -> bool {
        let Self { policy, abort, delay, headers, turns: _ } = self;
        (policy, abort, delay, headers)
            == (&other.policy, &other.abort, &other.delay, &other.headers)
    }
}

impl Eq for Injection {}

impl Filter for Injection {
    type Manifest = Written;

    const SCHEMA: Rule = Fields(&[
        (
            "abort",
            With(
                &Fields(&[
                    ("httpStatus", Number(200, 599)),
                    ("grpcStatus", Number(0, MOST_GRPC as i64)),
                    ("percentage", Number(0, 100)),
                ]),
                &[has_one_status],
            ),
        ),
        ("delay", Fields(&[("fixedDelay", Text(DURATION)), ("percentage", Number(0, 100))])),
        (
            "headers",
            List(0, 16, &Fields(&[("name", Text(HEADER_NAME)), ("value", Text(HEADER_VALUE))])),
        ),
    ]);

    fn read(written: &Written, rule: &dyn RuleContext) -> Result<Self, Fault> {
        let headers = written.headers.iter().enumerate();
        let headers = headers.map(|(index, header)| header.read(index));
        Ok(Self {
            policy: rule.policy(),
            abort: written.abort.as_ref().map(WrittenAbort::read).transpose()?,
            delay: written.delay.as_ref().map(WrittenDelay::read).transpose()?,
            headers: headers.collect::<Result<_, _>>()?,
            turns: Arc::new(Turns { abort: turn(), delay: turn() }),
        })
    }

    fn request(&self, head: &mut RequestHead<'_>, _cx: &Cx<'_>) -> Flow {
        let has = |(name, value): &(HeaderName, HeaderValue)| {
            head.headers.get_all(name).iter().any(|it| it == value)
        };
        if !self.headers.iter().all(has) {
            return Flow::Next;
        }
        let abort = self.abort.filter(|abort| abort.share.takes(&self.turns.abort));
        let answer = abort.map(|abort| self.answer(abort));
        let delay = self.delay.filter(|delay| delay.share.takes(&self.turns.delay));
        match (delay, answer) {
            (None, None) => Flow::Next,
            (None, Some(answer)) => Flow::Answer(answer),
            (Some(Delay { time, .. }), answer) => {
                let why = format!("the TrafficPolicy {} delays it by {time:?}", self.policy);
                Flow::Wait(Box::pin(async move {
                    tokio::time::sleep(time).await;
                    Waited { answer, mark: Some((Reason::DelayInjected, why)) }
                }))
            }
        }
    }

    fn inherit(&mut self, before: &Self) {
        self.turns = before.turns.clone();
    }

    #[cfg(test)]
    fn samples() -> Vec<serde_json::Value> {
        vec![
            serde_json::json!({"delay": {"fixedDelay": "1s", "percentage": 0}}),
            serde_json::json!({"abort": {"httpStatus": 503, "percentage": 50}}),
            serde_json::json!({"abort": {"grpcStatus": 14}, "headers": [{"name": "x-sent", "value": "1"}]}),
        ]
    }
}

impl WrittenAbort {
    fn read(&self) -> Result<Abort, Fault> {
        let share = share("abort", self.percentage)?;
        let fault = |field: &str, why: String| Err(Fault::field(field, why));
        match (self.http_status, self.grpc_status) {
            (Some(code), None) => {
                match StatusCode::from_u16(code).ok().filter(|_| (200..600).contains(&code)) {
                    Some(status) => Ok(Abort { status, grpc: None, share }),
                    None => fault("abort.httpStatus", format!("{code} is not from 200 to 599")),
                }
            }
            (None, Some(code)) if code <= MOST_GRPC => {
                Ok(Abort { status: http_of(code), grpc: Some(code), share })
            }
            (None, Some(code)) => {
                fault("abort.grpcStatus", format!("{code} is not from 0 to {MOST_GRPC}"))
            }
            _ => fault("abort", "needs either httpStatus or grpcStatus".to_owned()),
        }
    }
}

impl WrittenDelay {
    fn read(&self) -> Result<Delay, Fault> {
        let text = &self.fixed_delay;
        let time = parse_duration(text).filter(|it| *it <= LONGEST).ok_or_else(|| {
            let why = format!("{text:?} is not a duration up to 1h such as 500ms, 10s or 1m30s");
            Fault::field("delay.fixedDelay", why)
        })?;
        Ok(Delay { time, share: share("delay", self.percentage)? })
    }
}

impl WrittenHeader {
    fn read(&self, index: usize) -> Result<(HeaderName, HeaderValue), Fault> {
        let Self { name, value } = self;
        let fault = |field: &str, why| Fault::field(format!("headers[{index}].{field}"), why);
        Ok((
            HeaderName::try_from(name)
                .map_err(|_| fault("name", format!("{name:?} is not a header name")))?,
            HeaderValue::try_from(value).map_err(|_| {
                fault("value", format!("{value:?} holds bytes that no header may have"))
            })?,
        ))
    }
}

/// All requests, where the policy does not say.
fn share(of: &str, percentage: Option<u32>) -> Result<Share, Fault> {
    let numerator = percentage.unwrap_or(100);
    if numerator > 100 {
        let why = format!("{numerator} is not from 0 to 100");
        return Err(Fault::field(format!("{of}.percentage"), why));
    }
    Ok(Share { numerator, denominator: 100 })
}

impl Injection {
    fn answer(&self, abort: Abort) -> Answer {
        Answer {
            status: abort.status,
            headers: HeaderMap::new(),
            text: TEXT,
            reason: Reason::FaultInjected,
            why: format!("the TrafficPolicy {} aborts it", self.policy),
            grpc: abort.grpc,
        }
    }
}

/// For a client that does not speak gRPC (gRPC "HTTP to gRPC Status Code Mapping", the other way round, as in Envoy).
fn http_of(grpc: u32) -> StatusCode {
    match grpc {
        0 => StatusCode::OK,
        3 | 9 | 11 => StatusCode::BAD_REQUEST,
        4 => StatusCode::GATEWAY_TIMEOUT,
        5 => StatusCode::NOT_FOUND,
        6 | 10 => StatusCode::CONFLICT,
        7 => StatusCode::FORBIDDEN,
        8 => StatusCode::TOO_MANY_REQUESTS,
        12 => StatusCode::NOT_IMPLEMENTED,
        14 => StatusCode::SERVICE_UNAVAILABLE,
        16 => StatusCode::UNAUTHORIZED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn has_one_status(value: &serde_json::Value) -> Option<Objection> {
    let has = |field: &str| value.get(field).is_some();
    (has("httpStatus") == has("grpcStatus"))
        .then(|| ("", "needs either httpStatus or grpcStatus".to_owned()))
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};
    use serde_json::{Value, json};

    use super::*;

    struct Nothing;

    impl RuleContext for Nothing {}

    fn read(fault: Value) -> Result<Injection, Fault> {
        Injection::read(&serde_json::from_value(fault).unwrap(), &Nothing)
    }

    fn pass(fault: &Injection, user: &'static str) -> Flow {
        let user = (HeaderName::from_static("x-user"), HeaderValue::from_static(user));
        let mut headers = HeaderMap::from_iter([user]);
        let uri = Uri::from_static("/");
        let mut head = RequestHead { method: &Method::GET, uri: &uri, headers: &mut headers };
        let address = "10.0.0.1".parse().unwrap();
        let cx = Cx { port: 80, identity: None, address, service: None, pod: "", route: None };
        fault.request(&mut head, &cx)
    }

    #[test]
    fn aborts_exactly_its_share() {
        let fault = read(json!({"abort": {"httpStatus": 503, "percentage": 30}})).unwrap();
        let flows = (0..100).map(|_| pass(&fault, "a"));
        let aborted = flows.filter(|flow| matches!(flow, Flow::Answer(it) if it.status == 503));
        assert_eq!(aborted.count(), 30);
    }

    #[test]
    fn a_status_of_grpc_has_one_of_http() {
        for (grpc, http) in [(14, 503), (7, 403), (8, 429), (2, 500), (5, 404)] {
            let fault = read(json!({"abort": {"grpcStatus": grpc}})).unwrap();
            let Flow::Answer(answer) = pass(&fault, "a") else { panic!("it is aborted") };
            assert_eq!((answer.grpc, answer.status.as_u16()), (Some(grpc), http));
            assert_eq!(answer.reason, Reason::FaultInjected);
        }
    }

    #[test]
    fn only_requests_with_the_headers_are_meant() {
        let headers = json!([{"name": "x-user", "value": "a"}]);
        let fault = read(json!({"abort": {"httpStatus": 500}, "headers": headers})).unwrap();
        assert!(matches!(pass(&fault, "a"), Flow::Answer(_)));
        assert!(matches!(pass(&fault, "b"), Flow::Next));
    }

    #[tokio::test(start_paused = true)]
    async fn waits_before_it_goes_on_or_aborts() {
        for (abort, answered) in [(0, false), (100, true)] {
            let abort = json!({"httpStatus": 500, "percentage": abort});
            let fault = read(json!({"delay": {"fixedDelay": "2s"}, "abort": abort})).unwrap();
            let begun = tokio::time::Instant::now();
            let Flow::Wait(waited) = pass(&fault, "a") else { panic!("it waits") };
            let waited = waited.await;
            assert_eq!(begun.elapsed(), Duration::from_secs(2));
            assert_eq!(waited.answer.is_some(), answered);
            assert_eq!(waited.mark.unwrap().0, Reason::DelayInjected);
        }
    }

    #[test]
    fn what_is_no_fault_is_one() {
        for (fault, field) in [
            (json!({"abort": {}}), "abort"),
            (json!({"abort": {"httpStatus": 500, "grpcStatus": 1}}), "abort"),
            (json!({"abort": {"httpStatus": 99}}), "abort.httpStatus"),
            (json!({"abort": {"grpcStatus": 17}}), "abort.grpcStatus"),
            (json!({"abort": {"httpStatus": 500, "percentage": 101}}), "abort.percentage"),
            (json!({"delay": {"fixedDelay": "soon"}}), "delay.fixedDelay"),
            (json!({"headers": [{"name": "a b", "value": "1"}]}), "headers[0].name"),
        ] {
            match read(fault.clone()) {
                Err(Fault::Field { field: found, .. }) => assert_eq!(found, field, "{fault}"),
                other => panic!("{fault}: {other:?}"),
            }
        }
    }
}
