//! The span of a connection that no waypoint serves.

use super::ConnectionRecord;
use crate::base::Reason;
use crate::telemetry::spans::{self, Parts, known};
use crate::telemetry::{ConnectionStart, Reporter, Telemetry};
use crate::trace::{Attribute, Span};

impl ConnectionRecord {
    /// The connection is recorded as this span, too, where there is one.
    pub fn traced(mut self, span: Option<Box<Span>>) -> Self {
        self.span = span;
        self
    }

    pub(super) fn end_span(&mut self) {
        let Some(span) = self.span.take() else { return };
        let (sent, received) = self.open.carried();
        let failure = self.failure.as_ref().map(|(reason, why)| (*reason, why.as_str()));
        end(&self.telemetry, span, self.open.start(), (sent, received), failure);
    }
}

/// Ends the span of a connection that carried so many bytes up and down.
pub(super) fn end(
    telemetry: &Telemetry,
    span: Box<Span>,
    start: &ConnectionStart,
    (sent, received): (u64, u64),
    failure: Option<(Reason, &str)>,
) {
    let dialled = start.dialled;
    let ip = dialled.ip().to_string();
    let host = match start.service.host.as_str() {
        "" => ip.as_str(),
        host => host,
    };
    let reason = failure.map_or(Reason::None, |(reason, _)| reason);
    let flags = reason.flag();
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
    let of = match start.reporter {
        Reporter::Source => &start.source,
        Reporter::Destination | Reporter::Waypoint => &start.destination,
    };
    let error = failure.map(|(_, why)| why.to_owned());
    attributes.extend(error.as_ref().map(|_| Attribute::switch("error", true)));
    let name = format!("{host}:{}", dialled.port());
    spans::offer(telemetry, span, Parts { name, attributes, error, of });
}
