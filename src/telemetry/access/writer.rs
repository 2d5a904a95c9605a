//! Writes what a format says, with the values of a record. Texts of peers are escaped as in our own lines: they add neither lines
//! nor fields.

use std::borrow::Cow;
use std::fmt::Write;

use super::{AccessFormat, Node, Operator, Piece, Shape};
use crate::telemetry::log::{MAX_LINE, quote, write_escaped};
use crate::trace::Attribute;

/// Where a value is missing, in text.
const MISSING: &str = "-";

/// The most bytes of a record's body that is exported, and of its attributes: thousands may wait for a collector.
const MOST_EXPORTED: usize = 4 * 1024;

/// The values of a record.
pub(in crate::telemetry) trait Values {
    /// `None` if the record does not have it.
    fn value(&self, operator: &Operator) -> Option<Shown<'_>>;
}

/// The value of an operator.
pub(in crate::telemetry) enum Shown<'a> {
    Text(Cow<'a, str>),
    Number(u128),
}

impl<'a> Shown<'a> {
    pub(in crate::telemetry) fn text(text: &'a str) -> Self {
        Shown::Text(Cow::Borrowed(text))
    }

    pub(in crate::telemetry) fn owned(shown: impl ToString) -> Self {
        Shown::Text(Cow::Owned(shown.to_string()))
    }
}

impl AccessFormat {
    /// The line of the log, with its end.
    pub(in crate::telemetry) fn line(&self, values: &dyn Values) -> String {
        let mut writer = Writer::new(values, MAX_LINE);
        writer.shape(&self.shape);
        writer.text.push('\n');
        writer.text
    }

    /// The same without an end, as short as exported records are.
    pub(in crate::telemetry) fn body(&self, values: &dyn Values) -> String {
        let mut writer = Writer::new(values, MOST_EXPORTED);
        writer.shape(&self.shape);
        writer.text
    }

    /// The fields of a format in JSON as attributes.
    pub(in crate::telemetry) fn attributes(&self, values: &dyn Values) -> Vec<Attribute> {
        let Shape::Json(fields) = &self.shape else { return Vec::new() };
        let mut left = MOST_EXPORTED;
        let attribute = |(key, node): &(String, Node)| {
            let mut writer = Writer::new(values, left);
            match node {
                Node::Text(pieces) => writer.pieces(pieces, String::push_str),
                node => writer.node(node),
            }
            left = left.saturating_sub(writer.text.len());
            Attribute::text(key, &writer.text)
        };
        fields.iter().map(attribute).collect()
    }

    /// The text as the value of a tag.
    pub(in crate::telemetry) fn value(&self, values: &dyn Values, most: usize) -> String {
        let mut writer = Writer::new(values, most);
        if let Shape::Text(pieces) = &self.shape {
            writer.pieces(pieces, String::push_str);
        }
        writer.text.truncate(writer.text.floor_char_boundary(most));
        writer.text
    }
}

struct Writer<'a> {
    values: &'a dyn Values,
    text: String,
    /// A text that has so many bytes gets no more values.
    most: usize,
}

impl<'a> Writer<'a> {
    fn new(values: &'a dyn Values, most: usize) -> Self {
        Self { values, text: String::with_capacity(512.min(most)), most }
    }

    fn shape(&mut self, shape: &Shape) {
        match shape {
            Shape::Text(pieces) => self.pieces(pieces, write_escaped),
            Shape::Json(fields) => self.fields(fields),
        }
    }

    /// Values that peers chose are escaped, unless the whole will be. A line that is too long has no more values.
    fn pieces(&mut self, pieces: &[Piece], escape: fn(&mut String, &str)) {
        for piece in pieces {
            match piece {
                Piece::Literal(text) => self.text.push_str(text),
                Piece::Operator(..) if self.text.len() >= self.most => self.text.push_str(MISSING),
                Piece::Operator(operator, length) => match self.values.value(operator) {
                    Some(Shown::Number(number)) => _ = write!(self.text, "{number}"),
                    Some(Shown::Text(value)) if !value.is_empty() => {
                        escape(&mut self.text, shortened(&value, *length));
                    }
                    _ => self.text.push_str(MISSING),
                },
            }
        }
    }

    fn fields(&mut self, fields: &[(String, Node)]) {
        self.text.push('{');
        for (index, (key, node)) in fields.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            quote(&mut self.text, key);
            self.text.push(':');
            self.node(node);
        }
        self.text.push('}');
    }

    fn node(&mut self, node: &Node) {
        match node {
            // A value by itself keeps its type, and one that is missing is null, as in Envoy. A line that is too long has no more
            // texts of peers.
            Node::Text(pieces) => match &pieces[..] {
                _ if self.text.len() >= self.most => self.text.push_str("null"),
                [Piece::Operator(operator, length)] => match self.values.value(operator) {
                    Some(Shown::Number(number)) => _ = write!(self.text, "{number}"),
                    Some(Shown::Text(value)) if !value.is_empty() => {
                        quote(&mut self.text, shortened(&value, *length));
                    }
                    _ => self.text.push_str("null"),
                },
                pieces => {
                    let outer = std::mem::take(&mut self.text);
                    self.pieces(pieces, String::push_str);
                    let inner = std::mem::replace(&mut self.text, outer);
                    quote(&mut self.text, &inner);
                }
            },
            Node::Fields(fields) => self.fields(fields),
            Node::List(items) => {
                self.text.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.text.push(',');
                    }
                    self.node(item);
                }
                self.text.push(']');
            }
            Node::Constant(value) => _ = write!(self.text, "{value}"),
        }
    }
}

/// The first characters of a text.
fn shortened(text: &str, length: Option<usize>) -> &str {
    let Some(length) = length else { return text };
    text.char_indices().nth(length).map_or(text, |(end, _)| &text[..end])
}
