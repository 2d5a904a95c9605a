//! Istio's `HTTPRetry`, as VirtualServices and MeshConfig's `defaultHttpRetryPolicy` have it.
//!
//! A request that was certainly not processed goes to another endpoint under any policy, so `connect-failure`, `refused-stream` and
//! `reset-before-request` need not be named. Everything else holds for every method, as in Envoy: whoever names `reset`, `5xx` or
//! `gateway-error` says that requests may be carried out twice.

use std::time::Duration;

use http::StatusCode;

use super::Severity;
use crate::base::schema::parse_istio_duration;
use crate::model::{Retry, RetryCondition, RetryOn};
use crate::source::objects::HttpRetry;

/// What holds without `retryOn` (Istio's reference).
const DEFAULT: [RetryCondition; 4] = [
    RetryCondition::ConnectFailure,
    RetryCondition::RefusedStream,
    RetryCondition::Unavailable,
    RetryCondition::Cancelled,
];

/// What an `HTTPRetry` says.
pub(super) struct Read {
    pub(super) retry: Retry,
    /// How long one attempt may take until its response begins.
    pub(super) each: Option<Duration>,
    /// What of it is wrong, or has no effect.
    pub(super) complaints: Vec<Wrong>,
}

/// A field of an `HTTPRetry` that is not carried out as it is written.
#[derive(Debug, PartialEq)]
pub(super) struct Wrong {
    pub(super) severity: Severity,
    /// From the policy on.
    pub(super) field: String,
    pub(super) reason: String,
}

/// Reads a policy. It is off where it says so, and where it is wrong in that.
pub(super) fn read(written: &HttpRetry) -> Read {
    let mut reading = Reading { complaints: Vec::new() };
    let HttpRetry {
        attempts,
        per_try_timeout,
        retry_on,
        backoff,
        retry_remote_localities,
        retry_ignore_previous_hosts,
        rest,
    } = written;
    for name in rest.keys() {
        reading.error(name, "is not a field of HTTPRetry and has no effect");
    }
    let says_more = per_try_timeout.is_some()
        || retry_on.as_ref().is_some_and(|on| !on.is_empty())
        || retry_remote_localities.is_some();
    let attempts = reading.attempts(*attempts, says_more);
    let each = reading.duration("perTryTimeout", per_try_timeout.as_deref());
    let backoff = reading.duration("backoff", backoff.as_deref());
    let on = reading.conditions(retry_on.as_deref().unwrap_or_default());
    let retry = Retry {
        backoff: backoff.unwrap_or(Retry::BACKOFF),
        avoids_previous: *retry_ignore_previous_hosts,
        leaves_locality: retry_remote_localities.unwrap_or_default(),
        ..Retry::new(on, attempts)
    };
    // Istio has no time limit for attempts where there are no retries.
    let each = each.filter(|_| !retry.is_off());
    Read { retry, each, complaints: reading.complaints }
}

struct Reading {
    complaints: Vec<Wrong>,
}

impl Reading {
    fn complain(&mut self, severity: Severity, field: &str, reason: impl Into<String>) {
        self.complaints.push(Wrong { severity, field: field.to_owned(), reason: reason.into() });
    }

    fn warn(&mut self, field: &str, reason: impl Into<String>) {
        self.complain(Severity::Warning, field, reason);
    }

    fn error(&mut self, field: &str, reason: impl Into<String>) {
        self.complain(Severity::Error, field, reason);
    }

    fn attempts(&mut self, attempts: Option<i32>, says_more: bool) -> u32 {
        const FIELD: &str = "attempts";
        let Ok(attempts) = u32::try_from(attempts.unwrap_or_default()) else {
            self.error(FIELD, "is negative; requests are not retried");
            return 0;
        };
        if attempts == 0 && says_more {
            let reason = "is 0, or missing, which disables retries and the rest of the policy with them; say how often a request \
                          may be retried";
            self.error(FIELD, reason);
        }
        if attempts > Retry::MOST_ATTEMPTS {
            let most = Retry::MOST_ATTEMPTS;
            self.warn(FIELD, format!("{attempts} is more than {most}, which holds instead"));
        }
        attempts.min(Retry::MOST_ATTEMPTS)
    }

    /// One of at least a millisecond.
    fn duration(&mut self, field: &str, text: Option<&str>) -> Option<Duration> {
        let text = text?;
        let read = parse_istio_duration(text).filter(|read| *read >= Duration::from_millis(1));
        if read.is_none() {
            let reason =
                format!("{text:?} is not a duration such as 1ms, 500ms or 10s; it is left out");
            self.error(field, reason);
        }
        read
    }

    fn conditions(&mut self, written: &str) -> RetryOn {
        let mut names =
            written.split(',').map(str::trim).filter(|name| !name.is_empty()).peekable();
        if names.peek().is_none() {
            return RetryOn::any(&DEFAULT);
        }
        let mut on = RetryOn::default();
        for name in names {
            self.condition(&mut on, name);
        }
        if on.has(RetryCondition::StatusCodes) && on.codes.is_empty() {
            let reason = "names retriable-status-codes and no status, so it has no effect; add the statuses, as in \
                          \"retriable-status-codes,503\"";
            self.warn("retryOn", reason);
        }
        on
    }

