//! For how long keys are good, as the answer that had them says (RFC 9111), and with what they are asked for again.

use std::time::Duration;

use http::header::{
    AGE, CACHE_CONTROL, DATE, ETAG, EXPIRES, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use httpdate::parse_http_date;

/// Keys are not fetched more often because they are about to expire, whatever an answer says.
pub(super) const LEAST: Duration = Duration::from_secs(60);
/// A key that an issuer withdraws must not be believed for longer.
const MOST: Duration = Duration::from_secs(24 * 60 * 60);
/// Envoy's, where an answer says nothing (`RemoteJwks.cache_duration`).
const DEFAULT: Duration = Duration::from_secs(5 * 60);
/// Longer values do not come back with a request.
const MAX_VALIDATOR: usize = 256;

/// How long the keys of an answer with these headers are good.
pub(super) fn lifetime(headers: &HeaderMap) -> Duration {
    let said = directives(headers).or_else(|| expires(headers));
    said.unwrap_or(DEFAULT).clamp(LEAST, MOST)
}

/// Of directives that contradict each other, the strictest counts.
fn directives(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|it| it.to_str().ok());
    let mut least: Option<Duration> = None;
    for directive in values.flat_map(|value| value.split(',')) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let found = match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => Duration::ZERO,
            // A number that cannot be counted is a long time, and any other value is none (RFC 9111, 1.2.2 and 4.2.1).
            "max-age" => seconds(value.trim().trim_matches('"')).unwrap_or_default(),
            _ => continue,
        };
        least = Some(least.map_or(found, |least| least.min(found)));
    }
    Some(least?.saturating_sub(age(headers)))
}

fn seconds(text: &str) -> Option<Duration> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Duration::from_secs(text.parse().unwrap_or(u64::MAX)))
}

fn age(headers: &HeaderMap) -> Duration {
    text(headers, &AGE).and_then(|age| seconds(age.trim())).unwrap_or_default()
}

/// By the clock of the server alone.
fn expires(headers: &HeaderMap) -> Option<Duration> {
    let until = text(headers, &EXPIRES)?;
    // Anything else than a date has expired (RFC 9111, 5.3).
    let Ok(until) = parse_http_date(until) else { return Some(Duration::ZERO) };
    let date = parse_http_date(text(headers, &DATE)?).ok()?;
    Some(until.duration_since(date).unwrap_or_default().saturating_sub(age(headers)))
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// By what the server knows which keys it gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Validators {
    etag: Option<HeaderValue>,
    modified: Option<HeaderValue>,
}

impl Validators {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let short = |name| headers.get(name).filter(|value| value.len() <= MAX_VALIDATOR).cloned();
        Self { etag: short(ETAG), modified: short(LAST_MODIFIED) }
    }

    /// Whether a server may answer that nothing has changed.
    pub(super) fn are_there(&self) -> bool {
        self.etag.is_some() || self.modified.is_some()
    }

    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        headers.extend(self.etag.clone().map(|tag| (IF_NONE_MATCH, tag)));
        headers.extend(self.modified.clone().map(|date| (IF_MODIFIED_SINCE, date)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_good_for_as_long_as_the_answer_says_within_bounds() {
        let date = ("date", "Sun, 29 Nov 2026 10:00:00 GMT");
        let minutes = |count: u64| Duration::from_secs(count * 60);
        for (headers, expected) in [
            (&[][..], DEFAULT),
            (&[("cache-control", "max-age=3600")], minutes(60)),
            (&[("cache-control", "public, Max-Age=\"3600\", must-revalidate")], minutes(60)),
            (&[("cache-control", "max-age=3600"), ("age", "600")], minutes(50)),
            (&[("cache-control", "max-age=3600"), ("age", "7200")], LEAST),
            (&[("cache-control", "max-age=3600"), ("age", "soon")], minutes(60)),
            (&[("cache-control", "max-age=3600, max-age=600")], minutes(10)),
            (&[("cache-control", "max-age=3600"), ("cache-control", "no-cache")], LEAST),
            (&[("cache-control", "no-store")], LEAST),
            (&[("cache-control", "max-age=0")], LEAST),
            (&[("cache-control", "max-age=-1")], LEAST),
            (&[("cache-control", "max-age=99999999999999999999999999")], MOST),
            (&[("cache-control", "max-age=31536000")], MOST),
            (&[("cache-control", "s-maxage=10, private")], DEFAULT),
            (&[date, ("expires", "Sun, 29 Nov 2026 10:20:00 GMT")], minutes(20)),
            (&[date, ("expires", "Sun, 29 Nov 2026 09:00:00 GMT")], LEAST),
            (&[date, ("expires", "0")], LEAST),
            (&[("expires", "Sun, 29 Nov 2026 10:20:00 GMT")], DEFAULT),
            (
                &[
                    ("cache-control", "max-age=600"),
                    date,
                    ("expires", "Mon, 30 Nov 2026 10:00:00 GMT"),
                ],
                minutes(10),
            ),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(lifetime(&map), expected, "{headers:?}");
        }
    }

    #[test]
    fn the_server_is_asked_by_what_it_said() {
        let mut headers = HeaderMap::new();
        assert!(!Validators::of(&headers).are_there());
        headers.insert(ETAG, HeaderValue::from_static("\"a\""));
        let mut asked = HeaderMap::new();
        Validators::of(&headers).ask(&mut asked);
        assert_eq!(asked.get(IF_NONE_MATCH).unwrap(), "\"a\"");
        headers.insert(ETAG, "x".repeat(300).parse().unwrap());
        assert!(!Validators::of(&headers).are_there());
    }
}
