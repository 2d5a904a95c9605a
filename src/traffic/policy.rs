//! The policy for one port, as a DestinationRule says it.

use std::time::Duration;

use super::{HashKey, Limits, LocalityPolicy, RetryBudget, Warmup};
use crate::base::Str;

/// What holds for connections and requests to one port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Policy {
    /// The object that says it, for messages.
    pub by: Str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balancer: Option<Balancer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outliers: Option<OutlierDetection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Box<Limits>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Box<RetryBudget>>,
    /// `None`: as the service's `trafficDistribution` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<Box<LocalityPolicy>>,
    /// For balancers that heed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup: Option<Warmup>,
}

impl Policy {
    /// Nothing differs from a port without a policy.
    pub fn says_nothing(&self) -> bool {
        let Self { by: _, balancer, outliers, limits, locality, warmup, budget } = self;
        balancer.is_none()
            && outliers.is_none()
            && limits.is_none()
            && locality.is_none()
            && warmup.is_none()
            && budget.is_none()
    }
}

/// How an endpoint is selected among the nearest.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Balancer {
    /// The less busy one of two.
    LeastRequest,
    /// The one of two that answers sooner, by its latency and its load.
    PeakEwma,
    Random,
    /// In turn.
    RoundRobin,
    /// The endpoint that the client dialled, where it dialled one.
    Passthrough,
    /// The same for requests with the same key.
    Hash(HashKey),
}

/// When an endpoint is ejected, and for how long (Istio, OutlierDetection).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct OutlierDetection {
    /// Errors in a row: 5xx, and failures of local origin unless these are split off. 0: not counted.
    pub consecutive_errors: u32,
    /// 502, 503 and 504, and failures of local origin unless these are split off. 0: not counted.
    pub consecutive_gateway_errors: u32,
    /// Failures of local origin, split off; 0: not counted.
    pub consecutive_local_failures: Option<u32>,
    /// The statuses that are errors, instead of 5xx.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<u16>,
    /// An ejected endpoint returns at a multiple of this.
    pub interval: Duration,
    /// How long the first ejection lasts at least; the second twice as long, and so on.
    pub base_ejection_time: Duration,
    pub max_ejection_percent: u32,
    /// If fewer are healthy, all endpoints are used.
    pub min_health_percent: u32,
}

/// The longest ejection, unless the first one is longer: Envoy's `max_ejection_time`.
pub(super) const LONGEST_EJECTION: Duration = Duration::from_secs(300);

impl Default for OutlierDetection {
    /// Istio's.
    fn default() -> Self {
        Self {
            consecutive_errors: 5,
            consecutive_gateway_errors: 0,
            consecutive_local_failures: None,
            codes: Vec::new(),
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_percent: 10,
            min_health_percent: 0,
        }
    }
}

impl OutlierDetection {
    /// How many of `pool` endpoints may be ejected at once: at least one, and never all unless the policy says 100 percent.
    pub(super) fn most_ejected(&self, pool: u32) -> u32 {
        if self.max_ejection_percent >= 100 {
            return pool;
        }
        let share = u64::from(pool) * u64::from(self.max_ejection_percent) / 100;
        u32::try_from(share).unwrap_or(pool).max(1).min(pool.saturating_sub(1))
    }

    /// The length of an ejection, the `times`-th in a row.
    pub(super) fn ejection(&self, times: u32) -> Duration {
        let longest = LONGEST_EJECTION.max(self.base_ejection_time);
        self.base_ejection_time.saturating_mul(times).min(longest)
    }
}
