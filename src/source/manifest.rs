//! From the text of a file to typed objects, document by document.
//!
//! What `kubectl` reads is read as `kubectl` reads it: YAML, JSON, streams of either, lists of any kind, UTF-16, marks and
//! returns of other systems. One broken document never spoils its neighbours: the text is cut at the document markers before
//! any of it is parsed, as `kubectl` does. What cannot be read is still asked which objects it seems to define ([`Claim`]):
//! a policy must not vanish because of how it is written. Sizes, depths and alias expansion are bounded, and nothing in a text
//! can panic.

mod claim;
mod endpoints;
mod merge;
mod normal;
mod salvage;
mod split;
mod template;
mod text;
mod tree;

use std::sync::Arc;

use serde_json::Value;

use super::Severity;
use super::objects::{FieldError, Guard, Kind, Object, Recognised, schema};
use super::translate::meaningless;
use crate::base::{ObjectKey, Str};
pub use claim::Claim;
use claim::is_namespace;
use split::Chunk;
pub use template::made_of;
pub(super) use text::decode;
use tree::{Mapping, Tree};

/// One object of a document.
#[derive(Clone, Debug)]
pub struct Document {
    /// Counts the documents of the text that are not empty, from 1. The items of a `List` share a number.
    pub number: usize,
    pub content: Content,
    /// The paths of fields that stand more than once: the last one counts.
    pub twice: Vec<String>,
    /// Why the API server would refuse an object that can be read.
    pub invalid: Option<FieldError>,
    /// What of an object that can be read has a value that means nothing, as Istio's validation would find.
    pub meaningless: Option<FieldError>,
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
        /// The pod that such an object has made, where it is a template of pods.
        template: Option<Arc<Object>>,
    },
}

/// A document, or item of a list, that is no object of ours but should be.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The objects that it would define, as far as can be told: one, or several where it cannot be read, or none.
    pub claims: Vec<Claim>,
    /// The document, unless it is none: its syntax is wrong, or it says twice which object it is.
    pub value: Option<Value>,
    /// Empty for the object as a whole.
    pub field: String,
    pub reason: String,
}

impl Document {
    /// Reads one object by itself, as the API server has it.
    pub fn of(mut object: Value) -> Self {
        normal::normalise(&mut object);
        Self {
            number: 1,
            content: read(object, ""),
            twice: Vec::new(),
            invalid: None,
            meaningless: None,
        }
    }

    /// Stands for a file that is not read.
    pub(super) fn passed_over(why: &str) -> Self {
        let (kind, severity, reason) = (Str::default(), Severity::Warning, why.to_owned());
        let content = Content::Ignored { kind, key: None, severity, reason, template: None };
        Self { number: 0, content, twice: Vec::new(), invalid: None, meaningless: None }
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
/// Scalars and collections of one document; a Pod has some 300, and all pods of a cluster may stand in one List.
const MAX_NODES: usize = 1_000_000;
/// Events of the parser: of each collection it tells the end, too.
const MAX_EVENTS: usize = 2 * MAX_NODES;
/// What aliases may expand to in one document, in parser events: keeps "billion laughs" small.
const MAX_ALIAS_EVENTS: usize = 100_000;
/// What a list is called: `List`, or the name of a kind and this.
const LIST: &str = "List";

/// Reads all documents of a text, YAML or JSON.
pub fn parse(text: &str) -> Vec<Document> {
    let text = text::normalise(text);
    let mut reader = Reader::default();
    split::split(&text).into_iter().for_each(|chunk| reader.read_chunk(chunk));
    reader.documents
}

#[derive(Default)]
struct Reader {
    documents: Vec<Document>,
    number: usize,
}

impl Reader {
    fn read_chunk(&mut self, chunk: Chunk<'_>) {
        if chunk.glued {
            let line = chunk.lines_before + 1;
            let why = format!("line {line}: the marker --- must stand alone in its line");
            self.number += 1;
            return self.unreadable(chunk.text.trim_start_matches('-'), why);
        }
        let rest = self.read_json(&chunk);
        let read = chunk.text.len() - rest.len();
        if rest.trim().is_empty() {
            return;
        }
        let lines = chunk.text.get(..read).unwrap_or_default().matches('\n').count();
        let rest = Chunk { text: rest, lines_before: chunk.lines_before + lines, glued: false };
        self.number += 1;
        match read_yaml(&rest) {
            Ok(tree) => self.take(tree, "", None),
            Err(reason) => self.unreadable(rest.text, reason),
        }
    }

    /// Takes the objects of a stream of JSON that stand in front, of which each is a document; returns what is left.
    fn read_json<'a>(&mut self, chunk: &Chunk<'a>) -> &'a str {
        let body = match chunk.text.strip_prefix("---") {
            Some(rest) => rest.split_once('\n').map_or("", |(_, body)| body),
            None => chunk.text,
        };
        if !body.trim_start().starts_with('{') {
            return chunk.text;
        }
        let mut stream = serde_json::Deserializer::from_str(body).into_iter::<Tree>();
        let mut read = None;
        while let Some(Ok(tree)) = stream.next() {
            read = Some(stream.byte_offset());
            self.number += 1;
            self.take(tree, "", None);
        }
        read.map_or(chunk.text, |read| body.get(read..).unwrap_or_default())
    }

