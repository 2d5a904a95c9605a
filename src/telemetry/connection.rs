//! One connection: counted while its bytes pass, logged once at its end.

mod counters;
mod facts;
mod flow;
mod formatted;
mod span;

use std::sync::atomic::Ordering;

use tracing::Level;

use super::labels::Labels;
use super::live::Registered;
use super::log::{ACCESS, Line};
use super::metric_set::Metric;
use super::tagged::Wanted;
use super::{ConnectionStart, Peer, Reporter, Telemetry};
use crate::base::{PolicyNote, Reason, Room};
use crate::trace::Span;
use counters::Counters;
use facts::Seen;

/// One open connection: counted and logged once, when dropped at the latest.
pub struct ConnectionRecord {
    telemetry: Telemetry,
    open: Registered,
    /// Resolved once: counting bytes is an addition.
    counters: Counters,
    failure: Option<(Reason, String)>,
    room: Option<Room>,
    /// Of a connection that is traced, and of no other.
    span: Option<Box<Span>>,
}

impl ConnectionRecord {
    pub(super) fn new(telemetry: Telemetry, start: ConnectionStart) -> Self {
        telemetry.note(&start.notes);
        let counters = Counters::of(&telemetry, &start);
        counters.of_metric(Metric::TcpOpenedConnections).opened.fetch_add(1, Ordering::Relaxed);
        let open = telemetry.live().register(start, false);
        let record = Self { telemetry, open, counters, failure: None, room: None, span: None };
        let logs = record.telemetry.logs();
        if logs.shows_access(Level::DEBUG) && record.seen().is_logged() {
            let mut line = logs.line(Level::DEBUG, ACCESS, "connection opened");
            put_start(&mut line, record.open.start());
            logs.write(line);
        }
        record
    }

    /// Bytes from the side that dialled to the side that was dialled.
    pub fn sent(&self, bytes: usize) {
        self.open.sent(bytes as u64);
        // Istio's "sent" is what the destination sends, and its "received" what it receives, for both reporters:
        // the source's own view is turned round (istio#32399).
        let counts = self.counters.of_metric(Metric::TcpReceivedBytes);
        counts.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes in the other direction.
    pub fn received(&self, bytes: usize) {
        self.open.received(bytes as u64);
        let counts = self.counters.of_metric(Metric::TcpSentBytes);
        counts.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The bytes of both directions so far.
    pub fn carried(&self) -> u64 {
        let (sent, received) = self.open.carried();
        sent.saturating_add(received)
    }

    /// What is on its way takes this room.
    pub fn within(mut self, room: Option<&Room>) -> Self {
        self.room = room.cloned();
        self
    }

    /// What chunks that are on their way may take.
    pub fn room(&self) -> Option<&Room> {
        self.room.as_ref()
    }

    /// The first cause stays.
    pub fn fail(&mut self, reason: Reason, why: String) {
        self.failure.get_or_insert((reason, why));
    }

    /// The connection as expressions see it now.
    fn seen(&self) -> Seen<'_> {
        Seen {
            start: self.open.start(),
            failure: self.failure.as_ref().map(|(reason, why)| (*reason, why.as_str())),
            carried: self.open.carried(),
            age: self.open.age(),
            began: true,
            trace: self.span.as_ref().map(|span| (span.context.trace, span.context.span)),
        }
    }
}

impl Drop for ConnectionRecord {
    fn drop(&mut self) {
        let trace = self.seen().trace;
        self.end_span();
        let start = self.open.start();
        let counts = self.counters.of_metric(Metric::TcpClosedConnections);
        counts.closed.fetch_add(1, Ordering::Relaxed);
        let failure = self.failure.as_ref().map(|(reason, why)| (*reason, why.as_str()));
        if let Some((reason, _)) = failure {
            count_failure(&self.telemetry, start, reason);
        }
        let level = if failure.is_some() { Level::ERROR } else { Level::INFO };
        let logs = self.telemetry.logs();
        let seen = Seen { trace, ..self.seen() };
        if self.telemetry.flows().is_wanted() {
            flow::give(&self.telemetry, &seen);
        }
        if !seen.export(&self.telemetry, logs.shows_access(level)) {
            return;
        }
        let mut line = logs.line(level, ACCESS, "connection complete");
        put_start(&mut line, start);
        let (sent, received) = self.open.carried();
        // The log speaks as the workload that it is about: what it sent, what it received.
        let (sent, received) = if outbound(start) { (sent, received) } else { (received, sent) };
        line.bare("bytes_sent", sent);
        line.bare("bytes_recv", received);
        put_end(&mut line, self.open.age().as_millis(), failure);
        logs.write(line);
    }
}

/// The span of a connection that never carried bytes.
pub(super) fn end_refused(
    telemetry: &Telemetry,
    span: Box<Span>,
    start: &ConnectionStart,
    failure: (Reason, &str),
) {
    span::end(telemetry, span, &Seen::refused(start, failure));
}

/// A connection that never carried bytes.
pub(super) fn refused(telemetry: &Telemetry, start: &ConnectionStart, reason: Reason, why: &str) {
    telemetry.note(&start.notes);
    count_failure(telemetry, start, reason);
    let seen = Seen::refused(start, (reason, why));
    if telemetry.flows().is_wanted() {
        flow::give(telemetry, &seen);
    }
    let logs = telemetry.logs();
    if seen.export(telemetry, logs.shows_access(Level::WARN)) {
        let mut line = logs.line(Level::WARN, ACCESS, "connection failed");
        put_start(&mut line, start);
        put_end(&mut line, 0, Some((reason, why)));
        logs.write(line);
    }
}

fn count_failure(telemetry: &Telemetry, start: &ConnectionStart, reason: Reason) {
    let labels = labels(start, reason);
    let series = telemetry.traffic().failures.get(&Wanted { labels, changed: None });
    series.counts.failed.fetch_add(1, Ordering::Relaxed);
}

fn labels(start: &ConnectionStart, reason: Reason) -> Labels<'_> {
    Labels {
        reporter: start.reporter,
        source: &start.source,
        destination: &start.destination,
        service: &start.service,
        mutual_tls: start.mutual_tls,
        protocol: "tcp",
        flags: reason.flag(),
        response: None,
        charged: None,
    }
}

