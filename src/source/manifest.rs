//! From the text of a file to typed objects, document by document.
//!
//! One broken document never spoils its neighbours: the text is cut at the document markers before any of it is
//! parsed, as `kubectl` does. Sizes, depths and alias expansion are bounded, and nothing in a text can panic.

mod salvage;
mod split;

use std::sync::Arc;

use serde_json::Value;

use super::Severity;
use super::objects::{DEFAULT_NAMESPACE, Kind, Object, Recognised};
use crate::base::{ObjectKey, Str};
use split::Chunk;

/// One object of a document.
#[derive(Clone, Debug)]
pub struct Document {
    /// Counts the documents of the text that are not empty, from 1. The items of a `List` share a number.
    pub number: usize,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub enum Content {
    Object(Arc<Object>),
    Refused(Arc<Refusal>),
    /// A kind that is not read here.
    Ignored {
        kind: Str,
        key: Option<ObjectKey>,
        severity: Severity,
        reason: String,
    },
}

/// A document, or item of a list, that is no object of ours but should be.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// When it could be read.
    pub kind: Option<Kind>,
    /// When it could be read.
    pub key: Option<ObjectKey>,
    /// The document, unless not even its syntax is right.
    pub value: Option<Value>,
    /// Empty for the object as a whole.
    pub field: String,
    pub reason: String,
}

impl Document {
    /// Reads one object by itself, as the API server has it.
    pub fn of(object: Value) -> Self {
        Self { number: 1, content: read(object, "") }
    }

    /// Why the object is refused, when it is.
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.content {
            Content::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

/// The deepest nesting; Kubernetes objects have some 20 levels.
const MAX_DEPTH: usize = 64;
/// Scalars and collections of one document; a Pod has some 300.
const MAX_NODES: usize = 100_000;
/// What aliases may expand to in one document, in parser events: keeps "billion laughs" small.
const MAX_ALIAS_EVENTS: usize = 100_000;

/// Reads all documents of a text, YAML or JSON.
pub fn parse(text: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    for (index, chunk) in split::split(text).into_iter().enumerate() {
        let number = index + 1;
        match value_of(&chunk) {
            Ok(value) => read_all(value, number, &mut documents),
            Err(reason) => {
                let (kind, key) = salvage::scan(chunk.text);
                let refusal = Refusal { kind, key, value: None, field: String::new(), reason };
                documents.push(Document { number, content: Content::Refused(Arc::new(refusal)) });
            }
        }
    }
    documents
}

fn value_of(chunk: &Chunk<'_>) -> Result<Value, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH, max_nodes: MAX_NODES },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_ALIAS_EVENTS },
        // A header value or label `on` is a text, as in YAML 1.2.
        strict_booleans: true,
        with_snippet: false,
        emit_comments: false,
    };
    serde_saphyr::from_str_with_options(chunk.text, options).map_err(|error| {
        let lines_before = u64::try_from(chunk.lines_before).unwrap_or(u64::MAX);
        error.render_with_options(serde_saphyr::render_options! { line_offset: lines_before })
    })
}

fn read_all(value: Value, number: usize, documents: &mut Vec<Document>) {
    let mut push = |content| documents.push(Document { number, content });
    if value.is_null() {
        return;
    }
    let is_list =
        text_at(&value, "kind") == Some("List") && text_at(&value, "apiVersion") == Some("v1");
    if !is_list {
        return push(read(value, ""));
    }
    match value.get("items") {
        Some(Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                push(read(item.clone(), &format!("items[{index}]")));
            }
        }
        _ => push(refused(value, None, "items", "a List needs the field items, a sequence")),
    }
}

/// Reads one object; `place` is its path in the document.
fn read(value: Value, place: &str) -> Content {
    let field = |field: &str| match (place, field) {
        ("", field) => field.to_owned(),
        (place, "") => place.to_owned(),
        (place, field) => format!("{place}.{field}"),
    };
    if !value.is_object() {
        let reason = "is not a Kubernetes object: a mapping with apiVersion, kind and metadata";
        return refused(value, None, field(""), reason);
    }
    let Some(api_version) = text_at(&value, "apiVersion") else {
        return refused(value, None, field("apiVersion"), "is missing or not a text");
    };
    let Some(kind_name) = text_at(&value, "kind") else {
        return refused(value, None, field("kind"), "is missing or not a text");
    };
    let kind = match Kind::recognise(api_version, kind_name) {
        Recognised::Kind(kind) => kind,
        Recognised::OtherVersion(kind) => {
            let reason = format!("{api_version} is not a version of {kind} that is read here");
            return refused(value, Some(kind), field("apiVersion"), reason);
        }
        Recognised::Unsupported => {
            let reason = format!("{api_version} {kind_name} is not supported and has no effect");
            return ignored(&value, Severity::Warning, reason);
        }
        Recognised::Foreign => {
            let reason = format!("{api_version} {kind_name} means nothing to the mesh");
            return ignored(&value, Severity::Note, reason);
        }
    };
    match kind.read(&value) {
        Ok(object) => Content::Object(Arc::new(object)),
        Err(error) => refused(value, Some(kind), field(&error.field), error.reason),
    }
}

fn ignored(value: &Value, severity: Severity, reason: String) -> Content {
    let kind = text_at(value, "kind").unwrap_or_default().into();
    Content::Ignored { kind, key: key_in(value, None), severity, reason }
}

fn refused(
    value: Value,
    kind: Option<Kind>,
    field: impl Into<String>,
    reason: impl Into<String>,
) -> Content {
    let (field, reason) = (field.into(), reason.into());
    let key = key_in(&value, kind);
    Content::Refused(Arc::new(Refusal { kind, key, value: Some(value), field, reason }))
}

/// The key, when the parts of the metadata that make it are texts.
fn key_in(value: &Value, kind: Option<Kind>) -> Option<ObjectKey> {
    let metadata = value.get("metadata")?;
    let name = text_at(metadata, "name").filter(|name| !name.is_empty())?;
    if kind.is_some_and(|kind| !kind.is_namespaced()) {
        return Some(ObjectKey::new("", name));
    }
    let namespace = match metadata.get("namespace") {
        None | Some(Value::Null) => DEFAULT_NAMESPACE,
        Some(Value::String(text)) if text.is_empty() => DEFAULT_NAMESPACE,
        Some(other) => other.as_str()?,
    };
    Some(ObjectKey::new(namespace, name))
}

fn text_at<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field)?.as_str()
}

#[cfg(test)]
mod tests;
