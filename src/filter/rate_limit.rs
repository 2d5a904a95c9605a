//! The rate limits of a TrafficPolicy (`rateLimit`): requests, or what they cost, per interval. The destination counts them.
//!
//! A policy has several limits, each with its own matches, keys and cost; a request passes if all that match have tokens for
//! it, and takes them from all or from none. A local limit counts per pod, in its node's agent.

mod buckets;
mod charge;
mod key;
mod matching;
mod told;
mod written;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use http::{HeaderName, StatusCode};

use super::grpc::RESOURCE_EXHAUSTED;
use super::{Answer, Cx, Fault, Filter, Flow, Half, Passing, RequestHead, RuleContext};
use crate::base::schema::Rule;
use crate::base::{ObjectKey, PolicyEffect, PolicyNote, Reason, Str};
pub use buckets::{Buckets, Rate, Taken};
pub use charge::Charges;
pub use key::Key;
pub use matching::RequestMatch;
pub use told::HeaderStyle;
pub use written::Written;

/// The body for the client: Envoy's text.
const TEXT: &str = "local_rate_limited";

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RateLimit {
    /// The policy that sets it.
    pub policy: ObjectKey,
    pub headers: HeaderStyle,
    /// Some 16 at the most, each with a name of its own.
    pub limits: Vec<Limit>,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Limit {
    /// Of letters, digits and `-`.
    pub name: Str,
    /// It counts requests that one of these takes; without any it counts all.
    pub when: Vec<RequestMatch>,
    /// Each combination of these keys has a bucket.
    pub by: Vec<Key>,
    /// The limit rejects nothing, and counts the requests that it would reject.
    pub shadow: bool,
    pub counted: Counted,
}

/// Who counts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Counted {
    Local(Local),
}

/// Each pod for itself.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Local {
    #[serde(flatten)]
    pub rate: Rate,
    pub cost: Cost,
    #[serde(skip)]
    buckets: Arc<Buckets>,
}

/// How many tokens a request takes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Cost {
    /// Before it passes; 0: it passes if there is a token, and takes none.
    pub request: u64,
    /// Once there is a response.
    pub response: Option<ResponseCost>,
}

/// What a response costs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ResponseCost {
    /// That tells it.
    #[serde(serialize_with = "super::text")]
    pub header: HeaderName,
    /// One response costs no more, and no bucket owes more.
    pub most: u64,
}

/// The key of a request's bucket.
struct Asking<'a>(&'a Limit, &'a RequestHead<'a>, &'a Cx<'a>);

impl PartialEq for Local {
    /// Both set the same limit; the counts are not compared.
    fn eq(&self, other: &Self) -> bool {
        let Self { rate, cost, buckets: _ } = self;
        (rate, cost) == (&other.rate, &other.cost)
    }
}

impl Eq for Local {}

impl Filter for RateLimit {
    type Manifest = Written;

    const SCHEMA: Rule = written::SCHEMA;
    const HALF: Half = Half::Destination;

    fn read(written: &Written, rule: &dyn RuleContext) -> Result<Self, Fault> {
        let limits = written.limits()?;
        Ok(Self { policy: rule.policy(), headers: written.headers, limits })
    }

    fn request(&self, head: &mut RequestHead<'_>, cx: &Cx<'_>) -> Flow {
        let mut passing = Passing::default();
        // What a client is told, and whether tokens were taken.
        let (mut told, mut taken) = (Vec::new(), 0u32);
        for (at, limit) in self.limits.iter().enumerate() {
            let Counted::Local(local) = &limit.counted;
            if !limit.takes(head) {
                continue;
            }
            let hash = local.buckets.hash(&Asking(limit, head, cx));
            let state = local.buckets.take(hash, local.rate, local.cost.request);
            match state.taken {
                true => taken |= 1 << at,
                false if limit.shadow => passing.notes.push(self.note()),
                false => {
                    self.give_back(taken, head, cx);
                    return Flow::Answer(self.answer(limit, local.rate, &state));
                }
            }
            if let Some(cost) = &local.cost.response {
                let charges = passing.charges.get_or_insert_default();
                charges.add(&local.buckets, hash, local.rate, cost);
            }
            if self.headers.is_standard() && !limit.shadow {
                told.push((&*limit.name, local.rate, state));
            }
        }
        if !told.is_empty() {
            told::standard(&told, &mut passing.headers);
        }
        passing.into_flow()
    }

