//! The record of a request as formats show it: those of MeshConfig and of Telemetry objects.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{RequestRecord, cut_header};
use crate::telemetry::access::{AccessFormat, Field, Operator, Shown, Values};
use crate::telemetry::log::write_time;

/// The headers that a format shows, by their places in it.
pub(super) struct Kept {
    pub(super) format: Arc<AccessFormat>,
    request: Vec<Option<HeaderValue>>,
    response: Vec<Option<HeaderValue>>,
}

impl Kept {
    pub(super) fn new(format: Arc<AccessFormat>) -> Self {
        Self { format, request: Vec::new(), response: Vec::new() }
    }

    pub(super) fn of_request(&mut self, headers: &HeaderMap) {
        self.request = values(&self.format.request, headers);
    }

    pub(super) fn of_response(&mut self, headers: &HeaderMap) {
        self.response = values(&self.format.response, headers);
    }

    /// The values of a request that has ended.
    pub(super) fn of<'a>(&'a self, record: &'a RequestRecord, duration: Duration) -> Ended<'a> {
        Ended { kept: self, record, duration }
    }
}

pub(super) fn values(names: &[HeaderName], headers: &HeaderMap) -> Vec<Option<HeaderValue>> {
    names.iter().map(|name| headers.get(name).map(cut_header)).collect()
}

/// A request that has ended.
pub(super) struct Ended<'a> {
    kept: &'a Kept,
    record: &'a RequestRecord,
    duration: Duration,
}

impl Values for Ended<'_> {
    fn value(&self, operator: &Operator) -> Option<Shown<'_>> {
        let record = self.record;
        let start = &record.start;
        Some(match operator {
            Operator::StartTime => {
                let mut written = String::new();
                let began = SystemTime::now().checked_sub(self.duration);
                write_time(&mut written, began.unwrap_or(SystemTime::UNIX_EPOCH));
                Shown::owned(written)
            }
            Operator::Protocol => Shown::text(start.protocol),
            Operator::ResponseCode => Shown::Number(record.code().into()),
            Operator::ResponseCodeDetails => Shown::text(record.details()),
            Operator::ResponseFlags => Shown::text(record.flags()),
            Operator::GrpcStatus => Shown::Number(record.grpc_status?.into()),
            Operator::BytesReceived => Shown::Number(record.request_bytes.into()),
            Operator::BytesSent => Shown::Number(record.response_bytes.into()),
            Operator::Duration => Shown::Number(self.duration.as_millis()),
            Operator::ResponseDuration => Shown::Number(record.upstream_time?.as_millis()),
            Operator::RouteName => Shown::text(&record.route),
            Operator::UpstreamHost => Shown::owned(record.destination.as_ref()?.1),
            Operator::RemoteAddress => Shown::owned(start.source_address),
            Operator::RemoteAddressWithoutPort => Shown::owned(start.source_address.ip()),
            Operator::PeerSan => Shown::text(&start.source.principal),
            Operator::Request(fields) => {
                return fields.iter().find_map(|it| self.field(it, &self.kept.request));
            }
            Operator::Response(fields) => {
                return fields.iter().find_map(|it| self.field(it, &self.kept.response));
            }
            Operator::RequestedServerName | Operator::Nothing => return None,
        })
    }
}

impl Ended<'_> {
    fn field<'a>(&'a self, field: &Field, headers: &'a [Option<HeaderValue>]) -> Option<Shown<'a>> {
        let start = &self.record.start;
        let value = match field {
            Field::Method => Cow::Borrowed(start.method.as_str()),
            Field::Path => Cow::Borrowed(start.path.as_str()),
            Field::Authority => Cow::Borrowed(start.authority.as_str()),
            Field::ServiceTime => {
                return Some(Shown::Number(self.record.upstream_time?.as_millis()));
            }
            Field::Header(index) => {
                String::from_utf8_lossy(headers.get(*index)?.as_ref()?.as_bytes())
            }
        };
        Some(Shown::Text(value))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::telemetry::log::MAX_LINE;
    use crate::telemetry::tests::request_record;

    fn line(format: AccessFormat, agent: &str) -> String {
        let mut record = request_record();
        let headers = [("user-agent", agent)].into_iter().map(|(name, value)| {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            (HeaderName::from_static(name), value)
        });
        let mut kept = Kept::new(Arc::new(format));
        kept.of_request(&headers.collect());
        kept.of_response(&HeaderMap::new());
        record.upstream_time(Duration::from_millis(3));
        record.response(http::StatusCode::OK);
        kept.format.line(&kept.of(&record, Duration::from_millis(7)))
    }

    #[test]
    fn text_shows_values_and_dashes() {
        let text = "\"%REQ(:METHOD)% %REQ(X-NO?:PATH)%\" %RESPONSE_CODE% %REQ(USER-AGENT):4% %RESP(X-NO)% %DURATION% %RESPONSE_CODE_DETAILS%";
        let format = AccessFormat::text(Some(text)).expect("a format");
        assert_eq!(line(format, "curl/8"), "\"GET /details\" 200 curl - 7 via_upstream\n");
    }

    #[test]
    fn json_keeps_types_and_shows_null() {
        let text = r#"{"code": "%RESPONSE_CODE%", "no": "%REQ(X-NO)%", "both": "%PROTOCOL% %DURATION%", "deep": {"a": ["%REQ(USER-AGENT)%", 1]}}"#;
        let format = AccessFormat::json(Some(text)).expect("a format");
        let read: Value = serde_json::from_str(&line(format, "a\"b")).expect("one object");
        assert_eq!(
            read,
            json!({"code": 200, "no": null, "both": "HTTP/1.1 7", "deep": {"a": ["a\"b", 1]}})
        );
    }

    /// A peer that knows the format adds nothing to it.
    #[test]
    fn values_of_peers_add_no_fields_and_no_lines() {
        let agent = format!("x\" 200 \"{}", "\t\"".repeat(10_000));
        let text = line(AccessFormat::text(None).expect("Istio's"), &agent);
        assert_eq!(text.matches('\n').count(), 1);
        assert!(!text.contains("x\" 200"), "{text}");
        assert!(text.len() < 8 * 1024, "{} bytes", text.len());
        let many = format!(
            "{{{}}}",
            (0..200)
                .map(|it| format!("\"{it}\":\"%REQ(USER-AGENT)%\""))
                .collect::<Vec<_>>()
                .join(",")
        );
        let text = line(AccessFormat::json(Some(&many)).expect("a format"), &agent);
        assert!(text.len() < 2 * MAX_LINE, "{} bytes", text.len());
        serde_json::from_str::<Value>(&text).expect("still one object");
    }
}
