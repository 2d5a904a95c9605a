//! The rate limits of a TrafficPolicy (`rateLimit`): requests, or what they cost, per interval. The destination counts them.
//!
//! A policy has several limits, each with its own matches, keys and cost; a request passes if all that match have tokens for
//! it, and takes them from all or from none. A local limit counts per pod, in its node's agent; a global one has a service count,
//! which is asked once the others let the request pass.

mod buckets;
mod charge;
mod global;
mod key;
mod matching;
pub mod shared;
mod table;
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
pub use global::{Global, Question, Quota};
pub use key::{Key, Written as WrittenKey, members_go_with_type};
pub use matching::RequestMatch;
use shared::{Part, Parts, Pods, UNIT, id_of, rate_of_part};
pub use told::{HeaderStyle, LIMIT_HEADERS};
pub use written::{Written, all_keys as keys, interval};

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
    Shared(Shared),
    Global(Global),
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

/// All pods of a service together.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Shared {
    #[serde(flatten)]
    pub rate: Rate,
    pub cost: Cost,
    #[serde(skip)]
    parts: Arc<Parts>,
}

/// A shared limit in force.
#[derive(Clone, Copy, Debug)]
pub struct SharedLimit<'a> {
    pub policy: &'a ObjectKey,
    pub name: &'a Str,
    pub rate: Rate,
    /// Tokens that a request takes.
    pub cost: u64,
    pub parts: &'a Parts,
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
    /// The policy says so.
    #[serde(skip)]
    pub is_stated: bool,
}

/// The key of a request's bucket.
struct Asking<'a>(&'a Limit, &'a RequestHead<'a>, &'a Cx<'a>);

/// The same for a bucket of all pods.
struct AskingAll<'a>(&'a Limit, &'a RequestHead<'a>, &'a Cx<'a>);

/// A bucket of a limit.
struct Bucket<'a> {
    of: Of<'a>,
    hash: u64,
    /// In the buckets' unit.
    rate: Rate,
    unit: u64,
    /// As the policy says it.
    permitted: Rate,
    cost: &'a Cost,
}

enum Of<'a> {
    Pod(&'a Arc<Buckets>),
    /// And what nodes call the key.
    All(Arc<Part>, u64),
}

impl PartialEq for Local {
    /// Both set the same limit; the counts are not compared.
    fn eq(&self, other: &Self) -> bool {
        let Self { rate, cost, buckets: _ } = self;
        (rate, cost) == (&other.rate, &other.cost)
    }
}

impl Eq for Local {}

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        let Self { rate, cost, parts: _ } = self;
        (rate, cost) == (&other.rate, &other.cost)
    }
}

impl Eq for Shared {}

impl Filter for RateLimit {
    type Manifest = Written;

    const SCHEMA: Rule = written::SCHEMA;
    const HALF: Half = Half::Destination;

    fn read(written: &Written, rule: &dyn RuleContext) -> Result<Self, Fault> {
        let policy = rule.policy();
        let limits = written.limits(&policy.namespace)?;
        Ok(Self { policy, headers: written.headers, limits })
    }

    fn request(&self, head: &mut RequestHead<'_>, cx: &Cx<'_>) -> Flow {
        let mut passing = Passing::default();
        // What a client is told, and whether tokens were taken.
        let (mut told, mut taken) = (Vec::new(), 0u32);
        for (at, limit) in self.limits.iter().enumerate() {
            if !limit.takes(head) {
                continue;
            }
            // Whoever else counts is asked after these.
            let Some(bucket) = limit.bucket(head, cx) else { continue };
            let state = bucket.take();
            let (rate, cost) = (bucket.permitted, bucket.cost);
            match state.taken {
                true => taken |= 1 << at,
                false if limit.shadow => passing.notes.push(self.note()),
                false => {
                    self.give_back(taken, head, cx);
                    return Flow::Answer(self.answer(limit, rate, &state));
                }
            }
            if let Some(cost) = &cost.response {
                let charges = passing.charges.get_or_insert_default();
                charges.add(bucket.buckets(), bucket.hash, bucket.rate, bucket.unit, cost);
            }
            if self.headers.is_standard() && !limit.shadow {
                told.push((&*limit.name, rate, state));
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
            match (&mut limit.counted, &same.counted) {
                (Counted::Local(own), Counted::Local(before)) => {
                    own.buckets = before.buckets.clone();
                }
                (Counted::Shared(own), Counted::Shared(before)) => own.parts = before.parts.clone(),
                _ => {}
            }
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
            json!({"shared": {"requests": 5, "interval": "1s", "burst": 9, "keys": keys, "cost": cost}}),
            json!({
                "headers": "Both",
                "limits": [
                    {"name": "a", "local": {"requests": 1, "interval": "1h", "matches": matches}},
                    {"local": {"requests": 1, "interval": "1h", "cost": cost}},
                    {"global": {"backendRef": {"name": "limits", "port": 8081}, "domain": "shop", "keys": keys}},
                ],
            }),
        ]
    }
}

impl RateLimit {
    /// Those that all pods share.
    pub fn shared(&self) -> impl Iterator<Item = SharedLimit<'_>> {
        self.limits.iter().filter_map(|limit| match &limit.counted {
            Counted::Shared(Shared { rate, cost, parts }) => Some(SharedLimit {
                policy: &self.policy,
                name: &limit.name,
                rate: *rate,
                cost: cost.request,
                parts,
            }),
            Counted::Local(_) | Counted::Global(_) => None,
        })
    }

