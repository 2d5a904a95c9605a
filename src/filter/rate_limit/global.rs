//! Limits that a service counts (`global`; Envoy, RateLimitService): whom it asks about a request, and what.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::super::grpc::RESOURCE_EXHAUSTED;
use super::super::{Answer, Cx, Passing, RequestHead};
use super::buckets::{Rate, Taken};
use super::{Counted, Limit, RateLimit, told};
use crate::base::{ObjectKey, Reason, Str};

/// For what a request does not have: services take no empty values (Envoy, `RateLimitDescriptor.Entry`).
const NOTHING: &str = "-";

/// A service counts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Global {
    /// Of the policy's own namespace: nobody has somebody else's service asked.
    pub service: ObjectKey,
    pub port: u16,
    /// For the record and the circuit.
    #[serde(skip)]
    pub name: Str,
    pub domain: Str,
    /// Of every descriptor, before those of the keys.
    pub entries: Vec<(Str, Str)>,
    pub hits: u32,
    #[serde(serialize_with = "super::super::duration")]
    pub timeout: Duration,
    /// A request passes if the service cannot be asked.
    pub fail_open: bool,
}

/// A question about a request.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    pub global: &'a Global,
    limit: &'a Limit,
    policy: &'a RateLimit,
}

/// What a service says of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub rate: Rate,
    pub left: u64,
    pub reset: Duration,
}

impl RateLimit {
    /// Whether some service counts.
    pub fn asks(&self) -> bool {
        self.limits.iter().any(|it| matches!(it.counted, Counted::Global(_)))
    }

    /// The services that count.
    pub fn services(&self) -> impl Iterator<Item = &ObjectKey> {
        self.limits.iter().filter_map(|limit| match &limit.counted {
            Counted::Global(global) => Some(&global.service),
            Counted::Local(_) | Counted::Shared(_) => None,
        })
    }

    /// Whom to ask about a request.
    pub fn questions(&self, head: &RequestHead<'_>) -> Vec<Question<'_>> {
        let questions = self.limits.iter().filter_map(|limit| match &limit.counted {
            Counted::Global(global) if limit.takes(head) => {
                Some(Question { global, limit, policy: self })
            }
            _ => None,
        });
        questions.collect()
    }
}

impl Question<'_> {
    /// The entries of the request's descriptor.
    pub fn entries(&self, head: &RequestHead<'_>, cx: &Cx<'_>) -> Vec<(Str, String)> {
        let fixed = self.global.entries.iter().map(|(key, value)| (key.clone(), value.to_string()));
        let keys = self.limit.by.iter().map(|key| {
            let text = key.text(head, cx);
            let text = if text.is_empty() { NOTHING.into() } else { text };
            (key.name().into(), text.into_owned())
        });
        let mut entries: Vec<_> = fixed.chain(keys).collect();
        if entries.is_empty() {
            entries.push(("generic_key".into(), self.limit.name.to_string()));
        }
        entries
    }

    /// The request passes: what its record and its client are told. `over`: the limit in shadow mode would refuse it.
    pub fn passes(&self, over: bool, mut headers: HeaderMap, quota: Option<Quota>) -> Passing {
        let notes = if over { vec![self.policy.note()] } else { Vec::new() };
        if let Some(quota) = quota.filter(|_| self.policy.headers.is_standard() && !over) {
            let state = quota.state(true);
            told::standard(&[(&*self.limit.name, quota.rate, state)], &mut headers);
        }
        Passing { notes, charges: None, headers }
    }

    pub fn is_shadow(&self) -> bool {
        self.limit.shadow
    }

    /// The request is over the limit.
    pub fn refuses(&self, headers: HeaderMap, quota: Option<Quota>) -> Answer {
        let Quota { rate, .. } = quota.unwrap_or(Quota::UNKNOWN);
        let mut all = quota.map_or_else(HeaderMap::new, |quota| {
            self.policy.headers.refusal(&self.limit.name, rate, &quota.state(false))
        });
        all.extend(headers);
        let why = format!(
            "the limit {} of the TrafficPolicy {}: {} says that it is reached",
            self.limit.name, self.policy.policy, self.global.name
        );
        Answer {
            status: StatusCode::TOO_MANY_REQUESTS,
            headers: all,
            text: "",
            body: None,
            reason: Reason::RateLimited,
            why,
            grpc: Some(RESOURCE_EXHAUSTED),
        }
    }

    /// The service cannot be asked.
    pub fn fails(&self, why: &str) -> Answer {
        Answer {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            headers: HeaderMap::new(),
            text: "rate limit service failed",
            body: None,
            reason: Reason::RateLimitServiceError,
            why: self.failure(why),
            grpc: None,
        }
    }

    /// Why it cannot be asked, for the record.
    pub fn failure(&self, why: &str) -> String {
        format!(
            "the limit {} of the TrafficPolicy {}: {} failed: {why}",
            self.limit.name, self.policy.policy, self.global.name
        )
    }
}

impl Quota {
    const UNKNOWN: Self = Self {
        rate: Rate { tokens: 1, interval: Duration::from_secs(1), burst: 1 },
        left: 0,
        reset: Duration::ZERO,
    };

    fn state(&self, taken: bool) -> Taken {
        Taken { taken, left: self.left, next: self.reset, all: self.reset }
    }
}
