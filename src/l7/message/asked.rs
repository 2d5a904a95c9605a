//! What a client asks of its own request in Envoy's headers: how long it may take, and after what it is sent again.
//!
//! Istio's sidecars are asked so by their applications. The headers are for the client's half alone: they are taken out before
//! anything else looks at the request, whatever they say. A client can only ask for less than the route gives: a shorter time, and no
//! more attempts than the route's policy has, or three where there is none. What does not parse is ignored.

use std::time::Duration;

use http::header::GetAll;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::framing;
use crate::model::{Retry, RetryCondition, RetryOn};

const PREFIX: &str = "x-envoy-";
const TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
const PER_TRY: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");
const STREAM: HeaderName = HeaderName::from_static("x-envoy-upstream-stream-duration-ms");
const RETRY_ON: HeaderName = HeaderName::from_static("x-envoy-retry-on");
const RETRY_GRPC_ON: HeaderName = HeaderName::from_static("x-envoy-retry-grpc-on");
const CODES: HeaderName = HeaderName::from_static("x-envoy-retriable-status-codes");
const NAMES: HeaderName = HeaderName::from_static("x-envoy-retriable-header-names");
const RETRIES: HeaderName = HeaderName::from_static("x-envoy-max-retries");
/// What proxies tell applications; a client's own means nothing.
const EXPECTED: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
/// Without effect here, and no matter of the application's either.
const HEDGE: HeaderName = HeaderName::from_static("x-envoy-hedge-on-per-try-timeout");

const ALL: [HeaderName; 10] =
    [TIMEOUT, PER_TRY, STREAM, RETRY_ON, RETRY_GRPC_ON, CODES, NAMES, RETRIES, EXPECTED, HEDGE];

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// gRPC over HTTP/2, `TimeoutValue`.
const MOST_DIGITS: usize = 8;

/// How often a request is sent again for the client's sake, where no policy says how often: Istio's default and one more.
const MOST_RETRIES: u32 = 3;
/// Envoy's, where the client says after what and not how often.
const RETRIES_BY_DEFAULT: u32 = 1;
/// Entries of a list; more are ignored.
const MOST_ENTRIES: usize = 32;

/// What a client asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::l7) struct Asked {
    /// With all attempts.
    pub(in crate::l7) timeout: Option<Duration>,
    /// One attempt, until its response begins.
    pub(in crate::l7) per_try: Option<Duration>,
    /// One attempt, until its response ends.
    pub(in crate::l7) stream: Option<Duration>,
    on: RetryOn,
    retries: Option<u32>,
    /// Under the policy that holds.
    pub(in crate::l7) retry: Option<Retry>,
}

impl Asked {
    /// Takes the headers out. `None`: nothing is asked for.
    pub(in crate::l7) fn take(headers: &mut HeaderMap) -> Option<Box<Self>> {
        if !headers.keys().any(|name| name.as_str().starts_with(PREFIX)) {
            return None;
        }
        let asked = Self::read(headers);
        framing::remove(headers, &ALL);
        (asked != Self::default()).then(|| Box::new(asked))
    }

    fn read(headers: &HeaderMap) -> Self {
        let mut on = RetryOn::default();
        let names =
            entries(headers.get_all(RETRY_ON)).chain(entries(headers.get_all(RETRY_GRPC_ON)));
        names.filter_map(RetryCondition::named).for_each(|condition| on.add(condition));
        if on.has(RetryCondition::StatusCodes) {
            let codes = entries(headers.get_all(CODES));
            on.codes =
                codes.filter_map(|code| StatusCode::from_bytes(code.as_bytes()).ok()).collect();
        }
        if on.has(RetryCondition::Headers) {
            on.headers =
                entries(headers.get_all(NAMES)).filter_map(|name| name.parse().ok()).collect();
        }
        Self {
            timeout: millis(headers, &TIMEOUT),
            per_try: millis(headers, &PER_TRY),
            stream: millis(headers, &STREAM),
            on,
            retries: number(headers, &RETRIES),
            retry: None,
        }
    }

