//! Where a request belongs: its trace, the span before, and whether it is recorded.

use super::ids::{SpanId, TraceId};

/// The context of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    pub trace: TraceId,
    /// The span that the next one has for its parent.
    pub span: SpanId,
    /// The decision; `None` when whoever sent it has left it to the next one.
    pub sampled: Option<bool>,
    /// Whether the trace's id is known to be random (W3C, level 2).
    pub random: bool,
    /// How it came, and how it is told.
    pub form: Form,
}

/// The headers of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    W3c,
    B3Single,
    B3Several,
}

impl Context {
    /// A new trace.
    pub(super) fn random() -> Self {
        let (trace, span) = (TraceId::random(), SpanId::random());
        Self { trace, span, sampled: None, random: true, form: Form::W3c }
    }

    /// The context of a span that is recorded below this one.
    pub(super) fn next(&self) -> Self {
        Self { span: SpanId::random(), sampled: Some(true), ..self.clone() }
    }
}
