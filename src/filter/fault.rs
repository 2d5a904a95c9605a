//! The fault of a TrafficPolicy or of a VirtualService (`fault`): it delays or aborts a percentage of the requests, to test how clients cope with a
//! destination that is slow or fails. The client's half injects it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::grpc::{self, WrittenStatus};
use super::share::turn;
use super::{
    Answer, Cx, Fault, Filter, Flow, HeaderMatch, RequestHead, RuleContext, Share, Waited,
};
use crate::base::schema::forms::{DURATION, HEADER_NAME, HEADER_VALUE};
use crate::base::schema::{Objection, Rule, parse_duration};
use crate::base::{Reason, Str};
use Rule::{Fields, List, Number, OneOf, Text, With};

/// The body for the client: Envoy's text.
const TEXT: &str = "fault filter abort";

#[derive(Clone, Debug, serde::Serialize)]
pub struct Injection {
    /// The object that sets it, with its kind.
    pub by: Str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// Applies only to requests that match all of these.
    pub headers: Vec<HeaderMatch>,
    /// The requests so far that matched.
    #[serde(skip)]
    turns: Arc<Turns>,
}

/// A response instead of the application's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Abort {
    #[serde(serialize_with = "super::text")]
    pub status: StatusCode,
    /// `None`: the one that gRPC derives from the HTTP status.
    pub grpc: Option<u32>,
    pub share: Share,
}

/// The delay of a request before it is forwarded or aborted.
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
    headers: Vec<HeaderMatch>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenAbort {
    #[serde(default)]
    http_status: Option<u16>,
    #[serde(default)]
    grpc_status: Option<WrittenStatus>,
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

impl PartialEq for Injection {
    /// Both inject the same; the counts are not compared.
    fn eq(&self, other: &Self) -> bool {
        let Self { by, abort, delay, headers, turns: _ } = self;
        (by, abort, delay, headers) == (&other.by, &other.abort, &other.delay, &other.headers)
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
                    ("grpcStatus", With(&Number(0, grpc::MOST as i64), &[grpc::is_named])),
                    ("percentage", Number(0, 100)),
                ]),
                &[has_one_status],
            ),
        ),
        ("delay", Fields(&[("fixedDelay", Text(DURATION)), ("percentage", Number(0, 100))])),
        (
            "headers",
            List(
                0,
                16,
                &Fields(&[
                    ("type", OneOf(&["Exact", "Prefix", "RegularExpression"])),
                    ("name", Text(HEADER_NAME)),
                    ("value", Text(HEADER_VALUE)),
                ]),
            ),
        ),
    ]);

    fn read(written: &Written, rule: &dyn RuleContext) -> Result<Self, Fault> {
        let abort = written.abort.as_ref().map(WrittenAbort::read).transpose()?;
        let delay = written.delay.as_ref().map(WrittenDelay::read).transpose()?;
        let by = arcstr::format!("TrafficPolicy {}", rule.policy());
        Ok(Self { headers: written.headers.clone(), ..Self::new(by, abort, delay) })
    }

    fn request(&self, head: &mut RequestHead<'_>, _cx: &Cx<'_>) -> Flow {
        if !self.headers.iter().all(|header| header.matches(head.headers)) {
            return Flow::Next;
        }
        let abort = self.abort.filter(|abort| abort.share.takes(&self.turns.abort));
        let answer = abort.map(|abort| self.answer(abort));
        let delay = self.delay.filter(|delay| delay.share.takes(&self.turns.delay));
        match (delay, answer) {
            (None, None) => Flow::Next,
            (None, Some(answer)) => Flow::Answer(answer),
            (Some(Delay { time, .. }), answer) => {
                let why = format!("the {} delays it by {time:?}", self.by);
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
            serde_json::json!({
                "abort": {"grpcStatus": "UNAVAILABLE"},
                "headers": [{"type": "RegularExpression", "name": "x-sent", "value": "[0-9]+"}],
            }),
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
            (None, Some(WrittenStatus(code))) if code <= grpc::MOST => {
                Ok(Abort { status: grpc::http_of(code), grpc: Some(code), share })
            }
            (None, Some(WrittenStatus(code))) => {
                fault("abort.grpcStatus", format!("{code} is not from 0 to {}", grpc::MOST))
            }
            _ => fault("abort", "needs either httpStatus or grpcStatus".to_owned()),
        }
    }
}