    /// Decides how the request is retried, under the policy that holds for it.
    pub(in crate::l7) fn under(mut self: Box<Self>, policy: Option<&Retry>) -> Box<Self> {
        let says_when = self.on != RetryOn::default();
        self.retry = match policy {
            // The route's author has said that nothing is sent again.
            Some(policy) if policy.is_off() => None,
            Some(policy) if says_when || self.retries.is_some() => {
                let attempts = self.retries.unwrap_or(policy.attempts).min(policy.attempts);
                let mut on = policy.on.clone();
                on.join(&self.on);
                Some(Retry { on, attempts, ..policy.clone() })
            }
            None if says_when => {
                let attempts = self.retries.unwrap_or(RETRIES_BY_DEFAULT).min(MOST_RETRIES);
                Some(Retry::new(self.on.clone(), attempts))
            }
            Some(_) | None => None,
        };
        self
    }
}

/// The deadline that a gRPC client gives its call.
pub(in crate::l7) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > MOST_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// Tells the application how long it has, as Envoy does: in a header of its own, and to gRPC in gRPC's.
pub(in crate::l7) fn tell(headers: &mut HeaderMap, left: Duration, is_grpc: bool) {
    // Never 0, which stands for no limit.
    let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
    headers.insert(EXPECTED, HeaderValue::from(millis));
    if is_grpc {
        let (value, unit) = match millis {
            millis if millis < 100_000_000 => (millis, 'm'),
            millis if millis / 1000 < 100_000_000 => (millis / 1000, 'S'),
            millis => ((millis / 3_600_000).min(99_999_999), 'H'),
        };
        if let Ok(text) = HeaderValue::try_from(format!("{value}{unit}")) {
            headers.insert(GRPC_TIMEOUT, text);
        }
    }
}

