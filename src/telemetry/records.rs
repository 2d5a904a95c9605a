//! Records of the access log that are exported (providers `envoyOtelAls`), and the counters of what is exported.

use std::sync::Arc;
use std::time::SystemTime;

use super::access::Values;
use super::spans::resource;
use super::{AccessFormat, Peer, Telemetry};
use crate::base::Str;
use crate::trace::{Attribute, Provider, SpanId, TraceId};

/// A collector that gets records, and how they look.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct RecordSink {
    pub provider: Arc<Provider>,
    /// Tells logs apart at the collector (`log_name`).
    pub name: Str,
    /// The record's text.
    pub body: Arc<AccessFormat>,
    /// The record's attributes.
    pub attributes: Option<Arc<AccessFormat>>,
}

/// A record that waits to be exported.
#[derive(Debug)]
pub struct LogRecord {
    pub provider: Arc<Provider>,
    pub ended: SystemTime,
    pub failed: bool,
    pub body: String,
    pub attributes: Vec<Attribute>,
    /// The workload that it is of.
    pub resource: Vec<Attribute>,
    pub trace: Option<(TraceId, SpanId)>,
    /// That workload's namespace, which has a share of each queue.
    pub tenant: Str,
}

/// What the records of one request or connection have in common.
pub(super) struct Common<'a> {
    pub(super) of: &'a Peer,
    pub(super) failed: bool,
    pub(super) trace: Option<(TraceId, SpanId)>,
}

impl RecordSink {
    /// Puts a record into the queue. `body` and `attributes` have the values that the two formats show.
    pub(super) fn offer(
        &self,
        telemetry: &Telemetry,
        Common { of, failed, trace }: &Common<'_>,
        body: &dyn Values,
        attributes: Option<&dyn Values>,
    ) {
        let mut resource = resource(of);
        resource.push(Attribute::text("log_name", &self.name));
        let attributes = self.attributes.as_ref().zip(attributes);
        let record = LogRecord {
            provider: self.provider.clone(),
            ended: SystemTime::now(),
            failed: *failed,
            body: self.body.body(body),
            attributes: attributes
                .map(|(format, values)| format.attributes(values))
                .unwrap_or_default(),
            resource,
            trace: *trace,
            tenant: of.namespace.clone(),
        };
        if !telemetry.records().offer(&of.namespace, Box::new(record)) {
            telemetry.record_metrics().queue.inc();
        }
    }
}
