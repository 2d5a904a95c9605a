//! A request as expressions see it.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::formatted::values;
use super::{RequestRecord, Ruled};
use crate::expression::{Attribute, Facts, Value};
use crate::telemetry::RequestRules;

/// Values of the headers that the filter of the access log looks at, by their places there.
#[derive(Default)]
pub(super) struct Seen {
    request: Vec<Option<HeaderValue>>,
    response: Vec<Option<HeaderValue>>,
}

impl Seen {
    pub(super) fn of_request(&mut self, rules: &RequestRules, headers: &HeaderMap) {
        if let Some(only) = rules.access.as_ref().and_then(|it| it.only.as_ref()) {
            self.request = values(&only.request_headers, headers);
        }
    }

    pub(super) fn of_response(&mut self, rules: &RequestRules, headers: &HeaderMap) {
        if let Some(only) = rules.access.as_ref().and_then(|it| it.only.as_ref()) {
            self.response = values(&only.response_headers, headers);
        }
    }
}

/// A request that has ended.
struct Ended<'a> {
    record: &'a RequestRecord,
    seen: &'a Seen,
    duration: Duration,
}

impl RequestRecord {
    /// Whether the access log shows it.
    pub(super) fn is_logged(&self, duration: Duration) -> bool {
        let Some(Ruled { rules, seen }) = self.rules.as_deref() else { return true };
        let Some(access) = &rules.access else { return true };
        let ended = Ended { record: self, seen, duration };
        !access.disabled && access.only.as_ref().is_none_or(|only| only.is_true(&ended))
    }
}

impl Facts for Ended<'_> {
    fn get(&self, attribute: Attribute) -> Option<Value<'_>> {
        let record = self.record;
        let start = &record.start;
        let (path, query) = start.path.split_once('?').unwrap_or((start.path.as_str(), ""));
        let upstream = record.destination.as_ref().map(|(_, address)| *address);
        Some(match attribute {
            Attribute::Path => Value::text(&start.path),
            Attribute::UrlPath => Value::text(path),
            Attribute::Query => Value::text(query),
            Attribute::Host => Value::text(&start.authority),
            Attribute::Scheme => Value::text("http"),
            Attribute::Method => Value::text(start.method.as_str()),
            Attribute::Protocol => Value::text(start.protocol),
            Attribute::RequestSize => Value::count(record.request_bytes),
            Attribute::Duration => duration(self.duration),
            Attribute::RequestHeader(place) => header(&self.seen.request, place)?,
            Attribute::ResponseHeader(place) => header(&self.seen.response, place)?,
            Attribute::Code => Value::Int(record.code().into()),
            Attribute::CodeDetails => return known(record.details()),
            Attribute::GrpcStatus => Value::Int(record.grpc_status?.into()),
            Attribute::ResponseSize => Value::count(record.response_bytes),
            Attribute::BackendLatency => duration(record.upstream_time?),
            Attribute::SourceAddress => owned(start.source_address),
            Attribute::SourcePort => Value::Int(start.source_address.port().into()),
            Attribute::DestinationAddress => owned(upstream?),
            Attribute::DestinationPort => Value::Int(upstream?.port().into()),
            Attribute::Mtls => Value::Bool(start.mutual_tls),
            Attribute::UriSan => return known(&start.source.principal),
            Attribute::RouteName => return known(&record.route),
            // Compiled to headers.
            Attribute::Referer | Attribute::UserAgent | Attribute::RequestId => return None,
        })
    }
}

fn known(text: &str) -> Option<Value<'_>> {
    (!text.is_empty()).then(|| Value::text(text))
}

fn header(values: &[Option<HeaderValue>], place: usize) -> Option<Value<'_>> {
    let value = values.get(place)?.as_ref()?;
    Some(Value::Text(String::from_utf8_lossy(value.as_bytes())))
}

fn duration(duration: Duration) -> Value<'static> {
    Value::Duration(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

fn owned(shown: impl ToString) -> Value<'static> {
    Value::Text(Cow::Owned(shown.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderName, StatusCode};

    use crate::expression::Expression;
    use crate::telemetry::tests::request_record;
    use crate::telemetry::{AccessRules, MetricRules, RequestRules};

    use super::*;

    fn is_logged(access: AccessRules, headers: &[(&'static str, &str)]) -> bool {
        let mut record = request_record();
        let access = Some(Arc::new(access));
        record.follow(&RequestRules { access, metrics: MetricRules::default() });
        let Some(Ruled { rules, seen }) = record.rules.as_deref_mut() else { panic!("rules") };
        let row = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
        };
        seen.of_request(rules, &headers.iter().map(row).collect());
        record.response(StatusCode::NOT_FOUND);
        record.request_bytes(5);
        record.is_logged(Duration::from_millis(7))
    }

    fn only(text: &str) -> AccessRules {
        let only = Some(Arc::new(Expression::parse(text).expect("an expression")));
        AccessRules { only, ..AccessRules::default() }
    }

    #[test]
    fn the_filter_sees_the_request_as_it_ended() {
        for (text, expected) in [
            ("response.code == 404 && request.size == 5", true),
            ("request.method == 'GET' && request.url_path == '/details'", true),
            ("request.headers['x-user'] == 'jason' && request.useragent.startsWith('curl')", true),
            ("request.headers['x-other'] == 'jason'", false),
            ("request.duration < duration('8ms') && request.duration >= duration('7ms')", true),
            ("response.code >= 500", false),
            ("has(response.grpc_status)", false),
        ] {
            let headers = [("x-user", "jason"), ("user-agent", "curl/8")];
            assert_eq!(is_logged(only(text), &headers), expected, "{text}");
        }
        assert!(is_logged(AccessRules::default(), &[]));
        assert!(!is_logged(AccessRules { disabled: true, ..AccessRules::default() }, &[]));
    }
}
