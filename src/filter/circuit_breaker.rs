//! The circuit breaker of a TrafficPolicy (`circuitBreaker`): a service that fails too often is given a rest, and no more requests
//! than it may have are in progress. Each client's node has a circuit for each service and port, and decides before it chooses an
//! endpoint; and one for each endpoint, which is not chosen while its circuit is open or full.

mod circuit;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;

use super::grpc::UNAVAILABLE;
use super::held::Held;
use super::{Answer, Cx, Fault, Filter, Flow, HttpFilter, RequestHead, RuleContext};
use crate::base::schema::forms::DURATION;
use crate::base::schema::{Objection, Rule, parse_duration};
use crate::base::{ObjectKey, PolicyEffect, PolicyNote, Reason, Str};
use Rule::{Fields, Number, Text, With};
pub use circuit::{Call, Opening};
use circuit::{Circuit, Refused};

/// More than a node has in progress; a higher number is a mistake.
const MOST: u32 = 1_000_000;
const LONGEST: Duration = Duration::from_secs(3600);
/// Services and ports of one policy. They are the cluster's own objects, and no client makes up any.
const MOST_CIRCUITS: usize = 4096;
/// The body for the client: Envoy's text.
const TEXT: &str =
    "upstream connect error or disconnect/reset before headers. reset reason: overflow";
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");

#[derive(Clone, Debug, serde::Serialize)]
pub struct CircuitBreaker {
    /// The policy that sets it.
    pub policy: ObjectKey,
    /// Of all endpoints together.
    #[serde(skip_serializing_if = "Bounds::are_none")]
    pub service: Bounds,
    /// Of each endpoint.
    #[serde(skip_serializing_if = "Bounds::are_none")]
    pub endpoint: Bounds,
    /// It rejects nothing, and counts what it would reject.
    pub shadow: bool,
    #[serde(skip)]
    circuits: Arc<Circuits>,
}

/// What a circuit lets in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Bounds {
    /// Requests in progress at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opening: Option<Opening>,
}