/// Of one header with commas, or of several.
fn entries<'a>(values: GetAll<'a, HeaderValue>) -> impl Iterator<Item = &'a str> {
    let texts = values.into_iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim).take(MOST_ENTRIES)
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u32> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// 0 stands for no limit of the client's own.
fn millis(headers: &HeaderMap, name: &HeaderName) -> Option<Duration> {
    number(headers, name).filter(|it| *it > 0).map(|it| Duration::from_millis(u64::from(it)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn each_header_is_read_and_taken_out() {
        let with = |change: fn(&mut Asked)| {
            let mut asked = Asked::default();
            change(&mut asked);
            Some(asked)
        };
        for (fields, expected) in [
            (
                &[("x-envoy-upstream-rq-timeout-ms", "1500")][..],
                with(|it| it.timeout = Some(Duration::from_millis(1500))),
            ),
            (
                &[("x-envoy-upstream-rq-per-try-timeout-ms", "20")],
                with(|it| it.per_try = Some(Duration::from_millis(20))),
            ),
            (
                &[("x-envoy-upstream-stream-duration-ms", "7")],
                with(|it| it.stream = Some(Duration::from_millis(7))),
            ),
            (&[("x-envoy-max-retries", "4")], with(|it| it.retries = Some(4))),
            (
                &[("x-envoy-retry-on", "5xx, reset,no"), ("x-envoy-retry-grpc-on", "internal")],
                with(|it| {
                    it.on = RetryOn::any(&[
                        RetryCondition::ServerError,
                        RetryCondition::Reset,
                        RetryCondition::Internal,
                    ]);
                }),
            ),
            (
                &[
                    ("x-envoy-retry-on", "retriable-status-codes,retriable-headers"),
                    ("x-envoy-retriable-status-codes", "409, x,503"),
                    ("x-envoy-retriable-header-names", "X-Again, no good"),
                ],
                with(|it| {
                    it.on = RetryOn::any(&[RetryCondition::StatusCodes, RetryCondition::Headers]);
                    it.on.codes = vec![StatusCode::CONFLICT, StatusCode::SERVICE_UNAVAILABLE];
                    it.on.headers = vec![HeaderName::from_static("x-again")];
                }),
            ),
            // Nothing is asked for, and the headers are no application's matter all the same.
            (&[("x-envoy-upstream-rq-timeout-ms", "soon"), ("x-envoy-max-retries", "-1")], None),
            (&[("x-envoy-upstream-rq-timeout-ms", "0")], None),
            (
                &[
                    ("x-envoy-expected-rq-timeout-ms", "1"),
                    ("x-envoy-hedge-on-per-try-timeout", "true"),
                ],
                None,
            ),
            (&[("x-envoy-retriable-status-codes", "503")], None),
        ] {
            let mut fields: Vec<_> = fields.to_vec();
            fields.extend([("x-envoy-other", "kept"), ("x-other", "kept")]);
            let mut headers = headers(&fields);
            let asked = Asked::take(&mut headers).map(|asked| *asked);
            assert_eq!(asked, expected, "{fields:?}");
            assert_eq!(headers.len(), 2, "{headers:?}");
        }
    }

    /// A client never gets more attempts than the policy gives, nor any where it gives none.
    #[test]
    fn a_client_asks_for_less_than_the_policy_gives() {
        let on = |condition| RetryOn::any(&[condition]);
        let policy = |attempts| Retry::new(on(RetryCondition::Reset), attempts);
        for (policy, when, retries, expected) in [
            (None, true, None, Some(1)),
            (None, true, Some(2), Some(2)),
            (None, true, Some(1000), Some(3)),
            (None, true, Some(0), Some(0)),
            (None, false, Some(5), None),
            (Some(policy(0)), true, Some(5), None),
            (Some(policy(2)), true, None, Some(2)),
            (Some(policy(2)), true, Some(1), Some(1)),
            (Some(policy(2)), true, Some(9), Some(2)),
            (Some(policy(2)), false, Some(0), Some(0)),
            (Some(policy(2)), false, None, None),
        ] {
            let on = if when { on(RetryCondition::ServerError) } else { RetryOn::default() };
            let asked = Box::new(Asked { on, retries, ..Asked::default() }).under(policy.as_ref());
            let found = asked.retry.as_ref().map(|retry| retry.attempts);
            assert_eq!(found, expected, "{policy:?} {when} {retries:?}");
            if let (Some(retry), Some(_)) = (&asked.retry, &policy) {
                assert!(retry.on.has(RetryCondition::Reset), "what the policy says stays");
                assert_eq!(retry.on.has(RetryCondition::ServerError), when);
            }
        }
    }

    #[test]
    fn deadlines_of_grpc_are_read_and_written() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("0n", Some(Duration::ZERO)),
            ("100000000m", None),
            ("m", None),
            ("", None),
            ("-1S", None),
            ("1.5S", None),
            ("1h", None),
        ] {
            assert_eq!(grpc_timeout(&headers(&[("grpc-timeout", text)])), expected, "{text}");
        }
        for (left, grpc) in [
            (Duration::from_millis(250), "250m"),
            (Duration::from_micros(10), "1m"),
            (Duration::from_millis(99_999_999), "99999999m"),
            (Duration::from_millis(100_000_000), "100000S"),
            (Duration::from_secs(100_000_000), "27777H"),
            (Duration::MAX, "99999999H"),
        ] {
            let mut told = HeaderMap::new();
            tell(&mut told, left, true);
            assert_eq!(told["grpc-timeout"], grpc);
            tell(&mut told, left, false);
            assert_eq!(told.len(), 2);
        }
    }

    proptest! {
        /// Whatever peers send.
        #[test]
        fn nothing_a_peer_sends_breaks_it(values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 11)) {
            let names = ALL.into_iter().chain([GRPC_TIMEOUT]);
            let fields = names.zip(values).filter_map(|(name, value)| Some((name, HeaderValue::from_bytes(&value).ok()?)));
            let mut headers: HeaderMap = fields.collect();
            _ = grpc_timeout(&headers);
            let asked = Asked::take(&mut headers).map(|asked| asked.under(None));
            prop_assert!(asked.and_then(|it| it.retry).is_none_or(|retry| retry.attempts <= MOST_RETRIES));
            prop_assert!(ALL.iter().all(|name| !headers.contains_key(name)));
        }
    }
}
