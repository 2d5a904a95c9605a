//! A connection as expressions see it.

use std::borrow::Cow;
use std::time::Duration;

use super::outbound;
use crate::base::Reason;
use crate::expression::{Attribute, Facts, Value};
use crate::telemetry::facts::TLS_VERSION;
use crate::telemetry::records::Common;
use crate::telemetry::{AccessRules, ConnectionStart, Telemetry};
use crate::trace::{SpanId, TraceId};

/// A connection at some moment.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) start: &'a ConnectionStart,
    pub(super) failure: Option<(Reason, &'a str)>,
    /// Bytes from the side that dialled, and to it.
    pub(super) carried: (u64, u64),
    pub(super) age: Duration,
    /// It was permitted, and a record of it began.
    pub(super) began: bool,
    pub(super) trace: Option<(TraceId, SpanId)>,
}

impl<'a> Seen<'a> {
    /// A connection that has not carried bytes yet.
    pub(super) fn begun(start: &'a ConnectionStart) -> Self {
        let (carried, age) = ((0, 0), Duration::ZERO);
        Self { start, failure: None, carried, age, began: true, trace: None }
    }

    /// One that never did.
    pub(super) fn refused(start: &'a ConnectionStart, failure: (Reason, &'a str)) -> Self {
        Self { failure: Some(failure), began: false, ..Self::begun(start) }
    }

    pub(super) fn reason(&self) -> Reason {
        self.failure.map_or(Reason::None, |(reason, _)| reason)
    }

    pub(super) fn why(&self) -> Option<&'a str> {
        self.failure.map(|(_, why)| why)
    }

    /// Gives its record to collectors where rules say it. False if the agent's log does not show it.
    pub(super) fn export(&self, telemetry: &Telemetry, is_enabled: bool) -> bool {
        let access = self.access();
        let exports = access.is_some_and(|it| !it.exports.is_empty());
        let is_written = is_enabled && !access.is_some_and(|it| it.only_exports);
        if !(exports || is_written) || !self.is_logged() {
            return false;
        }
        let of = if outbound(self.start) { &self.start.source } else { &self.start.destination };
        let common = Common { of, failed: self.failure.is_some(), trace: self.trace };
        for sink in access.iter().flat_map(|it| &it.exports) {
            sink.offer(telemetry, &common, self, Some(self));
        }
        is_written
    }

    fn access(&self) -> Option<&'a AccessRules> {
        self.start.rules.as_ref()?.access.as_deref()
    }

    /// Whether the access log shows it. A filter that looks at what only requests have says nothing of connections: otherwise one on
    /// response codes would hide them all, those that were denied too.
    pub(super) fn is_logged(&self) -> bool {
        let Some(access) = self.access() else { return true };
        let only = access.only.as_ref().filter(|only| !only.is_about_requests());
        !access.disabled && only.is_none_or(|only| only.is_true(self))
    }
}

impl Facts for Seen<'_> {
    fn get(&self, attribute: Attribute) -> Option<Value<'_>> {
        let start = self.start;
        let address = |shown: &dyn ToString| Value::Text(Cow::Owned(shown.to_string()));
        let (sent, received) = self.carried;
        Some(match attribute {
            Attribute::RequestSize => Value::count(sent),
            Attribute::ResponseSize => Value::count(received),
            Attribute::Duration => {
                Value::Duration(i64::try_from(self.age.as_nanos()).unwrap_or(i64::MAX))
            }
            Attribute::CodeDetails => Value::text(self.why()?),
            Attribute::SourceAddress => address(&start.source_address),
            Attribute::SourcePort => Value::Int(start.source_address.port().into()),
            // Where the application listens, and not the tunnel.
            Attribute::DestinationAddress => address(&start.application()),
            Attribute::DestinationPort => Value::Int(start.application().port().into()),
            Attribute::Mtls => Value::Bool(start.mutual_tls),
            Attribute::TlsVersion if start.mutual_tls => Value::text(TLS_VERSION),
            Attribute::UriSanLocal if !start.destination.principal.is_empty() => {
                Value::text(&start.destination.principal)
            }
            Attribute::UriSan if !start.source.principal.is_empty() => {
                Value::text(&start.source.principal)
            }
            Attribute::Client(field) => return start.source.fact(field),
            Attribute::Server(field) => return start.destination.fact(field),
            _ => return None,
        })
    }
}
