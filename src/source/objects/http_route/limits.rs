//! Timeouts and retries of a rule (GEP-1742, GEP-1731), and durations as Gateway API writes them (GEP-2257).

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use super::filter::Unsupported;
use crate::model::{Retry, Timeouts};

/// How often a request is sent again when the route does not say (HTTPRouteRetry of Gateway API 1.7).
const ATTEMPTS: u32 = 1;

/// How often a request may be sent again: more would only multiply the load on what is in trouble already.
const MOST_ATTEMPTS: u32 = 10;

/// The time between two attempts when the route does not say: Envoy's.
const BACKOFF: Duration = Duration::from_millis(25);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawTimeouts {
    #[serde(default)]
    request: Option<String>,
    #[serde(default)]
    backend_request: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawRetry {
    #[serde(default)]
    codes: Vec<i64>,
    #[serde(default)]
    attempts: Option<u32>,
    #[serde(default)]
    backoff: Option<String>,
}

impl RawTimeouts {
    /// `0s` stands for no limit.
    pub fn read(&self) -> Result<Timeouts, Unsupported> {
        let read = |field: &str, text: &Option<String>| -> Result<Option<Duration>, Unsupported> {
            let read = text.as_deref().map(|text| duration(&format!("timeouts.{field}"), text));
            Ok(read.transpose()?.filter(|duration| !duration.is_zero()))
        };
        let timeouts = Timeouts {
            request: read("request", &self.request)?,
            backend_request: read("backendRequest", &self.backend_request)?,
        };
        match (timeouts.request, timeouts.backend_request) {
            (Some(request), Some(backend)) if backend > request => {
                let why = "must not be longer than timeouts.request";
                Err(Unsupported::new("timeouts.backendRequest", why))
            }
            _ => Ok(timeouts),
        }
    }
}

impl RawRetry {
    /// `None` when nothing is sent again.
    pub fn read(&self) -> Result<Option<Retry>, Unsupported> {
        let code = |code: &i64| {
            let known = u16::try_from(*code).ok().filter(|code| (400..600).contains(code));
            known.and_then(|code| StatusCode::from_u16(code).ok()).ok_or_else(|| {
                Unsupported::new("retry.codes", format!("{code} is not from 400 to 599"))
            })
        };
        let attempts = self.attempts.unwrap_or(ATTEMPTS);
        if attempts > MOST_ATTEMPTS {
            let why = format!("{attempts} is more than {MOST_ATTEMPTS}");
            return Err(Unsupported::new("retry.attempts", why));
        }
        let backoff = self.backoff.as_deref().map(|text| duration("retry.backoff", text));
        let retry = Retry {
            codes: self.codes.iter().map(code).collect::<Result<_, _>>()?,
            attempts,
            backoff: backoff.transpose()?.unwrap_or(BACKOFF),
        };
        Ok((attempts > 0).then_some(retry))
    }
}

fn duration(field: &str, text: &str) -> Result<Duration, Unsupported> {
    let why = || format!("{text:?} is not a duration such as 500ms, 10s or 1h30m");
    parse(text).ok_or_else(|| Unsupported::new(field, why()))
}

/// One to four times one to five digits and a unit of `h`, `m`, `s`, `ms` (GEP-2257).
pub(in crate::source::objects) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut parts = 0;
    while !rest.is_empty() {
        parts += 1;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        if parts > 4 || digits > 5 {
            return None;
        }
        let number: u64 = number.parse().ok()?;
        total += match unit {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
        rest = after;
    }
    (parts > 0).then_some(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_of_the_api() {
        for (text, expected) in [
            ("0s", Some(0)),
            ("500ms", Some(500)),
            ("1h30m", Some(5_400_000)),
            ("1h2m3s4ms", Some(3_723_004)),
            ("99999s", Some(99_999_000)),
            ("100000s", None),
            ("1h2m3s4ms5s", None),
            ("", None),
            ("1", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("1us", None),
            ("1 s", None),
        ] {
            assert_eq!(parse(text), expected.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn zero_is_for_ever() {
        let timeouts = |request: &str, backend: &str| {
            let text = |text: &str| Some(text.to_owned());
            RawTimeouts { request: text(request), backend_request: text(backend) }.read()
        };
        let read = timeouts("0s", "2s").unwrap();
        assert_eq!((read.request, read.backend_request), (None, Some(Duration::from_secs(2))));
        assert_eq!(timeouts("1s", "2s").unwrap_err().field, "timeouts.backendRequest");
        assert_eq!(timeouts("x", "2s").unwrap_err().field, "timeouts.request");
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,12}|[0-9hms]{0,12}") {
            let grammar = regex::Regex::new("^([0-9]{1,5}(h|m|s|ms)){1,4}$").unwrap();
            prop_assert_eq!(parse(&text).is_some(), grammar.is_match(&text));
        }
    }
}