    fn reads_claims(&self) -> bool {
        self.limits.iter().flat_map(|it| &it.by).any(Key::is_claim)
    }

    /// An empty bucket stays empty, even if the numbers have changed.
    fn inherit(&mut self, before: &Self) {
        if self.policy != before.policy {
            return;
        }
        for limit in &mut self.limits {
            let same = before.limits.iter().find(|it| it.name == limit.name && it.by == limit.by);
            let Some(same) = same else { continue };
            let (Counted::Local(own), Counted::Local(before)) = (&mut limit.counted, &same.counted);
            own.buckets = before.buckets.clone();
        }
    }

    #[cfg(test)]
    fn samples() -> Vec<serde_json::Value> {
        use serde_json::json;
        let keys = json!([
            {"type": "Identity"}, {"type": "Header", "header": "x-user"}, {"type": "Claim", "claim": "sub"},
            {"type": "Address", "ipv6PrefixLength": 64},
        ]);
        let matches = json!([{"path": {"value": "/"}, "methods": ["GET"], "headers": [{"name": "a", "value": "b"}]}]);
        let cost = json!({"request": 0, "response": {"header": "x-cost", "max": 5}});
        vec![
            json!({"local": {"requests": 1, "interval": "1h", "keys": keys}}),
            json!({"local": {"requests": 5, "interval": "1s", "burst": 9, "shadowMode": true}}),
            json!({
                "headers": "Both",
                "limits": [
                    {"name": "a", "local": {"requests": 1, "interval": "1h", "matches": matches}},
                    {"local": {"requests": 1, "interval": "1h", "cost": cost}},
                ],
            }),
        ]
    }
}

impl RateLimit {
    fn note(&self) -> PolicyNote {
        PolicyNote { policy: self.policy.clone(), effect: PolicyEffect::WouldLimit }
    }

    /// Gives back what a request has taken from limits, by their index, since another one refuses it.
    fn give_back(&self, taken: u32, head: &RequestHead<'_>, cx: &Cx<'_>) {
        for (at, limit) in self.limits.iter().enumerate().filter(|(at, _)| taken & (1 << at) != 0) {
            debug_assert!(at < 32, "limits are counted when they are read");
            let Counted::Local(local) = &limit.counted;
            let hash = local.buckets.hash(&Asking(limit, head, cx));
            local.buckets.give_back(hash, local.rate, local.cost.request);
        }
    }

    /// 429 with the state of the client's bucket.
    fn answer(&self, limit: &Limit, rate: Rate, state: &Taken) -> Answer {
        Answer {
            status: StatusCode::TOO_MANY_REQUESTS,
            headers: self.headers.refusal(&limit.name, rate, state),
            text: TEXT,
            reason: Reason::RateLimited,
            why: format!(
                "the limit {} of the TrafficPolicy {} permits {} requests in {:?}",
                limit.name, self.policy, rate.tokens, rate.interval
            ),
            grpc: Some(RESOURCE_EXHAUSTED),
        }
    }
}

impl Limit {
    fn takes(&self, head: &RequestHead<'_>) -> bool {
        self.when.is_empty() || self.when.iter().any(|it| it.takes(head))
    }
}

impl Hash for Asking<'_> {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let Asking(limit, head, cx) = self;
        cx.service.hash(to);
        cx.pod.hash(to);
        for key in &limit.by {
            key.hash(head, cx, to);
        }
    }
}

#[cfg(test)]
mod tests;
