//! A connection as expressions see it.

use std::borrow::Cow;
use std::time::Duration;

use crate::expression::{Attribute, Facts, Value};
use crate::telemetry::ConnectionStart;

/// A connection at some moment.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) start: &'a ConnectionStart,
    pub(super) failure: Option<&'a str>,
    /// Bytes from the side that dialled, and to it.
    pub(super) carried: (u64, u64),
    pub(super) age: Duration,
}

impl<'a> Seen<'a> {
    /// A connection that never carried bytes.
    pub(super) fn refused(start: &'a ConnectionStart, why: &'a str) -> Self {
        Self { start, failure: Some(why), carried: (0, 0), age: Duration::ZERO }
    }

    /// Whether the access log shows it. A filter that looks at what only requests have says nothing of connections: otherwise one on
    /// response codes would hide them all, those that were denied too.
    pub(super) fn is_logged(&self) -> bool {
        let Some(access) = self.start.rules.as_ref().and_then(|rules| rules.access.as_ref()) else {
            return true;
        };
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
            Attribute::CodeDetails => Value::text(self.failure?),
            Attribute::SourceAddress => address(&start.source_address),
            Attribute::SourcePort => Value::Int(start.source_address.port().into()),
            // Where the application listens, and not the tunnel.
            Attribute::DestinationAddress => address(&start.application()),
            Attribute::DestinationPort => Value::Int(start.application().port().into()),
            Attribute::Mtls => Value::Bool(start.mutual_tls),
            Attribute::UriSan if !start.source.principal.is_empty() => {
                Value::text(&start.source.principal)
            }
            _ => return None,
        })
    }
}
