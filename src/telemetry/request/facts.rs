//! A request as expressions see it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::RequestRecord;
use super::exported::Exported;
use super::formatted::{Kept, values};
use crate::expression::{Attribute, Expression, Facts, Value};
use crate::telemetry::Rules;
use crate::telemetry::facts::TLS_VERSION;

/// Rules, and the headers that their expressions look at.
pub(super) struct Ruled {
    pub(super) rules: Arc<Rules>,
    filter: Seen,
    /// By the places of the expressions. Empty if no label changes.
    tags: Vec<Seen>,
    /// Of the tags of the span that have a format.
    pub(super) span_tags: Vec<Kept>,
    pub(super) exports: Vec<Exported>,
}

/// Values of the headers that an expression looks at, by their places there.
#[derive(Default)]
pub(super) struct Seen {
    request: Vec<Option<HeaderValue>>,
    response: Vec<Option<HeaderValue>>,
}

impl Ruled {
    pub(super) fn new(rules: Arc<Rules>) -> Self {
        let tags = rules.request_tags.as_ref().map_or(0, |tags| tags.values.len());
        let tags = std::iter::repeat_with(Seen::default).take(tags).collect();
        let exports = rules.access.iter().flat_map(|access| &access.exports);
        let exports = exports.map(|sink| Exported::new(sink)).collect();
        let span_tags = rules.span_tags.iter().map(|tag| Kept::new(tag.format.clone())).collect();
        Self { rules, filter: Seen::default(), tags, span_tags, exports }
    }

    pub(super) fn of_request(&mut self, headers: &HeaderMap) {
        self.each(|expression, seen| seen.request = values(&expression.request_headers, headers));
        self.each_format(|kept| kept.of_request(headers));
    }

    pub(super) fn of_response(&mut self, headers: &HeaderMap) {
        self.each(|expression, seen| seen.response = values(&expression.response_headers, headers));
        self.each_format(|kept| kept.of_response(headers));
    }

    fn each(&mut self, keep: impl Fn(&Expression, &mut Seen)) {
        if let Some(only) = self.rules.access.as_ref().and_then(|it| it.only.as_ref()) {
            keep(only, &mut self.filter);
        }
        if let Some(tags) = &self.rules.request_tags {
            for (expression, seen) in tags.values.iter().zip(&mut self.tags) {
                keep(expression, seen);
            }
        }
    }

    fn each_format(&mut self, keep: impl Fn(&mut Kept)) {
        let exported = self.exports.iter_mut().flat_map(Exported::kept);
        self.span_tags.iter_mut().chain(exported).for_each(keep);
    }

    /// What the expression of a label looks at.
    pub(super) fn of_tag(&self, place: usize) -> Option<&Seen> {
        self.tags.get(place)
    }
}

/// A request that has ended.
pub(super) struct Ended<'a> {
    record: &'a RequestRecord,
    seen: Option<&'a Seen>,
    duration: Duration,
}

impl RequestRecord {
    /// The request as an expression sees it at its end.
    pub(super) fn facts<'a>(&'a self, seen: Option<&'a Seen>, duration: Duration) -> Ended<'a> {
        Ended { record: self, seen, duration }
    }

    /// Whether the access log shows it.
    pub(super) fn is_logged(&self, duration: Duration) -> bool {
        let Some(Ruled { rules, filter, .. }) = self.rules.as_deref() else { return true };
        let Some(access) = &rules.access else { return true };
        let ended = self.facts(Some(filter), duration);
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
            Attribute::RequestHeader(place) => header(&self.seen?.request, place)?,
            Attribute::ResponseHeader(place) => header(&self.seen?.response, place)?,
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
            Attribute::TlsVersion if start.mutual_tls => Value::text(TLS_VERSION),
            Attribute::TlsVersion => return None,
            Attribute::UriSan => return known(&start.source.principal),
            Attribute::UriSanLocal => return known(&record.destination.as_ref()?.0.principal),
            Attribute::RouteName => return known(&record.route),
            Attribute::Client(field) => return start.source.fact(field),
            Attribute::Server(field) => return record.destination.as_ref()?.0.fact(field),
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
    use http::{HeaderName, StatusCode};

    use crate::telemetry::AccessRules;
    use crate::telemetry::tests::request_record;

    use super::*;

    fn is_logged(access: AccessRules, headers: &[(&'static str, &str)]) -> bool {
        let mut record = request_record();
        let access = Some(Arc::new(access));
        record.follow(&Arc::new(Rules { access, ..Rules::default() }));
        let row = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
        };
        record.headers(&headers.iter().map(row).collect());
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
            ("filter_state.downstream_peer.app == 'curl'", true),
            ("has(filter_state.upstream_peer.app)", false),
        ] {
            let headers = [("x-user", "jason"), ("user-agent", "curl/8")];
            assert_eq!(is_logged(only(text), &headers), expected, "{text}");
        }
        assert!(is_logged(AccessRules::default(), &[]));
        assert!(!is_logged(AccessRules { disabled: true, ..AccessRules::default() }, &[]));
    }
}