    fn push(&mut self, content: Content, twice: Vec<String>) {
        let (invalid, meaningless) = (None, None);
        self.documents.push(Document { number: self.number, content, twice, invalid, meaningless });
    }

    fn unreadable(&mut self, text: &str, reason: String) {
        let claims = salvage::of_text(text);
        let refusal = Refusal { claims, value: None, field: String::new(), reason };
        self.push(Content::Refused(Arc::new(refusal)), Vec::new());
    }

    /// `inferred`: what an item of a list is that does not say it (API machinery, `unstructuredJSONScheme`).
    fn take(&mut self, tree: Tree, place: &str, inferred: Option<(&str, &str)>) {
        let Tree::Map(mut mapping) = tree else {
            if !(place.is_empty() && tree == Tree::Scalar(Value::Null)) {
                let value = tree.into_value(place, &mut Vec::new());
                self.push(read(value, place), Vec::new());
            }
            return;
        };
        if let Some(field) = mapping.conflict() {
            return self.conflict(&mapping, &at(place, field));
        }
        let says = |field: &str| mapping.get(field).and_then(Tree::text).map(str::to_owned);
        let (api_version, kind) = (says("apiVersion"), says("kind"));
        if let (Some(api_version), Some(kind)) = (&api_version, &kind)
            && matches!(
                Kind::recognise(api_version, kind),
                Recognised::Foreign | Recognised::Unsupported
            )
            && let Some(items) = mapping.items()
        {
            // Whatever has items is a list, to the API machinery, whatever its kind.
            let of = kind.strip_suffix(LIST).unwrap_or(kind);
            let inferred = Some((api_version.as_str(), of)).filter(|_| !of.is_empty());
            for (index, item) in items.into_iter().enumerate() {
                self.take(item, &at(place, &format!("items[{index}]")), inferred);
            }
            return;
        }
        if let (None, None, Some((api_version, kind))) = (api_version, kind, inferred) {
            for (field, text) in [("apiVersion", api_version), ("kind", kind)] {
                mapping.entries.push((field.to_owned(), Tree::Scalar(text.into())));
            }
        }
        let mut twice = Vec::new();
        let mut value = Tree::Map(mapping).into_value("", &mut twice);
        normal::normalise(&mut value);
        if endpoints::is_endpoints(&value) {
            return self.take_endpoints(value, place);
        }
        let twice = twice.iter().map(|field| at(place, field)).collect();
        let kind = kind_of(&value);
        let objection = kind.and_then(|kind| schema::check(kind, &value).err());
        self.push(read(value, place), twice);
        let Some(document) = self.documents.last_mut() else { return };
        let placed = |error: FieldError| FieldError { field: at(place, &error.field), ..error };
        document.invalid = objection.map(placed);
        if let Content::Object(object) = &document.content {
            document.meaningless = meaningless(object).map(placed);
        }
    }

    fn take_endpoints(&mut self, value: Value, place: &str) {
        match endpoints::mirrored(&value) {
            Ok(slices) => {
                for slice in slices {
                    self.push(Content::Object(Arc::new(slice)), Vec::new());
                }
            }
            Err(error) => {
                let content = refused(value, None, at(place, &error.field), error.reason);
                self.push(content, Vec::new());
            }
        }
    }

    fn conflict(&mut self, mapping: &Mapping, field: &str) {
        let reason = "stands twice and differs, as where two objects have no --- between them";
        let refusal = Refusal {
            claims: salvage::of_objects(mapping),
            value: None,
            field: field.to_owned(),
            reason: reason.to_owned(),
        };
        self.push(Content::Refused(Arc::new(refusal)), Vec::new());
    }
}

fn read_yaml(chunk: &Chunk<'_>) -> Result<Tree, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: MAX_EVENTS,
            // Many aliases of one anchor are harmless: what they expand to is bounded.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_ALIAS_EVENTS },
        // The tree keeps them.
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        merge_keys: serde_saphyr::MergeKeyPolicy::AsOrdinary,
        // A header value or label `on` is a text, as in YAML 1.2.
        strict_booleans: true,
        // `010` is eight, as in YAML 1.1.
        legacy_octal_numbers: true,
        with_snippet: false,
        emit_comments: false,
    };
    let read = serde_saphyr::from_str_with_options(chunk.text, options).map_err(|error| {
        let lines_before = u64::try_from(chunk.lines_before).unwrap_or(u64::MAX);
        error.render_with_options(serde_saphyr::render_options! {
            // The other one speaks to programmers.
            formatter: &serde_saphyr::UserMessageFormatter,
            line_offset: lines_before,
        })
    });
    merge::expand(read?)
}

