//! The span of a connection that no waypoint serves.

use super::ConnectionRecord;
use super::facts::Seen;
use crate::telemetry::spans::{self, Parts, known};
use crate::telemetry::{Reporter, Telemetry};
use crate::trace::{Attribute, Span};

impl ConnectionRecord {
    /// The connection is recorded as this span, too, where there is one.
    pub fn traced(mut self, span: Option<Box<Span>>) -> Self {
        self.span = span;
        self
    }

    pub(super) fn end_span(&mut self) {
        let Some(span) = self.span.take() else { return };
        end(&self.telemetry, span, &self.seen());
    }
}

/// Ends the span of a connection.
pub(super) fn end(telemetry: &Telemetry, span: Box<Span>, seen: &Seen<'_>) {
    let Seen { start, failure, carried: (sent, received), .. } = *seen;
    let dialled = start.dialled;
    let ip = dialled.ip().to_string();
    let host = match start.service.host.as_str() {
        "" => ip.as_str(),
        host => host,
    };
    let flags = seen.reason().flag();
    let mut attributes = vec![
        Attribute::text("network.transport", "tcp"),
        Attribute::text("server.address", host),
        Attribute::number("server.port", dialled.port()),
        Attribute::text("client.address", &start.source_address.ip().to_string()),
        Attribute::number("client.port", start.source_address.port()),
        Attribute::text("network.peer.address", &start.destination_address.ip().to_string()),
        Attribute::number("network.peer.port", start.destination_address.port()),
        Attribute::text("request_size", &sent.to_string()),
        Attribute::text("response_size", &received.to_string()),
        Attribute::text("response_flags", if flags.is_empty() { "-" } else { flags }),
    ];
    known(&mut attributes, "istio.source_principal", &start.source.principal);
    known(&mut attributes, "istio.destination_principal", &start.destination.principal);
    let tags = start.rules.iter().flat_map(|rules| &rules.span_tags);
    attributes.extend(tags.filter_map(|tag| tag.attribute(seen)));
    let of = match start.reporter {
        Reporter::Source => &start.source,
        Reporter::Destination | Reporter::Waypoint => &start.destination,
    };
    let error = failure.map(|(_, why)| why.to_owned());
    attributes.extend(error.as_ref().map(|_| Attribute::switch("error", true)));
    let name = format!("{host}:{}", dialled.port());
    spans::offer(telemetry, span, Parts { name, attributes, error, of });
}