/// What a circuit is of.
#[derive(Clone, Copy, Debug, Hash)]
enum Subject<'a> {
    Service(Option<&'a ObjectKey>, u16),
    Endpoint(&'a ObjectKey, SocketAddr),
}

#[derive(Debug, Default)]
struct Circuits {
    hasher: RandomState,
    all: ArcSwap<HashMap<u64, Arc<Circuit>>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    #[serde(default)]
    max_requests: Option<u32>,
    #[serde(default)]
    failures: Option<WrittenFailures>,
    #[serde(default)]
    endpoint: Option<WrittenBounds>,
    #[serde(default)]
    shadow_mode: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenBounds {
    #[serde(default)]
    max_requests: Option<u32>,
    #[serde(default)]
    failures: Option<WrittenFailures>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenFailures {
    percentage: u32,
    #[serde(default)]
    min_requests: Option<u32>,
    #[serde(default)]
    window: Option<String>,
    #[serde(default)]
    open_for: Option<String>,
    #[serde(default)]
    trials: Option<u32>,
}

impl PartialEq for CircuitBreaker {
    /// Both say the same; what was seen is not compared.
    fn eq(&self, other: &Self) -> bool {
        let Self { policy, service, endpoint, shadow, circuits: _ } = self;
        (policy, service) == (&other.policy, &other.service)
            && (endpoint, shadow) == (&other.endpoint, &other.shadow)
    }
}

impl Eq for CircuitBreaker {}

impl Filter for CircuitBreaker {
    type Manifest = Written;

    const SCHEMA: Rule = With(
        &Fields(&[
            ("maxRequests", Number(1, MOST as i64)),
            ("failures", FAILURES),
            (
                "endpoint",
                With(
                    &Fields(&[("maxRequests", Number(1, MOST as i64)), ("failures", FAILURES)]),
                    &[endpoint_says_something],
                ),
            ),
        ]),
        &[says_something],
    );

    fn read(written: &Written, rule: &dyn RuleContext) -> Result<Self, Fault> {
        let Written { max_requests, failures, endpoint, shadow_mode } = written;
        let service = Bounds::read("", *max_requests, failures.as_ref())?;
        let endpoint = endpoint.as_ref().map(|it| {
            let bounds = Bounds::read("endpoint.", it.max_requests, it.failures.as_ref())?;
            match bounds.are_none() {
                true => Err(Fault::field("endpoint.failures", NOTHING)),
                false => Ok(bounds),
            }
        });
        let endpoint = endpoint.transpose()?.unwrap_or_default();
        if service.are_none() && endpoint.are_none() {
            return Err(Fault::field("failures", NOTHING));
        }
        let (policy, shadow) = (rule.policy(), *shadow_mode);
        Ok(Self { policy, service, endpoint, shadow, circuits: Arc::default() })
    }

    fn request(&self, _head: &mut RequestHead<'_>, cx: &Cx<'_>) -> Flow {
        if self.service.are_none() {
            return Flow::Next;
        }
        let circuit = self.circuits.of(Subject::Service(cx.service, cx.port));
        let Bounds { max_requests, opening } = self.service;
        let (call, refused) = circuit.enter(max_requests, opening, self.shadow);
        match (call, refused) {
            (Some(call), refused) => {
                Flow::Hold { held: Held::Call(call), note: refused.map(|_| self.note()) }
            }
            (None, refused) => {
                let refused = refused.unwrap_or(Refused::Full);
                Flow::Answer(self.answer("of a node", max_requests, refused))
            }
        }
    }

    /// What was seen of the service counts on, even if the numbers have changed.
    fn inherit(&mut self, before: &Self) {
        if self.policy == before.policy {
            self.circuits = before.circuits.clone();
        }
    }

    #[cfg(test)]
    fn samples() -> Vec<serde_json::Value> {
        vec![
            serde_json::json!({"maxRequests": 100}),
            serde_json::json!({"failures": {"percentage": 50, "window": "5s"}, "shadowMode": true}),
            serde_json::json!({"endpoint": {"maxRequests": 5}}),
        ]
    }
}

const NOTHING: &str = "is missing; a circuit breaker needs maxRequests or failures";

const FAILURES: Rule = Fields(&[
    ("percentage", Number(1, 100)),
    ("minRequests", Number(1, MOST as i64)),
    ("window", Text(DURATION)),
    ("openFor", Text(DURATION)),
    ("trials", Number(1, 100)),
]);

fn says_something(value: &serde_json::Value) -> Option<Objection> {
    let has = |field: &str| value.get(field).is_some();
    let says = has("maxRequests") || has("failures") || has("endpoint");
    (!says).then(|| ("failures", NOTHING.to_owned()))
}

fn endpoint_says_something(value: &serde_json::Value) -> Option<Objection> {
    let has = |field: &str| value.get(field).is_some();
    (!has("maxRequests") && !has("failures")).then(|| ("failures", NOTHING.to_owned()))
}

impl CircuitBreaker {
    /// A call of one endpoint; `None` where endpoints have no circuits. The answer is for a client for whom none is left.
    pub fn call(
        &self,
        service: &ObjectKey,
        endpoint: SocketAddr,
    ) -> Result<Option<Box<Held>>, Box<Answer>> {
        if self.endpoint.are_none() {
            return Ok(None);
        }
        let circuit = self.circuits.of(Subject::Endpoint(service, endpoint));
        let Bounds { max_requests, opening } = self.endpoint;
        match circuit.enter(max_requests, opening, self.shadow) {
            (Some(call), _) => Ok(Some(Box::new(Held::Call(call)))),
            (None, refused) => {
                let refused = refused.unwrap_or(Refused::Full);
                Err(Box::new(self.answer("of a node at each endpoint", max_requests, refused)))
            }
        }
    }

    fn note(&self) -> PolicyNote {
        PolicyNote { policy: self.policy.clone(), effect: PolicyEffect::WouldShed }
    }

    fn answer(&self, whose: &str, most: Option<u32>, refused: Refused) -> Answer {
        let (seconds, because) = match refused {
            Refused::Full => {
                let most = most.unwrap_or_default();
                (1, format!("permits {most} requests {whose} at once, and all are in progress"))
            }
            Refused::Open(left) => {
                let because = "does not permit requests for a while, since too many failed";
                (left.as_millis().div_ceil(1000).max(1) as u64, because.to_owned())
            }
        };
        let headers = [
            (http::header::RETRY_AFTER, HeaderValue::from(seconds)),
            (OVERLOADED, HeaderValue::from_static("true")),
        ];
        Answer {
            status: StatusCode::SERVICE_UNAVAILABLE,
            headers: HeaderMap::from_iter(headers),
            text: TEXT,
            body: None,
            reason: Reason::Overflow,
            why: format!("the TrafficPolicy {} {because}", self.policy),
            grpc: Some(UNAVAILABLE),
        }
    }
}

impl Bounds {
    pub fn are_none(&self) -> bool {
        self.max_requests.is_none() && self.opening.is_none()
    }

    fn read(
        of: &str,
        max_requests: Option<u32>,
        failures: Option<&WrittenFailures>,
    ) -> Result<Self, Fault> {
        if let Some(requests) = max_requests {
            within(&format!("{of}maxRequests"), requests, MOST)?;
        }
        let opening = failures.map(|it| it.read(&format!("{of}failures"))).transpose()?;
        Ok(Self { max_requests, opening })
    }
}

impl WrittenFailures {
    fn read(&self, of: &str) -> Result<Opening, Fault> {
        let number = |field: &str, number: u32, most: u32| {
            within(&format!("{of}.{field}"), number, most).map(|()| number)
        };
        Ok(Opening {
            percentage: number("percentage", self.percentage, 100)?,
            min_requests: number("minRequests", self.min_requests.unwrap_or(20), MOST)?,
            window: duration(&format!("{of}.window"), self.window.as_deref(), 10)?,
            open_for: duration(&format!("{of}.openFor"), self.open_for.as_deref(), 5)?,
            trials: number("trials", self.trials.unwrap_or(3), 100)?,
        })
    }
}

fn within(field: &str, number: u32, most: u32) -> Result<(), Fault> {
    match (1..=most).contains(&number) {
        true => Ok(()),
        false => Err(Fault::field(field, format!("{number} is not from 1 to {most}"))),
    }
}

fn duration(field: &str, text: Option<&str>, seconds: u64) -> Result<Duration, Fault> {
    let Some(text) = text else { return Ok(Duration::from_secs(seconds)) };
    parse_duration(text).filter(|it| !it.is_zero() && *it <= LONGEST).ok_or_else(|| {
        let why = format!("{text:?} is not a duration up to 1h such as 500ms, 10s or 1m");
        Fault::field(field, why)
    })
}

impl Circuits {
    fn of(&self, subject: Subject<'_>) -> Arc<Circuit> {
        let hash = self.hasher.hash_one(subject);
        if let Some(circuit) = self.all.load().get(&hash) {
            return circuit.clone();
        }
        let new = Arc::new(Circuit::new(subject.name()));
        let mut key = hash;
        self.all.rcu(|all| {
            let mut all = HashMap::clone(all);
            if all.len() >= MOST_CIRCUITS {
                all.retain(|_, circuit| !circuit.rests());
            }
            // Where all are in use, others share one.
            key = if all.len() < MOST_CIRCUITS { hash } else { 0 };
            all.entry(key).or_insert_with(|| new.clone());
            all
        });
        self.all.load().get(&key).cloned().unwrap_or(new)
    }
}

impl Subject<'_> {
    /// For the log.
    fn name(&self) -> Str {
        match self {
            Self::Service(Some(service), port) => arcstr::format!("Service {service}, port {port}"),
            Self::Service(None, port) => arcstr::format!("port {port}"),
            Self::Endpoint(service, endpoint) => arcstr::format!("{endpoint} of {service}"),
        }
    }
}

/// The circuit breaker that these filters have. The first one holds.
pub fn circuit_breaker<'a>(
    filters: impl IntoIterator<Item = &'a HttpFilter>,
) -> Option<&'a CircuitBreaker> {
    filters.into_iter().find_map(|filter| match filter {
        HttpFilter::CircuitBreaker(breaker) => Some(breaker),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};
    use serde_json::{Value, json};

    use super::*;

    struct Nothing;

    impl RuleContext for Nothing {
        fn policy(&self) -> ObjectKey {
            ObjectKey::new("shop", "p")
        }
    }

    fn read(written: Value) -> Result<CircuitBreaker, Fault> {
        CircuitBreaker::read(&serde_json::from_value(written).unwrap(), &Nothing)
    }

    fn pass(breaker: &CircuitBreaker, port: u16) -> Flow {
        let (uri, mut headers) = (Uri::from_static("/"), HeaderMap::new());
        let mut head = RequestHead { method: &Method::GET, uri: &uri, headers: &mut headers };
        breaker.request(&mut head, &Cx { port, ..Cx::fixture() })
    }

    fn held(flow: Flow) -> Held {
        match flow {
            Flow::Hold { held, note: None } => held,
            _ => panic!("it is not let in"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_fails_rests_and_is_tried() {
        let breaker = read(json!({"failures": {"percentage": 50, "minRequests": 4}})).unwrap();
        for failed in [false, true, false, true] {
            held(pass(&breaker, 80)).ended(Some(failed));
        }
        let Flow::Answer(answer) = pass(&breaker, 80) else { panic!("it is open") };
        assert_eq!((answer.status.as_u16(), answer.grpc), (503, Some(14)));
        assert_eq!(answer.headers["retry-after"], "5");
        assert_eq!(answer.reason, Reason::Overflow);
        held(pass(&breaker, 81)).ended(Some(false));
        tokio::time::advance(Duration::from_secs(5)).await;
        let trials = [(); 3].map(|()| held(pass(&breaker, 80)));
        assert!(matches!(pass(&breaker, 80), Flow::Answer(_)), "three try it");
        trials.iter().for_each(|trial| trial.ended(Some(false)));
        held(pass(&breaker, 80));
    }

    #[test]
    fn no_more_are_in_progress_than_it_says() {
        let breaker = read(json!({"maxRequests": 2})).unwrap();
        let mut calls = vec![held(pass(&breaker, 80)), held(pass(&breaker, 80))];
        let Flow::Answer(answer) = pass(&breaker, 80) else { panic!("it is full") };
        assert!(answer.why.contains("shop/p permits 2"), "{}", answer.why);
        calls.pop();
        held(pass(&breaker, 80));
    }

    #[tokio::test(start_paused = true)]
    async fn endpoints_have_circuits_of_their_own() {
        let breaker = json!({"endpoint": {"maxRequests": 2, "failures": {"percentage": 50, "minRequests": 2}}});
        let breaker = read(breaker).unwrap();
        assert!(matches!(pass(&breaker, 80), Flow::Next), "the service has none");
        let service = ObjectKey::new("shop", "web");
        let at = |number: u8| SocketAddr::from(([10, 0, 0, number], 80));
        let call = |number: u8| breaker.call(&service, at(number)).map(Option::unwrap);
        let _calls = [call(1).unwrap(), call(1).unwrap()];
        let refused = call(1).unwrap_err();
        assert!(refused.why.contains("permits 2 requests of a node at each"), "{}", refused.why);
        for _ in 0..2 {
            call(2).unwrap().ended(Some(true));
        }
        assert!(call(2).is_err(), "it is open");
        call(3).unwrap();
    }

    /// ServiceEntries and pods come and go; what is of nobody is forgotten.
    #[test]
    fn circuits_are_bounded() {
        let breaker = read(json!({"endpoint": {"maxRequests": 2}})).unwrap();
        let service = ObjectKey::new("shop", "web");
        for port in 0..2 * MOST_CIRCUITS as u16 {
            breaker.call(&service, SocketAddr::from(([10, 0, 0, 1], port))).unwrap();
        }
        assert!(breaker.circuits.all.load().len() <= MOST_CIRCUITS);
    }

    #[test]
    fn in_shadow_mode_it_notes_what_it_would_refuse() {
        let breaker = read(json!({"maxRequests": 1, "shadowMode": true})).unwrap();
        let _call = held(pass(&breaker, 80));
        assert!(matches!(pass(&breaker, 80), Flow::Hold { note: Some(_), .. }));
    }

    #[test]
    fn what_cannot_be_carried_out_is_a_fault_of_its_field() {
        for (written, field) in [
            (json!({}), "failures"),
            (json!({"maxRequests": 0}), "maxRequests"),
            (json!({"endpoint": {}}), "endpoint.failures"),
            (json!({"endpoint": {"maxRequests": 0}}), "endpoint.maxRequests"),
            (
                json!({"endpoint": {"failures": {"percentage": 101}}}),
                "endpoint.failures.percentage",
            ),
            (json!({"failures": {"percentage": 0}}), "failures.percentage"),
            (json!({"failures": {"percentage": 101}}), "failures.percentage"),
            (json!({"failures": {"percentage": 1, "trials": 101}}), "failures.trials"),
            (json!({"failures": {"percentage": 1, "window": "2h"}}), "failures.window"),
            (json!({"failures": {"percentage": 1, "openFor": "0s"}}), "failures.openFor"),
        ] {
            match read(written.clone()) {
                Err(Fault::Field { field: found, .. }) => assert_eq!(found, field, "{written}"),
                other => panic!("{written}: {other:?}"),
            }
        }
    }
}
