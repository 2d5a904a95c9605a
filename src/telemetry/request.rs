//! One request: counted and logged once, when its response has ended.

mod exported;
mod facts;
mod flow;
mod formatted;
mod span;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::USER_AGENT;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;
use tracing::Level;

use super::connection::put_notes;
use super::labels::{Labels, Response};
use super::log::{ACCESS, Line};
use super::metric_set::{Metric, MetricSet};
use super::tagged::Wanted;
use super::{MAX_FIELD, Peer, Reporter, RequestStart, Rules, Telemetry};
use crate::base::{PolicyNote, Reason, Str};
use crate::trace::Span;
use facts::Ruled;
use formatted::Kept;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Envoy's word for an answer that came from the application.
const ANSWERED_BY_APPLICATION: &str = "via_upstream";

/// One request in flight: counted and logged once, when dropped at the latest.
pub struct RequestRecord {
    telemetry: Telemetry,
    start: RequestStart,
    started: Instant,
    destination: Option<(Arc<Peer>, SocketAddr)>,
    route: Str,
    request_bytes: u64,
    response_bytes: u64,
    /// Of gRPC: of the request and of the response.
    messages: (u64, u64),
    code: Option<StatusCode>,
    grpc_status: Option<u32>,
    upstream_time: Option<Duration>,
    failure: Option<(Reason, String)>,
    mark: Option<(Reason, String)>,
    denied_there: bool,
    in_process: bool,
    notes: Vec<PolicyNote>,
    headers: LoggedHeaders,
    /// Of a request that is traced, and of no other.
    span: Option<Box<Span>>,
    /// Where MeshConfig gave the access log a format when the request began.
    formatted: Option<Box<Kept>>,
    /// What Telemetry objects say of it, where one says something.
    rules: Option<Box<Ruled>>,
}

/// Headers that the access log shows; kept only while it is written.
#[derive(Default)]
struct LoggedHeaders {
    user_agent: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
    forwarded_for: Option<HeaderValue>,
}

impl RequestRecord {
    pub(super) fn new(telemetry: Telemetry, start: RequestStart) -> Self {
        if let Some(connection) = &start.connection {
            connection.request();
        }
        let formatted = telemetry.access_format().map(Kept::new).map(Box::new);
        Self {
            telemetry,
            start: RequestStart { path: cut(start.path), authority: cut(start.authority), ..start },
            started: Instant::now(),
            destination: None,
            route: Str::new(),
            request_bytes: 0,
            response_bytes: 0,
            messages: (0, 0),
            code: None,
            grpc_status: None,
            upstream_time: None,
            failure: None,
            mark: None,
            denied_there: false,
            in_process: false,
            notes: Vec::new(),
            headers: LoggedHeaders::default(),
            span: None,
            formatted,
            rules: None,
        }
    }

    /// What holds for it besides the settings. Comes before its headers.
    pub fn follow(&mut self, rules: &Arc<Rules>) {
        if let Some(format) = rules.access.as_ref().and_then(|access| access.format.as_ref()) {
            self.formatted = Some(Box::new(Kept::new(format.clone())));
        }
        self.rules = Some(Box::new(Ruled::new(rules.clone())));
    }

    /// The path with its query, and the authority, as text that is only made where somebody reads it: the access log, rules, a span,
    /// or who observes. Called once the record has its rules and its span.
    pub fn target(&mut self, text: impl FnOnce() -> (Str, Str)) {
        let is_read = self.rules.is_some() || self.span.is_some();
        if is_read || self.is_logged_at_all() || self.telemetry.flows().is_wanted() {
            let (path, authority) = text();
            (self.start.path, self.start.authority) = (cut(path), cut(authority));
        }
    }

    /// Whether the access log is written now.
    fn is_logged_at_all(&self) -> bool {
        self.telemetry.logs().shows_access(Level::WARN)
    }

    /// Whether mutual TLS leads to where the request goes.
    pub fn mutual_tls(&mut self, mutual_tls: bool) {
        self.start.mutual_tls = mutual_tls;
    }

    /// The endpoint that the request was sent to; the last one stays.
    pub fn destination(&mut self, peer: Arc<Peer>, address: SocketAddr) {
        self.destination = Some((peer, address));
    }

    /// The name of the route, or of its rule, that was chosen.
    pub fn route(&mut self, name: Str) {
        self.route = name;
    }

    /// Shown in the access log: `user-agent`, `x-request-id`, `x-forwarded-for`.
    pub fn headers(&mut self, headers: &HeaderMap) {
        if let Some(rules) = self.rules.as_deref_mut() {
            rules.of_request(headers);
        }
        if self.is_logged_at_all() {
            if let Some(formatted) = &mut self.formatted {
                return formatted.of_request(headers);
            }
            self.headers = LoggedHeaders {
                user_agent: headers.get(USER_AGENT).map(cut_header),
                request_id: headers.get(REQUEST_ID).map(cut_header),
                forwarded_for: headers.get(FORWARDED_FOR).map(cut_header),
            };
        }
    }

