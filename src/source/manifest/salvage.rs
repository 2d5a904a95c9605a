//! Finds out what a document was meant to be when it cannot be read: a policy must not vanish because of a wrong
//! indentation. What it finds is used for nothing but to keep the last good versions of objects, and to deny.
//!
//! Three looks, each less exact than the one before, and each for what those did not explain: what the parser read before it
//! gave up ([`partial`]), whatever the style; lines that look like an object's ([`lines`]); and words that name a kind whose
//! object would deny something ([`words`]), wherever they stand.

mod lines;
mod partial;
mod words;

use std::collections::{HashMap, HashSet};

use super::Claim;
use super::claim::is_namespace;
use super::tree::{Mapping, Tree};
use crate::base::{ObjectKey, Str};
use crate::source::objects::{DEFAULT_NAMESPACE, Guard, Kind, Recognised};

/// What lists of a kind are called: its name, and this.
const LIST: &str = "List";

/// The objects that a text which cannot be read seems to define.
pub(super) fn of_text(text: &str) -> Vec<Claim> {
    let read = partial::read(text);
    let mut claims = Vec::new();
    read.trees.iter().for_each(|tree| object(tree, None, &mut claims));
    let id = |claim: &Claim| Some((claim.kind_name.clone(), claim.key.clone()?));
    let known: HashSet<(Str, ObjectKey)> = claims.iter().filter_map(id).collect();
    let mut lines: HashMap<Str, Vec<Claim>> = HashMap::new();
    for line in lines::scan(&words::unescaped(text)).into_iter().rev() {
        if id(&line).is_none_or(|id| !known.contains(&id)) {
            lines.entry(line.kind_name.clone()).or_default().push(line);
        }
    }
    let mut next_of = |kind: &str| lines.get_mut(kind).and_then(Vec::pop);
    // Its kind was read, its name was not.
    for claim in claims.iter_mut().filter(|claim| claim.namespace.is_none()) {
        // What is indented wrongly may have been taken for more of the kind's name.
        let kind = claim.kind_name.split_whitespace().next().unwrap_or_default();
        if let Some(line) = next_of(kind) {
            *claim = line;
        }
    }
    // A quote that is not closed makes a text of all that follows, so that each word counts, wherever it stands.
    let mut named: HashMap<Str, usize> = HashMap::new();
    claims.iter().for_each(|claim| *named.entry(claim.kind_name.clone()).or_default() += 1);
    let guarded = claims.iter().any(|claim| claim.guard.is_some());
    for word in words::guards(&read.told) {
        match named.get_mut(word).filter(|left| **left > 0) {
            Some(left) => *left -= 1,
            None if word.is_empty() && guarded => {}
            None => claims.push(next_of(word).unwrap_or_else(|| Claim::unnamed(word))),
        }
    }
    let others = lines.into_values().flatten();
    claims.extend(others.filter(|it| it.guard.is_none() && it.kind.is_some() && it.key.is_some()));
    claims
}

/// The same of one that has the syntax of an object, and says no kind.
pub(super) fn of_tree(tree: &Tree) -> Vec<Claim> {
    let mut claims = Vec::new();
    object(tree, None, &mut claims);
    if !claims.iter().any(|claim| claim.guard.is_some()) {
        let mut texts = String::new();
        all_texts(tree, &mut texts);
        claims.extend(words::guards(&texts).into_iter().map(Claim::unnamed));
    }
    claims
}

/// What an object that is cut at its conflicts would define.
pub(super) fn of_objects(mapping: &Mapping) -> Vec<Claim> {
    let mut claims = Vec::new();
    mapping.objects().iter().for_each(|part| of_mapping(part, None, &mut claims));
    claims
}

/// `inferred`: what an item is of whose list has a kind and which says none itself.
fn object(tree: &Tree, inferred: Option<(&str, &str)>, claims: &mut Vec<Claim>) {
    match tree {
        Tree::Scalar(_) => {}
        Tree::List(items) => items.iter().for_each(|item| object(item, inferred, claims)),
        Tree::Map(mapping) => {
            mapping.objects().iter().for_each(|part| of_mapping(part, inferred, claims));
        }
    }
}

