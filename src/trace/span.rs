//! One span: what is known when it begins, and what goes into the queue at its end.

use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName};

use super::Tracing;
use super::context::Context;
use super::ids::SpanId;
use super::w3c;
use crate::base::Str;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Which side of a call a span is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Client,
    Server,
}

/// A span that has begun.
#[derive(Debug)]
pub struct Span {
    pub tracing: Arc<Tracing>,
    /// Its trace and its own id.
    pub context: Context,
    pub parent: Option<SpanId>,
    pub kind: Kind,
    pub started: SystemTime,
    /// What the vendors before have written (`tracestate`).
    pub state: String,
    /// The port that was addressed.
    pub port: u16,
    /// What the request itself says: the id, and the tags that name headers.
    pub tags: Vec<Attribute>,
}

/// A name and a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    pub name: Str,
    pub value: Value,
}

/// What an attribute can be.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(Str),
    Number(i64),
    Switch(bool),
}

/// A span that has ended.
#[derive(Debug)]
pub struct Finished {
    pub span: Box<Span>,
    pub name: String,
    pub ended: SystemTime,
    pub attributes: Vec<Attribute>,
    /// Why it failed, where it did.
    pub error: Option<String>,
    /// The workload that the span is of.
    pub resource: Vec<Attribute>,
    /// That workload's namespace, which has a share of each queue.
    pub tenant: Str,
}

impl Span {
    pub(super) fn new(
        tracing: Arc<Tracing>,
        context: Context,
        parent: Option<SpanId>,
        kind: Kind,
    ) -> Self {
        let (started, state) = (SystemTime::now(), String::new());
        Self { tracing, context, parent, kind, started, state, port: 0, tags: Vec::new() }
    }

    /// What the request itself says; what it said before does not count.
    pub fn read_tags(&mut self, headers: &HeaderMap) {
        self.tags.clear();
        self.state = w3c::state(headers).unwrap_or_default();
        if let Some(id) = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()) {
            self.tags.push(Attribute::text("guid:x-request-id", id));
        }
        for tag in &*self.tracing.tags {
            if let Some(value) = tag.value.read(headers) {
                self.tags.push(Attribute { name: tag.name.clone(), value: Value::Text(value) });
            }
        }
    }
}

impl Attribute {
    pub fn text(name: &str, value: &str) -> Self {
        Self { name: Str::from(name), value: Value::Text(Str::from(value)) }
    }

    pub fn number(name: &str, value: impl TryInto<i64>) -> Self {
        let value = value.try_into().unwrap_or(i64::MAX);
        Self { name: Str::from(name), value: Value::Number(value) }
    }

    pub fn switch(name: &str, value: bool) -> Self {
        Self { name: Str::from(name), value: Value::Switch(value) }
    }
}
