//! MeshConfig's `defaultHttpRetryPolicy`: how requests are retried where no rule of a route says it.
//!
//! Requests that were certainly not sent go to another endpoint anyway (`connect-failure`, `refused-stream`). The policy adds the
//! statuses of `retryOn`, and as with a rule's `retry` the requests of idempotent methods whose connection broke.

use std::sync::Arc;

use http::StatusCode;

use super::Check;
use crate::base::schema::parse_duration;
use crate::model::{DefaultRetry, Retry};
use crate::source::objects::{ConfigMap, HttpRetry};

/// Istio's, where the policy does not say.
const ATTEMPTS: u32 = 2;
/// As in a route.
const MOST_ATTEMPTS: u32 = 10;
/// Envoy's.
const BACKOFF: &str = "25ms";
/// Failures after which a request is sent again in any case, or with any policy; and the mark that numbers are statuses.
const CARRIED: [&str; 5] = [
    "connect-failure",
    "refused-stream",
    "reset-before-request",
    "reset",
    "retriable-status-codes",
];

impl Check<'_, '_> {
    /// The policy, without what cannot be carried out.
    pub(super) fn retries(&mut self, policy: &HttpRetry) -> Arc<DefaultRetry> {
        const WITHIN: &str = "defaultHttpRetryPolicy";
        self.rest(WITHIN, &policy.rest);
        let attempts = policy.attempts.unwrap_or(ATTEMPTS);
        if attempts > MOST_ATTEMPTS {
            let reason = format!("{attempts} is more than {MOST_ATTEMPTS}, which holds instead");
            self.warn(&format!("{WITHIN}.attempts"), reason);
        }
        let mut duration = |field: &str, text: Option<&str>| {
            let text = text?;
            let read = parse_duration(text);
            if read.is_none() {
                let reason =
                    format!("{text:?} is not a duration such as 500ms or 10s; it is left out");
                let field = format!("data.mesh, {WITHIN}.{field}");
                self.cx.error::<ConfigMap>(&self.key, field, reason);
            }
            read
        };
        let each = duration("perTryTimeout", policy.per_try_timeout.as_deref());
        let backoff = duration("backoff", policy.backoff.as_deref());
        let backoff = backoff.or_else(|| parse_duration(BACKOFF)).unwrap_or_default();
        let mut codes = Vec::new();
        for named in policy.retry_on.as_deref().unwrap_or_default().split(',').map(str::trim) {
            match statuses(named) {
                Some(statuses) => codes.extend(statuses),
                None if named.is_empty() || CARRIED.contains(&named) => {}
                None => {
                    let reason = format!("{named:?} is not carried out");
                    self.warn(&format!("{WITHIN}.retryOn"), reason);
                }
            }
        }
        let retry = Retry { codes, attempts: attempts.min(MOST_ATTEMPTS), backoff };
        Arc::new(DefaultRetry { retry, each: each.filter(|limit| !limit.is_zero()) })
    }
}

/// The statuses that a name of `retryOn` stands for.
fn statuses(named: &str) -> Option<Vec<StatusCode>> {
    let numbers = match named {
        "5xx" => 500..=599,
        "gateway-error" => 502..=504,
        "retriable-4xx" => 409..=409,
        number => {
            let number = number.parse().ok().filter(|code| (400..600).contains(code))?;
            number..=number
        }
    };
    Some(numbers.filter_map(|code| StatusCode::from_u16(code).ok()).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::source::tests::translated;

    fn with(policy: &str) -> crate::source::Translation {
        translated(&format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    \
             defaultHttpRetryPolicy: {policy}\n"
        ))
    }

    #[test]
    fn attempts_statuses_and_times_are_carried_out() {
        let on = "'connect-failure,gateway-error, 429'";
        let translation = with(&format!("{{attempts: 3, retryOn: {on}, perTryTimeout: 2s}}"));
        assert!(translation.complaints.is_empty(), "{:?}", translation.complaints);
        let default = translation.mesh.retry.expect("a policy");
        assert_eq!(default.retry.attempts, 3);
        assert_eq!(default.retry.codes, [502u16, 503, 504, 429]);
        assert_eq!(default.each, Some(Duration::from_secs(2)));
        let bare = with("{}").mesh.retry.expect("a policy");
        assert_eq!((bare.retry.attempts, bare.retry.codes.len(), bare.each), (2, 0, None));
        assert!(with("{attempts: 0}").mesh.retry.expect("a policy").retry.is_off());
        assert!(translated("").mesh.retry.is_none());
    }

    #[test]
    fn what_is_not_carried_out_is_told() {
        let policy = "{attempts: 99, retryOn: 'cancelled,200,5xx', perTryTimeout: long, retryRemoteLocalities: true}";
        let translation = with(policy);
        let fields: Vec<_> = translation.complaints.iter().map(|it| it.field.as_str()).collect();
        let expected =
            [".attempts", ".perTryTimeout", ".retryOn", ".retryOn", ".retryRemoteLocalities"];
        assert_eq!(
            fields,
            expected.map(|field| format!("data.mesh, defaultHttpRetryPolicy{field}"))
        );
        let retry = &translation.mesh.retry.expect("a policy").retry;
        assert_eq!((retry.attempts, retry.codes.len()), (10, 100));
    }
}
