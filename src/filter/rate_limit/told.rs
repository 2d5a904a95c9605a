//! What a client hears of its limits: `x-ratelimit-*`, as many servers have it, and the fields of
//! draft-ietf-httpapi-ratelimit-headers (11), by choice.

use std::fmt::Write;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::buckets::{Rate, Taken};

/// The fields that stand with a response that passes.
pub const LIMIT_HEADERS: [&str; 2] = ["ratelimit-policy", "ratelimit"];

/// Which fields a client is told in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
pub enum HeaderStyle {
    /// `x-ratelimit-*`, with refusals.
    #[default]
    XRateLimit,
    /// `RateLimit` and `RateLimit-Policy`, with every response.
    RateLimit,
    /// Both.
    Both,
    /// Nothing but `retry-after`.
    None,
}

impl HeaderStyle {
    pub(super) fn is_standard(self) -> bool {
        matches!(self, Self::RateLimit | Self::Both)
    }

    fn is_x(self) -> bool {
        matches!(self, Self::XRateLimit | Self::Both)
    }

    /// With a refusal.
    pub(super) fn refusal(self, name: &str, rate: Rate, state: &Taken) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut set = |name, value: u64| {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
        };
        set("retry-after", seconds(state.next));
        if self.is_x() {
            set("x-ratelimit-limit", rate.burst);
            set("x-ratelimit-remaining", state.left);
            set("x-ratelimit-reset", seconds(state.all));
        }
        if self.is_standard() {
            // Both fields are to name the same moment.
            let state = Taken { all: state.next, ..*state };
            standard(&[(name, rate, state)], &mut headers);
        }
        headers
    }
}

/// The standard's fields for the limits that count a request.
pub(super) fn standard(limits: &[(&str, Rate, Taken)], headers: &mut HeaderMap) {
    let (mut policies, mut states) = (String::new(), String::new());
    for (name, rate, state) in limits {
        let between = if policies.is_empty() { "" } else { ", " };
        let (quota, window) = quota(*rate);
        _ = write!(policies, "{between}\"{name}\";q={quota};w={window}");
        _ = write!(states, "{between}\"{name}\";r={};t={}", state.left, seconds(state.all));
    }
    for (name, text) in LIMIT_HEADERS.into_iter().zip([policies, states]) {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// In whole seconds, which are all that the standard's window has.
fn quota(rate: Rate) -> (u64, u64) {
    let window = seconds(rate.interval).max(1);
    if rate.interval.subsec_nanos() == 0 {
        return (rate.tokens, window);
    }
    let tokens = u128::from(rate.tokens) * u128::from(window) * 1_000_000_000;
    let tokens = tokens / rate.interval.as_nanos().max(1);
    (u64::try_from(tokens).unwrap_or(u64::MAX), window)
}

fn seconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_those_of_whole_seconds() {
        for (tokens, interval, expected) in [
            (100, Duration::from_secs(60), (100, 60)),
            (5, Duration::from_millis(500), (10, 1)),
            (3, Duration::from_millis(1500), (4, 2)),
        ] {
            assert_eq!(quota(Rate { tokens, interval, burst: 1 }), expected);
        }
    }

    #[test]
    fn the_standards_fields_list_all_limits() {
        let rate = Rate { tokens: 10, interval: Duration::from_secs(1), burst: 20 };
        let (next, all) = (Duration::ZERO, Duration::from_millis(1500));
        let state = Taken { taken: true, left: 5, next, all };
        let mut headers = HeaderMap::new();
        standard(&[("a", rate, state), ("b", rate, state)], &mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"a\";q=10;w=1, \"b\";q=10;w=1");
        assert_eq!(headers["ratelimit"], "\"a\";r=5;t=2, \"b\";r=5;t=2");
    }
}