impl WrittenDelay {
    fn read(&self) -> Result<Delay, Fault> {
        let text = &self.fixed_delay;
        let time =
            parse_duration(text).filter(|it| *it <= Injection::LONGEST).ok_or_else(|| {
                let why =
                    format!("{text:?} is not a duration up to 1h such as 500ms, 10s or 1m30s");
                Fault::field("delay.fixedDelay", why)
            })?;
        Ok(Delay { time, share: share("delay", self.percentage)? })
    }
}

/// All requests, unless the policy sets a percentage.
fn share(of: &str, percentage: Option<u32>) -> Result<Share, Fault> {
    let numerator = percentage.unwrap_or(100);
    if numerator > 100 {
        let why = format!("{numerator} is not from 0 to 100");
        return Err(Fault::field(format!("{of}.percentage"), why));
    }
    Ok(Share { numerator, denominator: 100 })
}

impl Injection {
    /// Longer than any client waits.
    pub const LONGEST: Duration = Duration::from_secs(3600);

    /// For all requests.
    pub fn new(by: Str, abort: Option<Abort>, delay: Option<Delay>) -> Self {
        let turns = Arc::new(Turns { abort: turn(), delay: turn() });
        Self { by, abort, delay, headers: Vec::new(), turns }
    }

    fn answer(&self, abort: Abort) -> Answer {
        Answer {
            status: abort.status,
            headers: HeaderMap::new(),
            text: TEXT,
            reason: Reason::FaultInjected,
            why: format!("the {} aborts it", self.by),
            grpc: abort.grpc,
            body: None,
        }
    }
}

fn has_one_status(value: &serde_json::Value) -> Option<Objection> {
    let has = |field: &str| value.get(field).is_some();
    (has("httpStatus") == has("grpcStatus"))
        .then(|| ("", "needs either httpStatus or grpcStatus".to_owned()))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Method, Uri};
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
        fault.request(&mut head, &Cx::fixture())
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
        for (written, grpc, http) in [
            (json!(14), 14, 503),
            (json!("UNAVAILABLE"), 14, 503),
            (json!(7), 7, 403),
            (json!("RESOURCE_EXHAUSTED"), 8, 429),
            (json!(2), 2, 500),
            (json!("NOT_FOUND"), 5, 404),
        ] {
            let fault = read(json!({"abort": {"grpcStatus": written}})).unwrap();
            let Flow::Answer(answer) = pass(&fault, "a") else { panic!("it is aborted") };
            assert_eq!((answer.grpc, answer.status.as_u16()), (Some(grpc), http));
            assert_eq!(answer.reason, Reason::FaultInjected);
        }
    }

    #[test]
    fn a_fault_applies_to_requests_that_match_all_headers() {
        let of = |kind: &str, value: &str| json!({"type": kind, "name": "x-user", "value": value});
        for (headers, applies) in [
            (json!([{"name": "x-user", "value": "alice"}]), true),
            (json!([of("Exact", "bob")]), false),
            (json!([of("Prefix", "ali")]), true),
            (json!([of("RegularExpression", "a.*e")]), true),
            (json!([of("RegularExpression", "ali")]), false),
            (json!([of("Prefix", "ali"), of("Exact", "bob")]), false),
        ] {
            let fault = read(json!({"abort": {"httpStatus": 500}, "headers": headers})).unwrap();
            let aborted = matches!(pass(&fault, "alice"), Flow::Answer(_));
            assert_eq!(aborted, applies, "{headers}");
        }
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
        ] {
            match read(fault.clone()) {
                Err(Fault::Field { field: found, .. }) => assert_eq!(found, field, "{fault}"),
                other => panic!("{fault}: {other:?}"),
            }
        }
    }
}
