//! The hedging of a TrafficPolicy (`hedging`): a request that is not answered for a while is sent to another endpoint as well, and
//! the first answer counts. The client's half does it, where it sends requests (`l7`); here are the rules, the budget, and how long
//! requests take.

mod latencies;

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde::Deserialize;

use super::{Fault, Filter, RuleContext};
use crate::base::schema::forms::{DURATION, METHOD};
use crate::base::schema::{Objection, Rule, parse_duration};
use crate::base::{InProgress, LeastRetries, ObjectKey, RetryBudget, Spent, Str};
use Rule::{Fields, List, Number, Text, With};
use latencies::Latencies;

/// Longer than anybody waits for a first answer.
const LONGEST: Duration = Duration::from_secs(3600);
/// How often a request is sent at once at most, with the first one.
const MOST_REQUESTS: u32 = 5;
/// The first one and another.
const REQUESTS: u32 = 2;
/// Percentiles below tell nothing about what is slow.
const LEAST_PERCENTILE: u32 = 50;
/// For requests to destinations without a budget of their own: Gateway API's defaults.
const INTERVAL: Duration = Duration::from_secs(10);
const LEAST: LeastRetries = LeastRetries::Rate { count: 10, interval: Duration::from_secs(1) };

#[derive(Clone, Debug, serde::Serialize)]
pub struct Hedging {
    /// The policy that sets it.
    pub policy: ObjectKey,
    pub after: After,
    /// How many are sent at once at most, with the first one.
    pub max_requests: u32,
    /// Empty: the idempotent ones (RFC 9110, 9.2.2).
    #[serde(serialize_with = "texts", skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Method>,
    #[serde(skip)]
    state: Arc<State>,
}

/// When a request is sent once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum After {
    #[serde(serialize_with = "super::duration")]
    Delay(Duration),
    /// When it takes longer than so many of a hundred.
    Percentile(u32),
}

#[derive(Debug)]
struct State {
    latencies: Latencies,
    spent: Arc<Spent>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    #[serde(default)]
    delay: Option<String>,
    #[serde(default)]
    percentile: Option<u32>,
    #[serde(default)]
    max_requests: Option<u32>,
    #[serde(default)]
    methods: Vec<String>,
}

impl PartialEq for Hedging {
    /// Both do the same; what was seen is not compared.
    fn eq(&self, other: &Self) -> bool {
        let Self { policy, after, max_requests, methods, state: _ } = self;
        (policy, after, max_requests, methods)
            == (&other.policy, &other.after, &other.max_requests, &other.methods)
    }
}

impl Eq for Hedging {}

impl Filter for Hedging {
    type Manifest = Written;

    const SCHEMA: Rule = With(
        &Fields(&[
            ("delay", Text(DURATION)),
            ("percentile", Number(LEAST_PERCENTILE as i64, 99)),
            ("maxRequests", Number(2, MOST_REQUESTS as i64)),
            ("methods", List(0, 16, &Text(METHOD))),
        ]),
        &[has_one_time],
    );

    fn read(written: &Written, rule: &dyn RuleContext) -> Result<Self, Fault> {
        let Written { delay, percentile, max_requests, methods } = written;
        let after = match (delay, percentile) {
            (Some(text), None) => After::Delay(read_delay(text)?),
            (None, Some(percentile)) if (LEAST_PERCENTILE..100).contains(percentile) => {
                After::Percentile(*percentile)
            }
            (None, Some(percentile)) => {
                let why = format!("{percentile} is not from {LEAST_PERCENTILE} to 99");
                return Err(Fault::field("percentile", why));
            }
            _ => return Err(Fault::field("delay", ONE_TIME)),
        };
        let max_requests = max_requests.unwrap_or(REQUESTS);
        if !(2..=MOST_REQUESTS).contains(&max_requests) {
            let why = format!("{max_requests} is not from 2 to {MOST_REQUESTS}");
            return Err(Fault::field("maxRequests", why));
        }
        let method = |(index, text): (usize, &String)| {
            let read = Method::from_bytes(text.as_bytes());
            read.map_err(|_| Fault::field(format!("methods[{index}]"), "is not a method"))
        };
        let methods = methods.iter().enumerate().map(method).collect::<Result<_, _>>()?;
        let policy = rule.policy();
        let budget = RetryBudget {
            by: Str::from(format!("the hedging of TrafficPolicy {policy}")),
            per_million: RetryBudget::PERCENT * 10_000,
            interval: INTERVAL,
            least: LEAST,
        };
        let state = State { latencies: Latencies::default(), spent: Spent::of(&budget) };
        Ok(Self { policy, after, max_requests, methods, state: Arc::new(state) })
    }

