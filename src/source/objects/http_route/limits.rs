//! Timeouts and retries of a rule (GEP-1742, GEP-1731).

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use super::Unsupported;
use crate::base::schema::parse_duration;
use crate::model::{Retry, RetryOn, Timeouts};

/// How often a request is sent again when the route does not say (HTTPRouteRetry of Gateway API 1.7).
const ATTEMPTS: u32 = 1;

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
            per_try: None,
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
    pub fn read(&self) -> Result<Retry, Unsupported> {
        let code = |code: &i64| {
            let known = u16::try_from(*code).ok().filter(|code| (400..600).contains(code));
            known.and_then(|code| StatusCode::from_u16(code).ok()).ok_or_else(|| {
                Unsupported::new("retry.codes", format!("{code} is not from 400 to 599"))
            })
        };
        let attempts = self.attempts.unwrap_or(ATTEMPTS);
        if attempts > Retry::MOST_ATTEMPTS {
            let why = format!("{attempts} is more than {}", Retry::MOST_ATTEMPTS);
            return Err(Unsupported::new("retry.attempts", why));
        }
        let backoff = self.backoff.as_deref().map(|text| duration("retry.backoff", text));
        let codes = self.codes.iter().map(code).collect::<Result<_, _>>()?;
        let backoff = backoff.transpose()?.unwrap_or(Retry::BACKOFF);
        Ok(Retry { backoff, ..Retry::new(RetryOn::codes(codes), attempts) })
    }
}

fn duration(field: &str, text: &str) -> Result<Duration, Unsupported> {
    let why = || format!("{text:?} is not a duration such as 500ms, 10s or 1h30m");
    parse_duration(text).ok_or_else(|| Unsupported::new(field, why()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