    fn condition(&mut self, on: &mut RetryOn, name: &str) {
        if let Some(code) = status(name) {
            on.add(RetryCondition::StatusCodes);
            on.codes.push(code);
            return;
        }
        match RetryCondition::named(name) {
            Some(RetryCondition::Headers) => {
                let reason =
                    "retriable-headers has no effect: an HTTPRetry cannot name the headers";
                self.warn("retryOn", reason);
            }
            Some(condition) => on.add(condition),
            None if name == "http3-post-connect-failure" => {
                let reason = format!("{name} has no effect: no request is sent over HTTP/3");
                self.warn("retryOn", reason);
            }
            None => {
                let reason = format!(
                    "{name:?} is none of Envoy's conditions, nor a status from 100 to 599; it has no effect"
                );
                self.error("retryOn", reason);
            }
        }
    }
}

fn status(name: &str) -> Option<StatusCode> {
    let number: u16 = name.parse().ok()?;
    StatusCode::from_u16(number).ok().filter(|_| number < 600)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> HttpRetry {
        serde_saphyr::from_str(text).unwrap()
    }

    fn on(text: &str) -> (Vec<&'static str>, Vec<u16>, Vec<Severity>) {
        let read = read(&policy(&format!("{{attempts: 1, retryOn: {text:?}}}")));
        let names = read.retry.on.conditions().map(RetryCondition::name).collect();
        let codes = read.retry.on.codes.iter().map(|code| code.as_u16()).collect();
        assert!(read.complaints.iter().all(|it| it.field == "retryOn"), "{:?}", read.complaints);
        (names, codes, read.complaints.iter().map(|it| it.severity).collect())
    }

    /// Every name of Istio's validation, which are Envoy's.
    #[test]
    fn each_condition_of_envoy_is_known() {
        for name in [
            "5xx",
            "gateway-error",
            "reset",
            "reset-before-request",
            "connect-failure",
            "retriable-4xx",
            "refused-stream",
            "envoy-ratelimited",
            "cancelled",
            "deadline-exceeded",
            "internal",
            "resource-exhausted",
            "unavailable",
        ] {
            assert_eq!(on(name), (vec![name], vec![], vec![]));
        }
        use Severity::{Error, Warning};
        for (text, names, codes, severities) in [
            (
                "",
                vec!["connect-failure", "refused-stream", "cancelled", "unavailable"],
                vec![],
                vec![],
            ),
            (" reset , 5xx,", vec!["reset", "5xx"], vec![], vec![]),
            // Statuses stand for themselves, or go with the name.
            ("503,reset", vec!["reset", "retriable-status-codes"], vec![503], vec![]),
            (
                "retriable-status-codes,409, 429",
                vec!["retriable-status-codes"],
                vec![409, 429],
                vec![],
            ),
            ("200", vec!["retriable-status-codes"], vec![200], vec![]),
            // What has no effect is said.
            ("retriable-status-codes", vec!["retriable-status-codes"], vec![], vec![Warning]),
            ("retriable-headers", vec![], vec![], vec![Warning]),
            ("http3-post-connect-failure,reset", vec!["reset"], vec![], vec![Warning]),
            ("gateway-errors,99,600,5xx", vec!["5xx"], vec![], vec![Error, Error, Error]),
            ("reset of idempotent methods", vec![], vec![], vec![Error]),
        ] {
            assert_eq!(on(text), (names, codes, severities), "{text:?}");
        }
    }

    #[test]
    fn the_other_fields_are_istios() {
        let all = read(&policy(
            "{attempts: 3, perTryTimeout: 2s, backoff: 100ms, retryIgnorePreviousHosts: false, retryRemoteLocalities: true}",
        ));
        assert_eq!(all.complaints, []);
        let Retry { attempts, backoff, avoids_previous, leaves_locality, .. } = all.retry;
        assert_eq!((attempts, backoff), (3, Duration::from_millis(100)));
        assert_eq!((avoids_previous, leaves_locality), (Some(false), true));
        assert_eq!(all.each, Some(Duration::from_secs(2)));
        let bare = read(&policy("{attempts: 1}"));
        assert_eq!(bare.complaints, []);
        assert_eq!((bare.retry, bare.each), (Retry::new(RetryOn::any(&DEFAULT), 1), None));
    }

    /// The rows of Istio's validation.
    #[test]
    fn what_istio_rejects_is_told() {
        for (text, fields, attempts) in [
            ("{}", &[][..], 0),
            ("{attempts: 0}", &[], 0),
            ("{attempts: -1}", &["attempts"], 0),
            ("{retryOn: 5xx}", &["attempts"], 0),
            ("{attempts: 0, perTryTimeout: 2s}", &["attempts"], 0),
            ("{attempts: 0, retryRemoteLocalities: false}", &["attempts"], 0),
            ("{attempts: 0, backoff: 1s}", &[], 0),
            ("{attempts: 1, perTryTimeout: 0s}", &["perTryTimeout"], 1),
            ("{attempts: 1, perTryTimeout: 10us, backoff: soon}", &["perTryTimeout", "backoff"], 1),
            ("{attempts: 99}", &["attempts"], 10),
            ("{attempts: 1, tries: 3}", &["tries"], 1),
        ] {
            let read = read(&policy(text));
            let told: Vec<_> = read.complaints.iter().map(|it| it.field.as_str()).collect();
            assert_eq!((told.as_slice(), read.retry.attempts), (fields, attempts), "{text}");
            assert_eq!(read.each, None, "{text}");
        }
    }
}