    fn inherit(&mut self, before: &Self) {
        self.state = before.state.clone();
    }

    #[cfg(test)]
    fn samples() -> Vec<serde_json::Value> {
        vec![
            serde_json::json!({"delay": "50ms"}),
            serde_json::json!({"percentile": 95, "maxRequests": 3, "methods": ["GET", "POST"]}),
        ]
    }
}

impl Hedging {
    /// Whether requests of this method are sent more than once.
    pub fn takes(&self, method: &Method) -> bool {
        match &self.methods[..] {
            [] => method.is_idempotent(),
            methods => methods.contains(method),
        }
    }

    /// How long the first answer is waited for. `None`: not enough is known yet.
    pub fn delay(&self) -> Option<Duration> {
        match self.after {
            After::Delay(delay) => Some(delay),
            After::Percentile(_) => self.state.latencies.known(),
        }
    }

    /// A request came that may be sent more than once.
    pub fn arrives(&self) {
        self.state.spent.arrives();
    }

    /// A request took so long until it was answered.
    pub fn took(&self, time: Duration) {
        if let After::Percentile(percentile) = self.after {
            self.state.latencies.add(time, percentile);
        }
    }

    /// Whether one more may be sent, where the destination has no budget of its own.
    pub fn one_more(&self) -> Option<InProgress> {
        self.state.spent.retry()
    }
}

const ONE_TIME: &str = "needs either delay or percentile";

fn has_one_time(value: &serde_json::Value) -> Option<Objection> {
    let has = |field: &str| value.get(field).is_some();
    (has("delay") == has("percentile")).then(|| ("", ONE_TIME.to_owned()))
}

fn read_delay(text: &str) -> Result<Duration, Fault> {
    let read = parse_duration(text).filter(|it| !it.is_zero() && *it <= LONGEST);
    read.ok_or_else(|| {
        let why = format!("{text:?} is not a duration above 0 and up to 1h such as 50ms or 1s");
        Fault::field("delay", why)
    })
}

fn texts<S: serde::Serializer>(values: &[Method], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(values.iter().map(Method::as_str))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    struct Nothing;

    impl RuleContext for Nothing {}

    fn read(written: Value) -> Result<Hedging, Fault> {
        Hedging::read(&serde_json::from_value(written).unwrap(), &Nothing)
    }

    #[test]
    fn idempotent_methods_are_hedged_unless_others_are_named() {
        let by_default = read(json!({"delay": "1s"})).unwrap();
        assert_eq!(
            (by_default.max_requests, by_default.delay()),
            (2, Some(Duration::from_secs(1)))
        );
        let named = read(json!({"delay": "1s", "methods": ["POST"]})).unwrap();
        for (method, expected) in [
            (Method::GET, [true, false]),
            (Method::PUT, [true, false]),
            (Method::POST, [false, true]),
        ] {
            assert_eq!([&by_default, &named].map(|it| it.takes(&method)), expected, "{method}");
        }
    }

    #[test]
    fn what_means_nothing_is_a_fault() {
        for (written, field) in [
            (json!({}), "delay"),
            (json!({"delay": "1s", "percentile": 95}), "delay"),
            (json!({"delay": "0s"}), "delay"),
            (json!({"delay": "2h"}), "delay"),
            (json!({"percentile": 49}), "percentile"),
            (json!({"percentile": 100}), "percentile"),
            (json!({"delay": "1s", "maxRequests": 1}), "maxRequests"),
            (json!({"delay": "1s", "maxRequests": 6}), "maxRequests"),
            (json!({"delay": "1s", "methods": ["G T"]}), "methods[0]"),
        ] {
            match read(written.clone()) {
                Err(Fault::Field { field: found, .. }) => assert_eq!(found, field, "{written}"),
                other => panic!("{written}: {other:?}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_percentile_follows_what_requests_take() {
        let hedging = read(json!({"percentile": 90})).unwrap();
        let millis = Duration::from_millis;
        assert_eq!(hedging.delay(), None, "nothing is known");
        for number in 0..256u64 {
            hedging.took(millis(if number % 20 == 0 { 2000 } else { 10 }));
        }
        let delay = hedging.delay().unwrap();
        assert!((millis(10)..=millis(13)).contains(&delay), "{delay:?}");
        for _ in 0..4096 {
            hedging.took(millis(300));
        }
        let delay = hedging.delay().unwrap();
        assert!((millis(300)..=millis(375)).contains(&delay), "{delay:?}");
    }
}