    /// The head of the application's response.
    pub fn response_headers(&mut self, headers: &HeaderMap) {
        if let Some(rules) = self.rules.as_deref_mut() {
            rules.of_response(headers);
        }
        if let Some(formatted) = &mut self.formatted {
            formatted.of_response(headers);
        }
    }

    /// More bytes of the request's body.
    pub fn request_bytes(&mut self, bytes: usize) {
        self.request_bytes = self.request_bytes.saturating_add(bytes as u64);
        if let Some(connection) = &self.start.connection {
            connection.sent(bytes);
        }
    }

    /// More bytes of the response's body.
    pub fn response_bytes(&mut self, bytes: usize) {
        self.response_bytes = self.response_bytes.saturating_add(bytes as u64);
        if let Some(connection) = &self.start.connection {
            connection.received(bytes);
        }
    }

    pub fn is_grpc(&self) -> bool {
        self.start.grpc
    }

    /// The messages of gRPC: of the request, and of the response.
    pub fn messages(&mut self, request: u64, response: u64) {
        self.messages = (request, response);
    }

    /// The status that the client was sent; the last one stays.
    pub fn response(&mut self, code: StatusCode) {
        self.code = Some(code);
    }

    pub fn grpc_status(&mut self, status: u32) {
        self.grpc_status = Some(status);
    }

    /// The first cause stays; `why` names the policy or the failure (`response_code_details`).
    pub fn fail(&mut self, reason: Reason, why: String) {
        self.failure.get_or_insert((reason, why));
    }

    /// What happened to it, where it does not fail besides.
    pub fn mark(&mut self, reason: Reason, why: String) {
        self.mark = Some((reason, why));
    }

    /// One more note.
    pub fn note(&mut self, note: PolicyNote) {
        self.notes.push(note);
    }

    /// What AUDIT and dry-run policies have to say of it; the last word stays, and is counted at the end.
    pub fn notes(&mut self, notes: Vec<PolicyNote>) {
        self.notes = notes;
    }

    /// How long the application took until its response began.
    pub fn upstream_time(&mut self, time: Duration) {
        self.upstream_time = Some(time);
    }