fn of_mapping(mapping: &Mapping, inferred: Option<(&str, &str)>, claims: &mut Vec<Claim>) {
    let text = |name: &str| mapping.get(name).and_then(Tree::text);
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let (api_version, kind) = match (api_version, kind, inferred) {
        (None, None, Some((api_version, kind))) => (Some(api_version), Some(kind)),
        (api_version, kind, _) => (api_version, kind),
    };
    if let Some(of) = kind.and_then(|kind| kind.strip_suffix(LIST)) {
        let api_version = api_version.unwrap_or_default();
        let inferred = Some((api_version, of)).filter(|_| !of.is_empty());
        if let Some(items) = mapping.get("items") {
            object(items, inferred, claims);
        }
        // Items of such a list need not say what they are.
        if !mapping.whole && !of.is_empty() && Guard::of(Some(api_version), Some(of)).is_some() {
            claims.push(Claim::unnamed(of));
        }
        return;
    }
    let metadata = mapping.get("metadata");
    let guard = Guard::of(api_version, kind);
    if guard.is_some() || kind.is_some() && (api_version.is_some() || metadata.is_some()) {
        claims.push(claim(api_version, kind.unwrap_or_default(), metadata));
    }
    for (_, inner) in &mapping.entries {
        within(inner, claims);
    }
}

/// Objects that stand inside of what is none: under a key too many, or indented into their neighbour. References to a kind
/// look like objects of it, but for their metadata.
fn within(tree: &Tree, claims: &mut Vec<Claim>) {
    match tree {
        Tree::Scalar(_) => {}
        Tree::List(items) => items.iter().for_each(|item| within(item, claims)),
        Tree::Map(mapping) => {
            let text = |name: &str| mapping.get(name).and_then(Tree::text);
            let guard = Guard::of(text("apiVersion"), text("kind"));
            let like_an_object = mapping.get("metadata").is_some() || !mapping.whole;
            if guard.is_some() && like_an_object {
                of_mapping(mapping, None, claims);
            } else {
                mapping.entries.iter().for_each(|(_, inner)| within(inner, claims));
            }
        }
    }
}

fn claim(api_version: Option<&str>, kind_name: &str, metadata: Option<&Tree>) -> Claim {
    let metadata = metadata.and_then(Tree::mapping);
    let text = |name: &str| metadata?.get(name)?.text();
    let said = metadata.is_some_and(|metadata| metadata.get("namespace").is_some());
    let whole = metadata.is_some_and(|it| it.whole && it.get("<<").is_none());
    let namespace = match text("namespace").filter(|text| !text.is_empty()) {
        Some(namespace) => Some(namespace),
        None => Some(DEFAULT_NAMESPACE).filter(|_| whole && !said),
    };
    Claim::of(api_version, kind_name, text("name"), namespace)
}

fn all_texts(tree: &Tree, texts: &mut String) {
    match tree {
        Tree::Scalar(scalar) => {
            texts.push_str(scalar.as_str().unwrap_or_default());
            texts.push('\n');
        }
        Tree::List(items) => items.iter().for_each(|item| all_texts(item, texts)),
        Tree::Map(mapping) => {
            for (key, inner) in &mapping.entries {
                texts.push_str(key);
                texts.push('\n');
                all_texts(inner, texts);
            }
        }
    }
}

impl Claim {
    /// Of an object that the text names so; `namespace` is `None` where it cannot be known.
    fn of(
        api_version: Option<&str>,
        kind_name: &str,
        name: Option<&str>,
        namespace: Option<&str>,
    ) -> Self {
        let kind = match api_version {
            None => Kind::named(kind_name),
            Some(api_version) => match Kind::recognise(api_version, kind_name) {
                Recognised::Kind(kind) | Recognised::OtherVersion(kind) => Some(kind),
                Recognised::Unsupported | Recognised::Foreign => None,
            },
        };
        let guard = Guard::of(api_version, Some(kind_name));
        let namespaced = kind.is_none_or(Kind::is_namespaced);
        let namespace = namespace.filter(|text| is_namespace(text));
        let namespace = if namespaced { namespace } else { Some("") };
        let name = name.filter(|name| !name.is_empty());
        let key = name.zip(namespace).map(|(name, namespace)| ObjectKey::new(namespace, name));
        Self { kind_name: kind_name.into(), kind, guard, key, namespace: namespace.map(Str::from) }
    }

    /// An object of this security kind that nothing else is known of.
    fn unnamed(kind_name: &str) -> Self {
        let claim = Self::of(None, kind_name, None, None);
        Self { guard: claim.guard.or(Some(Guard::Requests)), ..claim }
    }
}
