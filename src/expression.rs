//! Expressions over requests: Istio's attributes in CEL, the Common Expression Language (<https://cel.dev>), as filters of access
//! logs and values of tags have them.
//!
//! A text is parsed once, by the crate `cel`, and compiled to an [`Expression`], whose evaluation takes no longer than its text is: it
//! has no loops, no names that must be looked up and no regular expression that must be compiled. What CEL has besides is an error that
//! names it. Attributes come from [`Facts`]; one that a request does not have is an error of the evaluation, as in CEL, and makes a
//! filter not match.

mod attribute;
mod compile;
mod evaluate;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
#[cfg(test)]
mod tests;

pub use attribute::Attribute;
pub use evaluate::{Facts, Value};

use http::HeaderName;

use crate::base::Str;
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
    written: Str,
}

/// Why a text is no expression.
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
}

impl Expression {
    /// Compiles a text.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        compile::compile(text)
    }

    /// Whether it is true of the request. What cannot be evaluated is not.
    pub fn is_true(&self, facts: &dyn Facts) -> bool {
        matches!(evaluate::value(&self.root, facts), Some(Value::Bool(true)))
    }

    /// Its value as text; `None` if it has none.
    pub fn text(&self, facts: &dyn Facts) -> Option<String> {
        evaluate::value(&self.root, facts)?.into_text()
    }
}

/// By what is written: regular expressions have no equality.
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
