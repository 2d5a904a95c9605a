//! Any text is an expression that can be evaluated, or an error.

use super::{Attribute, Expression, Facts, Value};

/// A request that has every attribute.
struct Everything;

impl Facts for Everything {
    fn get(&self, _: Attribute) -> Option<Value<'_>> {
        Some(Value::text("text"))
    }
}

/// A text.
pub fn parse(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(expression) = Expression::parse(text) {
        _ = expression.is_true(&Everything);
        _ = expression.text(&Everything);
    }
}