    fn note(&self) -> PolicyNote {
        PolicyNote { policy: self.policy.clone(), effect: PolicyEffect::WouldLimit }
    }

    /// Gives back what a request has taken from limits, by their index, since another one refuses it.
    fn give_back(&self, taken: u32, head: &RequestHead<'_>, cx: &Cx<'_>) {
        for (at, limit) in self.limits.iter().enumerate().filter(|(at, _)| taken & (1 << at) != 0) {
            debug_assert!(at < 32, "limits are counted when they are read");
            let Some(bucket) = limit.bucket(head, cx) else { continue };
            let tokens = bucket.cost.request.saturating_mul(bucket.unit);
            bucket.buckets().give_back(bucket.hash, bucket.rate, tokens);
        }
    }

    /// 429 with the state of the client's bucket.
    fn answer(&self, limit: &Limit, rate: Rate, state: &Taken) -> Answer {
        Answer {
            body: None,
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

impl Shared {
    pub(super) fn new(rate: Rate, cost: Cost, has_keys: bool) -> Self {
        Self { rate, cost, parts: Arc::new(Parts::new(has_keys)) }
    }

    /// The node's part for the service that is asked for, and the part's rate. For an endpoint outside of the mesh the client's
    /// node counts for itself.
    fn part(&self, cx: &Cx<'_>) -> (Arc<Part>, Rate) {
        let part = match cx.service {
            Some(service) => self.parts.of(service),
            None => self.parts.of(&ObjectKey::new("", "")),
        };
        let pods = cx.spread.map_or(Pods { here: 1, all: 1 }, |spread| part.pods(spread));
        let rate = rate_of_part(self.rate, pods, self.cost.request);
        (part, rate)
    }
}

impl Bucket<'_> {
    /// Takes what a request takes.
    fn take(&self) -> Taken {
        match &self.of {
            Of::Pod(buckets) => buckets.take(self.hash, self.rate, self.cost.request),
            Of::All(part, id) => part.take(*id, self.hash, self.rate, self.cost.request),
        }
    }

    fn buckets(&self) -> &Arc<Buckets> {
        match &self.of {
            Of::Pod(buckets) => buckets,
            Of::All(part, _) => &part.buckets,
        }
    }
}

impl Limit {
    /// `None` if no bucket here counts.
    fn bucket<'a>(&'a self, head: &RequestHead<'_>, cx: &Cx<'_>) -> Option<Bucket<'a>> {
        match &self.counted {
            Counted::Local(Local { rate, cost, buckets }) => {
                let (hash, rate) = (buckets.hash(&Asking(self, head, cx)), *rate);
                Some(Bucket { of: Of::Pod(buckets), hash, rate, unit: 1, permitted: rate, cost })
            }
            Counted::Shared(shared) => {
                let ((part, rate), cost) = (shared.part(cx), &shared.cost);
                let id = id_of(&AskingAll(self, head, cx));
                let (hash, permitted) = (part.buckets.hash(&id), shared.rate);
                Some(Bucket { of: Of::All(part, id), hash, rate, unit: UNIT, permitted, cost })
            }
            Counted::Global(_) => None,
        }
    }

    fn takes(&self, head: &RequestHead<'_>) -> bool {
        self.when.is_empty() || self.when.iter().any(|it| it.takes(head))
    }
}

impl Hash for AskingAll<'_> {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let AskingAll(limit, head, cx) = self;
        for key in &limit.by {
            key.name().hash(to);
            key.hash(Some(head), cx, to);
        }
    }
}

impl Hash for Asking<'_> {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let Asking(limit, head, cx) = self;
        cx.service.hash(to);
        cx.pod.hash(to);
        for key in &limit.by {
            key.hash(Some(head), cx, to);
        }
    }
}

#[cfg(test)]
mod tests;