    /// The values of `response_flags`.
    fn flags(&self) -> &'static str {
        let reason = |told: &Option<(Reason, String)>| told.as_ref().map(|(reason, _)| *reason);
        let mark = reason(&self.mark).unwrap_or_default();
        reason(&self.failure).unwrap_or_default().flag_beside(mark)
    }

    /// Envoy's `response_code_details`.
    fn details(&self) -> &str {
        let answered = if self.upstream_time.is_some() { ANSWERED_BY_APPLICATION } else { "" };
        let told = self.failure.as_ref().or(self.mark.as_ref());
        told.map_or(answered, |(_, why)| why.as_str())
    }

    /// Envoy's: 0 when the client was sent none.
    fn code(&self) -> u16 {
        self.code.map_or(0, |code| code.as_u16())
    }

    fn count(&self, duration: Duration) {
        let rules = self.rules.as_deref();
        let disabled = rules.map_or(MetricSet::NONE, |it| it.rules.disabled);
        let mut metrics = MetricSet::REQUESTS.without(disabled);
        if metrics.is_empty() {
            return;
        }
        let unknown;
        let destination = match &self.destination {
            Some((peer, _)) => peer.as_ref(),
            None => {
                unknown = Peer::default();
                &unknown
            }
        };
        let labels = Labels {
            reporter: Reporter::Waypoint,
            source: &self.start.source,
            destination,
            service: &self.start.service,
            mutual_tls: self.start.mutual_tls,
            protocol: if self.start.grpc { "grpc" } else { "http" },
            flags: self.flags(),
            response: Some(Response::new(self.code(), self.grpc_status)),
            charged: None,
        };
        if let Some((ruled, tags)) =
            rules.and_then(|it| Some((it, it.rules.request_tags.as_ref()?)))
        {
            let labels = if self.start.outbound { labels.charged_to_client() } else { labels };
            let values = tags.evaluate(|place| self.facts(ruled.of_tag(place), duration));
            for group in &tags.groups {
                let changed = Some((group, &values[..]));
                self.add(metrics.and(group.metrics), &Wanted { labels, changed }, duration);
                metrics = metrics.without(group.metrics);
            }
        }
        self.add(metrics, &Wanted { labels, changed: None }, duration);
    }

    /// Counts these metrics in a series.
    fn add(&self, metrics: MetricSet, wanted: &Wanted<'_>, duration: Duration) {
        let traffic = self.telemetry.traffic();
        if !metrics.without(MetricSet::MESSAGES).is_empty() {
            let series = traffic.requests.get(wanted);
            series.counts.add(metrics, duration, self.request_bytes, self.response_bytes);
            let span = self.span.as_ref().filter(|_| metrics.has(Metric::RequestDuration));
            if let Some(span) = span {
                series.counts.exemplify(duration, span.context.trace);
            }
        }
        let (request, response) = self.messages;
        let request = if metrics.has(Metric::GrpcRequestMessages) { request } else { 0 };
        let response = if metrics.has(Metric::GrpcResponseMessages) { response } else { 0 };
        if (request, response) != (0, 0) {
            traffic.messages.get(wanted).counts.add(request, response);
        }
    }

    fn log(&self, duration: Duration) {
        let level = if self.failure.is_some() { Level::WARN } else { Level::INFO };
        let access = self.rules.as_ref().and_then(|it| it.rules.access.as_ref());
        // One record a request, as of one waypoint.
        let exports = self.start.count && access.is_some_and(|it| !it.exports.is_empty());
        let writes =
            self.telemetry.logs().shows_access(level) && !access.is_some_and(|it| it.only_exports);
        if !(exports || writes) || !self.is_logged(duration) {
            return;
        }
        if exports {
            self.export(duration);
        }
        if writes {
            self.write(level, duration);
        }
    }

    fn write(&self, level: Level, duration: Duration) {
        let logs = self.telemetry.logs();
        if let Some(formatted) = &self.formatted {
            // One line a request, as of one waypoint.
            if self.start.count {
                logs.write_text(formatted.format.line(&formatted.of(self, duration)));
            }
            return;
        }
        let mut line = logs.line(level, ACCESS, "request complete");
        self.put_exchange(&mut line, duration);
        self.put_peers(&mut line);
        logs.write(line);
    }

    /// Envoy's keys in Envoy's order.
    fn put_exchange(&self, line: &mut Line, duration: Duration) {
        let start = &self.start;
        line.time(
            "start_time",
            SystemTime::now().checked_sub(duration).unwrap_or(SystemTime::UNIX_EPOCH),
        );
        line.text("method", start.method.as_str());
        line.text("path", &start.path);
        line.text("protocol", start.protocol);
        line.bare("response_code", self.code());
        if let Some(status) = self.grpc_status {
            line.bare("grpc_status", status);
        }
        line.text("response_flags", self.flags());
        line.known("response_code_details", self.details());
        line.bare("bytes_received", self.request_bytes);
        line.bare("bytes_sent", self.response_bytes);
        line.bare("duration", duration.as_millis());
        if let Some(time) = self.upstream_time {
            line.bare("upstream_service_time", time.as_millis());
        }
        put_header(line, "x_forwarded_for", self.headers.forwarded_for.as_ref());
        put_header(line, "user_agent", self.headers.user_agent.as_ref());
        put_header(line, "request_id", self.headers.request_id.as_ref());
        line.text("authority", &start.authority);
        if let Some((_, address)) = &self.destination {
            line.address("upstream_host", *address);
        }
        line.address("downstream_remote_address", start.source_address);
        line.known("route_name", &self.route);
    }

    fn put_peers(&self, line: &mut Line) {
        let start = &self.start;
        line.known("src.workload", &start.source.name);
        line.known("src.namespace", &start.source.namespace);
        line.known("src.identity", &start.source.principal);
        line.known("dst.service", &start.service.host);
        if let Some((peer, _)) = &self.destination {
            line.known("dst.workload", &peer.name);
            line.known("dst.namespace", &peer.namespace);
        }
        line.known("waypoint.identity", start.waypoint_principal.as_deref().unwrap_or_default());
        line.text("direction", if start.outbound { "outbound" } else { "inbound" });
        put_notes(line, &self.notes);
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        self.telemetry.note(&self.notes);
        if self.start.count {
            self.count(duration);
        }
        self.log(duration);
        let trace = self.span.as_ref().map(|span| span.context.trace);
        self.end_span(duration);
        if self.telemetry.flows().is_wanted() {
            self.give_flow(duration, trace);
        }
    }
}

/// No more than the log shows: a request may take long, and its record is not among what a worker has reserved.
fn cut(text: Str) -> Str {
    // One character more tells the log that there was more.
    let shown = text.ceil_char_boundary(MAX_FIELD + 1);
    if text.len() <= shown { text } else { Str::from(&text[..shown]) }
}

/// As [`cut`].
fn cut_header(value: &HeaderValue) -> HeaderValue {
    match value.as_bytes().get(..=MAX_FIELD) {
        // A part of a value is one.
        Some(shown) => HeaderValue::from_bytes(shown).unwrap_or(HeaderValue::from_static("")),
        None => value.clone(),
    }
}

/// Bytes that are no UTF-8 are shown as replacement characters.
fn put_header(line: &mut Line, key: &str, value: Option<&HeaderValue>) {
    if let Some(value) = value {
        line.text(key, &String::from_utf8_lossy(value.as_bytes()));
    }
}
