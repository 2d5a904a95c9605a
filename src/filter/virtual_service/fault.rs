//! `fault` (Istio, HTTPFaultInjection): the same filter as a TrafficPolicy's, written in another way.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use crate::base::Str;
use crate::base::schema::parse_istio_duration;
use crate::filter::grpc;
use crate::filter::{Abort, Delay, Fault, Injection, Share};

/// The denominator of a percentage: Envoy's, so that as many places behind the point count.
const MILLION: u32 = 1_000_000;

/// `HTTPFaultInjection`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    #[serde(default)]
    delay: Option<WrittenDelay>,
    #[serde(default)]
    abort: Option<WrittenAbort>,
}

/// `HTTPFaultInjection.Delay`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenDelay {
    /// The older form of `percentage`.
    #[serde(default)]
    percent: Option<u32>,
    #[serde(default)]
    fixed_delay: Option<String>,
    #[serde(default)]
    exponential_delay: Option<String>,
    #[serde(default)]
    percentage: Option<Percent>,
}

/// `HTTPFaultInjection.Abort`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenAbort {
    #[serde(default)]
    http_status: Option<u32>,
    #[serde(default)]
    grpc_status: Option<String>,
    #[serde(default)]
    http2_error: Option<String>,
    #[serde(default)]
    percentage: Option<Percent>,
}

/// `Percent`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Percent {
    #[serde(default)]
    value: f64,
}

impl Percent {
    pub fn new(value: f64) -> Self {
        Self { value }
    }

    /// `None` for what is no percentage.
    pub fn share(self) -> Option<Share> {
        let is_one = self.value.is_finite() && (0.0..=100.0).contains(&self.value);
        let numerator = (self.value * f64::from(MILLION) / 100.0) as u32;
        is_one.then_some(Share { numerator, denominator: MILLION })
    }
}

impl Written {
    /// `None`: nothing is injected, because no percentage of the requests is meant. `by` says it.
    pub fn read(&self, by: Str) -> Result<Option<Injection>, Fault> {
        let delay = self.delay.as_ref().map(WrittenDelay::read).transpose()?;
        let abort = self.abort.as_ref().map(WrittenAbort::read).transpose()?;
        let delay = delay.filter(|delay| delay.share.numerator > 0);
        let abort = abort.filter(|abort| abort.share.numerator > 0);
        let injects = delay.is_some() || abort.is_some();
        Ok(injects.then(|| Injection::new(by, abort, delay)))
    }
}

impl WrittenDelay {
    fn read(&self) -> Result<Delay, Fault> {
        if self.exponential_delay.is_some() {
            let why = "is not carried out, as in Istio; use fixedDelay";
            return Err(Fault::field("delay.exponentialDelay", why));
        }
        let text = self.fixed_delay.as_deref().unwrap_or_default();
        let time = parse_istio_duration(text).filter(|it| *it >= Duration::from_millis(1));
        let Some(time) = time.filter(|time| *time <= Injection::LONGEST) else {
            let why = format!("{text:?} is not a duration from 1ms to 1h such as 500ms or 5s");
            return Err(Fault::field("delay.fixedDelay", why));
        };
        let share = share("delay", self.percentage, self.percent)?;
        Ok(Delay { time, share })
    }
}

impl WrittenAbort {
    fn read(&self) -> Result<Abort, Fault> {
        if self.http2_error.is_some() {
            let why = "is not carried out, as in Istio; use httpStatus or grpcStatus";
            return Err(Fault::field("abort.http2Error", why));
        }
        let share = share("abort", self.percentage, None)?;
        match (self.http_status, self.grpc_status.as_deref()) {
            (Some(code), None) => {
                let status = u16::try_from(code).ok().filter(|code| (200..600).contains(code));
                let Some(status) = status.and_then(|code| StatusCode::from_u16(code).ok()) else {
                    let why = format!("{code} is not from 200 to 599");
                    return Err(Fault::field("abort.httpStatus", why));
                };
                Ok(Abort { status, grpc: None, share })
            }
            (None, Some(name)) => {
                let Some(code) = grpc::number(name) else {
                    let why = format!("{name:?} is not the name of a gRPC status");
                    return Err(Fault::field("abort.grpcStatus", why));
                };
                Ok(Abort { status: grpc::http_of(code), grpc: Some(code), share })
            }
            _ => Err(Fault::field("abort", "needs either httpStatus or grpcStatus")),
        }
    }
}

/// No request, where there is no percentage (Istio's reference).
fn share(of: &str, percentage: Option<Percent>, percent: Option<u32>) -> Result<Share, Fault> {
    let given = percentage.or_else(|| Some(Percent { value: f64::from(percent?) }));
    given
        .unwrap_or_default()
        .share()
        .ok_or_else(|| Fault::field(format!("{of}.percentage"), "is not from 0 to 100"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(written: &Value) -> Result<Option<Injection>, Fault> {
        let written: Written = serde_json::from_value(written.clone()).unwrap();
        written.read("VirtualService shop/reviews".into())
    }

    #[test]
    fn shares_are_as_written_and_none_without_a_percentage() {
        let abort = |percentage: Value| {
            let mut abort = json!({"httpStatus": 500});
            if !percentage.is_null() {
                abort["percentage"] = percentage;
            }
            let found = read(&json!({"abort": abort})).unwrap();
            found.and_then(|it| it.abort).map(|it| it.share.numerator)
        };
        assert_eq!(abort(json!({"value": 100})), Some(MILLION));
        assert_eq!(abort(json!({"value": 0.1})), Some(1_000));
        assert_eq!(abort(json!({"value": 33.33})), Some(333_300));
        assert_eq!(abort(json!({"value": 0})), None);
        assert_eq!(abort(json!({})), None);
        assert_eq!(abort(Value::Null), None);
        let delay = json!({"delay": {"fixedDelay": "7s", "percent": 20}});
        let delay = read(&delay).unwrap().unwrap().delay.unwrap();
        assert_eq!((delay.time, delay.share.numerator), (Duration::from_secs(7), 200_000));
        assert!(read(&json!({"delay": {"fixedDelay": "7s"}})).unwrap().is_none());
    }

    #[test]
    fn statuses_of_grpc_are_names() {
        let abort = json!({"abort": {"grpcStatus": "UNAVAILABLE", "percentage": {"value": 1}}});
        let abort = read(&abort).unwrap().unwrap().abort.unwrap();
        assert_eq!((abort.grpc, abort.status.as_u16()), (Some(14), 503));
    }

    #[test]
    fn what_is_no_fault_is_one() {
        for (written, field) in [
            (json!({"abort": {}}), "abort"),
            (json!({"abort": {"httpStatus": 500, "grpcStatus": "OK"}}), "abort"),
            (json!({"abort": {"httpStatus": 99}}), "abort.httpStatus"),
            (json!({"abort": {"grpcStatus": "14"}}), "abort.grpcStatus"),
            (json!({"abort": {"http2Error": "x"}}), "abort.http2Error"),
            (
                json!({"abort": {"httpStatus": 500, "percentage": {"value": 101}}}),
                "abort.percentage",
            ),
            (json!({"delay": {}}), "delay.fixedDelay"),
            (json!({"delay": {"fixedDelay": "0s"}}), "delay.fixedDelay"),
            (json!({"delay": {"exponentialDelay": "1s"}}), "delay.exponentialDelay"),
        ] {
            match read(&written) {
                Err(Fault::Field { field: found, .. }) => assert_eq!(found, field, "{written}"),
                other => panic!("{written}: {other:?}"),
            }
        }
    }
}