fn outbound(start: &ConnectionStart) -> bool {
    start.reporter == Reporter::Source
}

/// ztunnel's fields in ztunnel's order, then the waypoint's identity, which only Isthmus has.
fn put_start(line: &mut Line, start: &ConnectionStart) {
    line.address("src.addr", start.source_address);
    put_peer(line, ["src.workload", "src.namespace", "src.identity", "src.cluster"], &start.source);
    line.address("dst.addr", start.destination_address);
    if let Some(authority) = start.hbone_authority {
        line.address("dst.hbone_addr", authority);
    }
    if let Some(name) = &start.server_name {
        line.text("dst.server_name", name);
    }
    if start.in_process {
        line.text("dst.transport", "in_process");
    }
    line.known("dst.service", &start.service.host);
    let keys = ["dst.workload", "dst.namespace", "dst.identity", "dst.cluster"];
    put_peer(line, keys, &start.destination);
    line.known("waypoint.identity", start.waypoint_principal.as_deref().unwrap_or_default());
    line.text("direction", if outbound(start) { "outbound" } else { "inbound" });
    put_notes(line, &start.notes);
}

fn put_peer(line: &mut Line, [workload, namespace, identity, cluster]: [&str; 4], peer: &Peer) {
    line.known(workload, &peer.name);
    line.known(namespace, &peer.namespace);
    line.known(identity, &peer.principal);
    line.known(cluster, &peer.cluster);
}

/// `policy.notes="ns/name=would_deny,…"`, which only Isthmus has.
pub(super) fn put_notes(line: &mut Line, notes: &[PolicyNote]) {
    if notes.is_empty() {
        return;
    }
    let notes: Vec<String> = notes.iter().map(PolicyNote::to_string).collect();
    line.text("policy.notes", &notes.join(","));
}

fn put_end(line: &mut Line, milliseconds: u128, failure: Option<(Reason, &str)>) {
    line.text("duration", &format!("{milliseconds}ms"));
    if let Some((reason, why)) = failure {
        line.text("response_flags", reason.flag());
        line.text("error", why);
    }
}
