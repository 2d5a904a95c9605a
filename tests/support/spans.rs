//! A collector of OpenTelemetry that receives spans over HTTP, wherever a test listens.

#![allow(dead_code, reason = "the demo and the suites use different parts")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use anyhow::Result;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message;

/// A span, and the attributes of its resource.
#[derive(Clone)]
pub struct Seen {
    pub service: String,
    pub span: Span,
}

/// A collector that receives OTLP over HTTP.
#[derive(Clone, Default)]
pub struct Collector(Arc<Mutex<Vec<Seen>>>);

impl Collector {
    pub fn serve(listener: TcpListener) -> Self {
        let collector = Self::default();
        let seen = collector.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = seen.clone();
                std::thread::spawn(move || seen.receive(stream));
            }
        });
        collector
    }

    fn receive(&self, mut stream: TcpStream) -> Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let request = ExportTraceServiceRequest::decode(&*body)?;
        let mut all = self.0.lock();
        for resource in request.resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            let service = text(&attributes, "service.name");
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                all.push(Seen { service: service.clone(), span });
            }
        }
        drop(all);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(())
    }

    /// All that has arrived.
    pub fn all(&self) -> Vec<Seen> {
        self.0.lock().clone()
    }

    /// Those of one workload.
    pub fn of(&self, service: &str) -> Vec<Seen> {
        let all = self.0.lock();
        all.iter().filter(|seen| seen.service == service).cloned().collect()
    }
}

/// An attribute as text.
pub fn text(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|it| it.key == name);
    match found.and_then(|it| it.value.clone()).and_then(|it| it.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}
