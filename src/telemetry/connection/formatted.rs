//! A connection as formats show it.

use std::time::SystemTime;

use super::facts::Seen;
use crate::telemetry::access::{Operator, Shown, Values};
use crate::telemetry::log::write_time;

impl Values for Seen<'_> {
    fn value(&self, operator: &Operator) -> Option<Shown<'_>> {
        let start = self.start;
        let (sent, received) = self.carried;
        Some(match operator {
            Operator::StartTime => {
                let mut written = String::new();
                let began = SystemTime::now().checked_sub(self.age);
                write_time(&mut written, began.unwrap_or(SystemTime::UNIX_EPOCH));
                Shown::owned(written)
            }
            // As for connections that Envoy carries as bytes.
            Operator::ResponseCode => Shown::Number(0),
            Operator::ResponseFlags => Shown::text(self.reason().flag()),
            Operator::ResponseCodeDetails => Shown::text(self.why()?),
            Operator::BytesReceived => Shown::Number(sent.into()),
            Operator::BytesSent => Shown::Number(received.into()),
            Operator::Duration => Shown::Number(self.age.as_millis()),
            Operator::UpstreamHost => Shown::owned(start.application()),
            Operator::RemoteAddress => Shown::owned(start.source_address),
            Operator::RemoteAddressWithoutPort => Shown::owned(start.source_address.ip()),
            Operator::PeerSan => Shown::text(&start.source.principal),
            Operator::RequestedServerName => Shown::text(start.server_name.as_deref()?),
            Operator::Protocol
            | Operator::GrpcStatus
            | Operator::ResponseDuration
            | Operator::RouteName
            | Operator::Request(_)
            | Operator::Response(_)
            | Operator::Nothing => return None,
        })
    }
}
