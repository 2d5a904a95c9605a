//! When a request is sent again, and how often (GEP-1731; Istio, HTTPRetry; Envoy, `x-envoy-retry-on`).

use std::time::Duration;

use http::{HeaderName, StatusCode};

/// One row for each condition: what it means, and its name.
macro_rules! conditions {
    ($($(#[$doc:meta])* $condition:ident: $name:literal;)*) => {
        /// After what a request is sent again.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum RetryCondition {
            $($(#[$doc])* $condition,)*
        }

        impl RetryCondition {
            /// Every condition.
            pub const ALL: &[RetryCondition] = &[$(RetryCondition::$condition,)*];

            /// Envoy's name of it, where it has one.
            pub fn name(self) -> &'static str {
                match self {
                    $(RetryCondition::$condition => $name,)*
                }
            }
        }
    };
}

conditions! {
    /// The connection failed. Holds wherever there is a policy at all, because nothing was sent.
    ConnectFailure: "connect-failure";
    /// The application says that it did not look at the request. Holds wherever there is a policy at all.
    RefusedStream: "refused-stream";
    /// The connection broke before anything was sent. Holds wherever there is a policy at all.
    ResetBeforeRequest: "reset-before-request";
    /// There was no response: the connection broke, or the time for one attempt is over.
    Reset: "reset";
    /// The same, of a method that may be carried out twice (RFC 9110, 9.2.2). HTTPRoutes mean this one.
    ResetOfIdempotent: "reset of idempotent methods";
    /// A status from 500 to 599, or no response.
    ServerError: "5xx";
    /// 502, 503 or 504, or no response.
    GatewayError: "gateway-error";
    /// 409.
    Retriable4xx: "retriable-4xx";
    /// One of the statuses that are listed.
    StatusCodes: "retriable-status-codes";
    /// A response with one of the headers that are listed.
    Headers: "retriable-headers";
    /// A response with `x-envoy-ratelimited`, after which nothing else has a request sent again.
    RateLimited: "envoy-ratelimited";
    /// Status 1 of gRPC, in the head of a response. So are the others of gRPC.
    Cancelled: "cancelled";
    /// 4.
    DeadlineExceeded: "deadline-exceeded";
    /// 13.
    Internal: "internal";
    /// 8.
    ResourceExhausted: "resource-exhausted";
    /// 14.
    Unavailable: "unavailable";
}

impl RetryCondition {
    /// The condition that Envoy calls so.
    pub fn named(name: &str) -> Option<Self> {
        let of_envoy = |it: &&Self| **it != Self::ResetOfIdempotent;
        Self::ALL.iter().filter(of_envoy).find(|it| it.name() == name).copied()
    }

    fn bit(self) -> u32 {
        1 << self as u32
    }

    /// The status of gRPC that it stands for.
    fn grpc_status(self) -> Option<u32> {
        match self {
            Self::Cancelled => Some(1),
            Self::DeadlineExceeded => Some(4),
            Self::ResourceExhausted => Some(8),
            Self::Internal => Some(13),
            Self::Unavailable => Some(14),
            _ => None,
        }
    }
}

/// All conditions under which a request is sent again: one of them is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryOn {
    conditions: u32,
    /// For [`RetryCondition::StatusCodes`].
    pub codes: Vec<StatusCode>,
    /// For [`RetryCondition::Headers`].
    pub headers: Vec<HeaderName>,
}

impl RetryOn {
    /// What an HTTPRoute says with a list of statuses: these, and connections that fail, where it is safe.
    pub fn codes(codes: Vec<StatusCode>) -> Self {
        use RetryCondition::{
            ConnectFailure, RefusedStream, ResetBeforeRequest, ResetOfIdempotent, StatusCodes,
        };
        let conditions =
            [ConnectFailure, RefusedStream, ResetBeforeRequest, ResetOfIdempotent, StatusCodes];
        Self { codes, ..Self::any(&conditions) }
    }

    /// One of these conditions.
    pub fn any(conditions: &[RetryCondition]) -> Self {
        let conditions = conditions.iter().fold(0, |all, one| all | one.bit());
        Self { conditions, ..Self::default() }
    }

    /// One condition more.
    pub fn add(&mut self, condition: RetryCondition) {
        self.conditions |= condition.bit();
    }

    /// All of another's conditions more.
    pub fn join(&mut self, other: &Self) {
        self.conditions |= other.conditions;
        self.codes.extend_from_slice(&other.codes);
        self.headers.extend_from_slice(&other.headers);
    }

    pub fn has(&self, condition: RetryCondition) -> bool {
        self.conditions & condition.bit() != 0
    }

    /// Whether a status of gRPC is among the conditions.
    pub fn has_grpc_status(&self, status: u32) -> bool {
        self.conditions().any(|condition| condition.grpc_status() == Some(status))
    }

    /// Those that hold.
    pub fn conditions(&self) -> impl Iterator<Item = RetryCondition> {
        RetryCondition::ALL.iter().copied().filter(|condition| self.has(*condition))
    }
}

/// As a list of names, as `retryOn` has them.
impl serde::Serialize for RetryOn {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let names = self.conditions().map(|condition| condition.name().to_owned());
        let codes = self.codes.iter().map(|code| code.as_u16().to_string());
        to.collect_seq(names.chain(codes).chain(self.headers.iter().map(ToString::to_string)))
    }
}

/// What is sent again although it may have reached an application. A rule with no attempts is not retried at all, also where it
/// would be without a policy.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Retry {
    #[serde(rename = "retry_on")]
    pub on: RetryOn,
    /// How often it is sent again at most.
    pub attempts: u32,
    /// The least time between two attempts.
    pub backoff: Duration,
    /// Whether an endpoint that was tried before is avoided. `None`: it is, unless a property of the request selects the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avoids_previous: Option<bool>,
    /// Localities that were tried before are avoided.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub leaves_locality: bool,
}

impl Retry {
    /// How often a request may be sent again, whoever says it: more would only multiply the load on what is in trouble already.
    pub const MOST_ATTEMPTS: u32 = 10;

    /// The least time between two attempts where nobody says it: Envoy's.
    pub const BACKOFF: Duration = Duration::from_millis(25);

    /// On these conditions, so often, and as Istio otherwise.
    pub fn new(on: RetryOn, attempts: u32) -> Self {
        let backoff = Self::BACKOFF;
        Self { on, attempts, backoff, avoids_previous: None, leaves_locality: false }
    }

    /// Requests are sent to one endpoint, once.
    pub fn is_off(&self) -> bool {
        self.attempts == 0
    }
}

/// How requests are retried where no rule says it (MeshConfig, `defaultHttpRetryPolicy`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DefaultRetry {
    pub retry: Retry,
    /// How long one attempt may take until its response begins.
    pub each: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_condition_is_held_for_itself_and_shown_by_its_name() {
        for condition in RetryCondition::ALL {
            let on = RetryOn::any(&[*condition]);
            assert!(on.conditions().eq([*condition]), "{on:?}");
            assert_eq!(serde_json::to_value(&on).unwrap(), serde_json::json!([condition.name()]));
        }
        let mut on = RetryOn::codes(vec![StatusCode::CONFLICT]);
        on.headers.push(HeaderName::from_static("x-again"));
        let shown = serde_json::to_string(&on).unwrap();
        assert!(shown.ends_with("\"retriable-status-codes\",\"409\",\"x-again\"]"), "{shown}");
        assert!(!on.has(RetryCondition::Reset) && !on.has_grpc_status(14));
        on.add(RetryCondition::Unavailable);
        assert!(on.has_grpc_status(14) && !on.has_grpc_status(13));
    }
}
