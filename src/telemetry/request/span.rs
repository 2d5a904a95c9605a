//! The span of a request: OpenTelemetry's semantic conventions for HTTP, and the tags of Istio's proxies.

use std::time::Duration;

use http::HeaderMap;

use super::RequestRecord;
use crate::telemetry::Peer;
use crate::telemetry::spans::{self, Parts, known};
use crate::trace::{Attribute, Kind, Span};

impl RequestRecord {
    /// The request is recorded as this span, too.
    pub fn trace(&mut self, span: Box<Span>) {
        self.span = Some(span);
    }

    /// The span of a request that is recorded.
    pub fn span(&self) -> Option<&Span> {
        self.span.as_deref()
    }

    /// The agent has changed the request: claims and an authorizer's words are shown as the application sees them, and not as the
    /// client made them up.
    pub fn changed(&mut self, headers: &HeaderMap) {
        self.headers(headers);
        if let Some(span) = &mut self.span {
            span.read_tags(headers);
        }
    }

    pub(super) fn end_span(&mut self, duration: Duration) {
        let Some(span) = self.span.take() else { return };
        let unknown = Peer::default();
        let server = self.destination.as_ref().map_or(&unknown, |(peer, _)| peer);
        let of = match span.kind {
            Kind::Client => &*self.start.source,
            Kind::Server => server,
        };
        let mut attributes = self.semantic(&span);
        self.put_istio(&mut attributes, &span);
        attributes.extend(self.formatted_tags(duration));
        let (host, port) = (self.host(), span.port);
        // As Istio's proxies call the operation.
        let name = format!("{host}:{port}/*");
        let error = self.error();
        attributes.extend(error.as_ref().map(|_| Attribute::switch("error", true)));
        spans::offer(&self.telemetry, span, Parts { name, attributes, error, of });
    }

    /// The tags whose values are formats.
    fn formatted_tags(&self, duration: Duration) -> Vec<Attribute> {
        let Some(ruled) = self.rules.as_deref() else { return Vec::new() };
        let tags = ruled.rules.span_tags.iter().zip(&ruled.span_tags);
        tags.filter_map(|(tag, kept)| tag.attribute(&kept.of(self, duration))).collect()
    }

    /// The addressed service; what the client called it, where it is none of the mesh.
    fn host(&self) -> &str {
        match self.start.service.host.as_str() {
            "" => without_port(&self.start.authority),
            host => host,
        }
    }

    /// The path and the query, as long as the provider wants them.
    fn path(&self, span: &Span) -> &str {
        let path = self.start.path.as_str();
        match span.tracing.max_path {
            Some(most) => &path[..path.floor_char_boundary(most)],
            None => path,
        }
    }

    /// <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>
    fn semantic(&self, span: &Span) -> Vec<Attribute> {
        let start = &self.start;
        let path = self.path(span);
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut all = vec![
            Attribute::text("http.request.method", start.method.as_str()),
            Attribute::text("url.scheme", "http"),
            Attribute::text("url.path", path),
            Attribute::text("server.address", self.host()),
            Attribute::number("server.port", span.port),
            Attribute::text("client.address", &start.source_address.ip().to_string()),
            Attribute::text("network.protocol.name", "http"),
        ];
        known(&mut all, "url.query", query);
        let version = start.protocol.trim_start_matches("HTTP/");
        known(&mut all, "network.protocol.version", version);
        if let Some(code) = self.code {
            all.push(Attribute::number("http.response.status_code", code.as_u16()));
        }
        if let Some((_, address)) = &self.destination {
            all.push(Attribute::text("network.peer.address", &address.ip().to_string()));
            all.push(Attribute::number("network.peer.port", address.port()));
        }
        if let Some(status) = self.grpc_status {
            all.push(Attribute::text("rpc.system", "grpc"));
            all.push(Attribute::number("rpc.grpc.status_code", status));
        }
        known(&mut all, "http.route", &self.route);
        all
    }

    /// What Envoy calls the same, and its flags and sizes.
    fn put_istio(&self, all: &mut Vec<Attribute>, span: &Span) {
        let start = &self.start;
        let url = format!("http://{}{}", start.authority, self.path(span));
        all.push(Attribute::text("http.url", &url));
        all.push(Attribute::text("http.method", start.method.as_str()));
        all.push(Attribute::text("http.status_code", &self.code().to_string()));
        all.push(Attribute::text("http.protocol", start.protocol));
        all.push(Attribute::text("request_size", &self.request_bytes.to_string()));
        all.push(Attribute::text("response_size", &self.response_bytes.to_string()));
        let flags = self.flags();
        all.push(Attribute::text("response_flags", if flags.is_empty() { "-" } else { flags }));
        let (port, host) = (span.port, self.host());
        let cluster = match span.kind {
            Kind::Client => format!("outbound|{port}||{host}"),
            Kind::Server => format!("inbound|{port}||"),
        };
        all.push(Attribute::text("upstream_cluster", &cluster));
        all.push(Attribute::text("upstream_cluster.name", &cluster));
        let peer = start.source_address.ip().to_string();
        all.push(Attribute::text("peer.address", &peer));
        if let Some((_, address)) = &self.destination {
            all.push(Attribute::text("upstream_address", &address.to_string()));
        }
        if let Some(status) = self.grpc_status {
            all.push(Attribute::text("grpc.status_code", &status.to_string()));
        }
    }

    /// Why it failed: what the mesh has answered, or a status of the application that is the server's fault.
    fn error(&self) -> Option<String> {
        if let Some((_, why)) = &self.failure {
            return Some(why.clone());
        }
        let code = self.code.filter(|code| code.is_server_error())?;
        Some(format!("the application answered {}", code.as_u16()))
    }
}

/// The host of an authority.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}