/// The path of a field of what stands at `place`.
fn at(place: &str, field: &str) -> String {
    match (place, field) {
        ("", field) => field.to_owned(),
        (place, "") => place.to_owned(),
        (place, field) => format!("{place}.{field}"),
    }
}

/// What Istio's ingress and egress gateways listen for. Clients and services of a mesh never notice it.
const ISTIO_GATEWAY: (&str, &str) = ("networking.istio.io", "Gateway");

fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Reads one object; `place` is its path in the document.
fn read(value: Value, place: &str) -> Content {
    let field = |field: &str| at(place, field);
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
    if let Some(of) = kind_name.strip_suffix(LIST)
        && (of.is_empty() || !matches!(Kind::recognise(api_version, of), Recognised::Foreign))
    {
        let reason = format!("a {kind_name} needs the field items, a sequence");
        return refused(value, None, field("items"), reason);
    }
    let kind = match Kind::recognise(api_version, kind_name) {
        Recognised::Kind(kind) => kind,
        Recognised::OtherVersion(kind) => {
            let reason = format!("{api_version} is not a version of {kind} that is read here");
            return refused(value, Some(kind), field("apiVersion"), reason);
        }
        Recognised::Unsupported | Recognised::Foreign
            if Guard::is_misspelt(api_version, kind_name) =>
        {
            let reason = format!(
                "{api_version} {kind_name} is no kind of Istio's; AuthorizationPolicy, PeerAuthentication and \
                 RequestAuthentication of security.istio.io/v1 are"
            );
            return refused(value, None, field("kind"), reason);
        }
        Recognised::Unsupported if (group(api_version), kind_name) == ISTIO_GATEWAY => {
            let reason = format!(
                "{api_version} Gateway is for gateways at the edge of a mesh, which Isthmus does not run; it is left to \
                 their controller"
            );
            return ignored(&value, Severity::Note, reason);
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
    if let Some((at, reason)) = why_not(kind, &value) {
        return refused(value, Some(kind), field(&at), reason);
    }
    match kind.read(&value) {
        Ok(object) => Content::Object(Arc::new(object)),
        Err(error) => refused(value, Some(kind), field(&error.field), error.reason),
    }
}

/// The field that makes an object of this kind meaningless, though its reader would take it.
fn why_not(kind: Kind, value: &Value) -> Option<(String, String)> {
    let namespace = value.get("metadata").and_then(|metadata| text_at(metadata, "namespace"));
    let namespace = namespace.filter(|text| kind.is_namespaced() && !text.is_empty());
    if let Some(text) = namespace.filter(|text| !is_namespace(text)) {
        let reason =
            format!("{text:?} is no name of a namespace: lower-case letters, digits and -");
        return Some(("metadata.namespace".to_owned(), reason));
    }
    let spec = value.get("spec").filter(|_| kind.restricts())?;
    let reason = "has characters that are not UTF-8, and nobody knows which were meant; save the file as UTF-8";
    mangled(spec, "spec").map(|field| (field, reason.to_owned()))
}

/// The first text that was not UTF-8, by its path.
fn mangled(value: &Value, path: &str) -> Option<String> {
    match value {
        Value::String(text) => text.contains(char::REPLACEMENT_CHARACTER).then(|| path.to_owned()),
        Value::Array(items) => {
            let mut items = items.iter().enumerate();
            items.find_map(|(index, item)| mangled(item, &format!("{path}[{index}]")))
        }
        Value::Object(fields) => fields.iter().find_map(|(name, inner)| {
            let path = format!("{path}.{name}");
            if name.contains(char::REPLACEMENT_CHARACTER) {
                return Some(path);
            }
            mangled(inner, &path)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn ignored(value: &Value, severity: Severity, reason: String) -> Content {
    let kind = text_at(value, "kind").unwrap_or_default().into();
    let key = Claim::of_value(None, value).and_then(|claim| claim.key);
    let template = template::pod_of(value).map(Arc::new);
    Content::Ignored { kind, key, severity, reason, template }
}

fn refused(
    value: Value,
    kind: Option<Kind>,
    field: impl Into<String>,
    reason: impl Into<String>,
) -> Content {
    let (field, reason) = (field.into(), reason.into());
    let known = kind.is_some().then(|| Claim::of_value(kind, &value)).flatten();
    let claims = match known {
        Some(claim) => vec![claim],
        None => match salvage::of_tree(&Tree::from(&value)) {
            none if none.is_empty() => Claim::of_value(None, &value).into_iter().collect(),
            claims => claims,
        },
    };
    Content::Refused(Arc::new(Refusal { claims, value: Some(value), field, reason }))
}

/// The kind, when it is one that is read here.
fn kind_of(value: &Value) -> Option<Kind> {
    match Kind::recognise(text_at(value, "apiVersion")?, text_at(value, "kind")?) {
        Recognised::Kind(kind) => Some(kind),
        _ => None,
    }
}

fn text_at<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field)?.as_str()
}

#[cfg(test)]
mod tests;
