//! The record of a request in a format that MeshConfig gives. Texts of peers are escaped as in our own lines: they add neither
//! lines nor fields.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{RequestRecord, cut_header};
use crate::telemetry::access::{AccessFormat, Field, Node, Operator, Piece, Shape};
use crate::telemetry::log::{MAX_LINE, quote, write_escaped, write_time};

/// Where a value is missing, in text.
const MISSING: &str = "-";

/// The headers that a format shows, by their places in it.
pub(super) struct Kept {
    format: Arc<AccessFormat>,
    request: Vec<Option<HeaderValue>>,
    response: Vec<Option<HeaderValue>>,
}

impl Kept {
    pub(super) fn new(format: Arc<AccessFormat>) -> Box<Self> {
        Box::new(Self { format, request: Vec::new(), response: Vec::new() })
    }

    pub(super) fn of_request(&mut self, headers: &HeaderMap) {
        self.request = values(&self.format.request, headers);
    }

    pub(super) fn of_response(&mut self, headers: &HeaderMap) {
        self.response = values(&self.format.response, headers);
    }

    /// The line, with its end.
    pub(super) fn line(&self, record: &RequestRecord, duration: Duration) -> String {
        let mut writer = Writer { kept: self, record, duration, text: String::with_capacity(512) };
        match &self.format.shape {
            Shape::Text(pieces) => writer.pieces(pieces, write_escaped),
            Shape::Json(fields) => writer.fields(fields),
        }
        writer.text.push('\n');
        writer.text
    }
}

pub(super) fn values(names: &[HeaderName], headers: &HeaderMap) -> Vec<Option<HeaderValue>> {
    names.iter().map(|name| headers.get(name).map(cut_header)).collect()
}

/// The value of an operator.
enum Shown<'a> {
    Text(Cow<'a, str>),
    Number(u128),
}

struct Writer<'a> {
    kept: &'a Kept,
    record: &'a RequestRecord,
    duration: Duration,
    text: String,
}

impl<'a> Writer<'a> {
    /// Values that peers chose are escaped, unless the whole will be. A line that is too long has no more values.
    fn pieces(&mut self, pieces: &[Piece], escape: fn(&mut String, &str)) {
        for piece in pieces {
            match piece {
                Piece::Literal(text) => self.text.push_str(text),
                Piece::Operator(..) if self.text.len() > MAX_LINE => self.text.push_str(MISSING),
                Piece::Operator(operator, length) => match self.value(operator) {
                    Some(Shown::Number(number)) => _ = write!(self.text, "{number}"),
                    Some(Shown::Text(value)) if !value.is_empty() => {
                        escape(&mut self.text, shortened(&value, *length));
                    }
                    _ => self.text.push_str(MISSING),
                },
            }
        }
    }

    fn fields(&mut self, fields: &[(String, Node)]) {
        self.text.push('{');
        for (index, (key, node)) in fields.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            quote(&mut self.text, key);
            self.text.push(':');
            self.node(node);
        }
        self.text.push('}');
    }

    fn node(&mut self, node: &Node) {
        match node {
            // A value by itself keeps its type, and one that is missing is null, as in Envoy. A line that is too long has no more
            // texts of peers.
            Node::Text(pieces) => match &pieces[..] {
                _ if self.text.len() > MAX_LINE => self.text.push_str("null"),
                [Piece::Operator(operator, length)] => match self.value(operator) {
                    Some(Shown::Number(number)) => _ = write!(self.text, "{number}"),
                    Some(Shown::Text(value)) if !value.is_empty() => {
                        quote(&mut self.text, shortened(&value, *length));
                    }
                    _ => self.text.push_str("null"),
                },
                pieces => {
                    let outer = std::mem::take(&mut self.text);
                    self.pieces(pieces, String::push_str);
                    let inner = std::mem::replace(&mut self.text, outer);
                    quote(&mut self.text, &inner);
                }
            },
            Node::Fields(fields) => self.fields(fields),
            Node::List(items) => {
                self.text.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.text.push(',');
                    }
                    self.node(item);
                }
                self.text.push(']');
            }
            Node::Constant(value) => _ = write!(self.text, "{value}"),
        }
    }

    fn value(&self, operator: &Operator) -> Option<Shown<'a>> {
        let record = self.record;
        let start = &record.start;
        let text = |text: &'a str| Some(Shown::Text(Cow::Borrowed(text)));
        match operator {
            Operator::StartTime => {
                let mut written = String::new();
                let began = SystemTime::now().checked_sub(self.duration);
                write_time(&mut written, began.unwrap_or(SystemTime::UNIX_EPOCH));
                Some(Shown::Text(Cow::Owned(written)))
            }
            Operator::Protocol => text(start.protocol),
            Operator::ResponseCode => Some(Shown::Number(record.code().into())),
            Operator::ResponseCodeDetails => text(record.details()),
            Operator::ResponseFlags => text(record.reason().flag()),
            Operator::GrpcStatus => Some(Shown::Number(record.grpc_status?.into())),
            Operator::BytesReceived => Some(Shown::Number(record.request_bytes.into())),
            Operator::BytesSent => Some(Shown::Number(record.response_bytes.into())),
            Operator::Duration => Some(Shown::Number(self.duration.as_millis())),
            Operator::ResponseDuration => Some(Shown::Number(record.upstream_time?.as_millis())),
            Operator::RouteName => text(&record.route),
            Operator::UpstreamHost => {
                let (_, address) = record.destination.as_ref()?;
                Some(Shown::Text(Cow::Owned(address.to_string())))
            }
            Operator::RemoteAddress => {
                Some(Shown::Text(Cow::Owned(start.source_address.to_string())))
            }
            Operator::RemoteAddressWithoutPort => {
                Some(Shown::Text(Cow::Owned(start.source_address.ip().to_string())))
            }
            Operator::PeerSan => text(&start.source.principal),
            Operator::Request(fields) => {
                fields.iter().find_map(|it| self.field(it, &self.kept.request))
            }
            Operator::Response(fields) => {
                fields.iter().find_map(|it| self.field(it, &self.kept.response))
            }
            Operator::Nothing => None,
        }
    }

    fn field(&self, field: &Field, headers: &'a [Option<HeaderValue>]) -> Option<Shown<'a>> {
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

/// The first characters of a text.
fn shortened(text: &str, length: Option<usize>) -> &str {
    let Some(length) = length else { return text };
    text.char_indices().nth(length).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
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
        kept.line(&record, Duration::from_millis(7))
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
