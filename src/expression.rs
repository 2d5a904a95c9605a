//! Expressions over attributes of requests and connections, in CEL, the Common Expression Language (<https://cel.dev>): the filters of
//! access logs, and the values of metrics' labels.
//!
//! The crate `cel` parses a text once. This room compiles the syntax tree to an [`Expression`], whose evaluation is bounded by the
//! length of the text: there are no loops, names are resolved, and regular expressions are compiled. Other parts of CEL are rejected by
//! name. Attributes come from [`Facts`]. As in CEL, an attribute that a request does not have is an error, and the filter does not
//! match.

mod attribute;
mod compile;
mod evaluate;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
#[cfg(test)]
mod tests;

pub use attribute::{Attribute, PeerField};
pub use evaluate::{Facts, Value};

use http::HeaderName;

use crate::base::{RegexError, Str};
use compile::Node;

/// How long a text may be, in bytes.
pub const MAX_LENGTH: usize = 2_048;

/// An expression that is ready to be evaluated.
#[derive(Clone, Debug)]
pub struct Expression {
    root: Node,
    /// The headers of requests and of responses that it looks at, by the places that its attributes name.
    pub request_headers: Vec<HeaderName>,
    pub response_headers: Vec<HeaderName>,
    about_requests: bool,
    written: Str,
}

/// Why a text is not an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    #[error("is longer than {MAX_LENGTH} bytes")]
    Long,
    #[error("cannot be parsed: {0}")]
    Syntax(String),
    #[error("{0} is not an attribute that is known here")]
    Attribute(String),
    #[error("{0} is not supported")]
    Unsupported(String),
    #[error("{0:?} is not a regular expression, or a large one")]
    Pattern(String),
    /// Of the object that is being read.
    #[error("{0}")]
    Budget(RegexError),
}

impl Expression {
    /// Compiles a text.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        compile::compile(text)
    }

    /// Whether it is true of the request. An error counts as false.
    pub fn is_true(&self, facts: &dyn Facts) -> bool {
        matches!(evaluate::value(&self.root, facts), Some(Value::Bool(true)))
    }

    /// Whether it names an attribute that no connection has.
    pub fn is_about_requests(&self) -> bool {
        self.about_requests
    }

    /// Its value as text; `None` if it has none.
    pub fn text(&self, facts: &dyn Facts) -> Option<String> {
        evaluate::value(&self.root, facts)?.into_text()
    }
}

/// Compares the texts, because regular expressions have no equality.
impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Expression {}

impl serde::Serialize for Expression {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.written)
    }
}
