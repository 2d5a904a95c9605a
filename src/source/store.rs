//! The set of objects that are in force, by kind and key.
//!
//! What a file says is not always what is in force: a document that is refused keeps its object's last good version,
//! and a security policy without one is remembered as refused, so that it can deny. Everything here is plain data.
//! Of files, a new set is built from all of them and the set before; what the API server tells changes the set in
//! place, object by object.

mod files;
mod live;
mod unread;
mod weights;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::manifest::{Content, Document};
use super::objects::{Kind, Object, Typed};
use super::{Complaint, Origin};
use crate::base::{ObjectKey, Str};
use files::Builder;

/// One file as it was read.
#[derive(Clone, Debug)]
pub struct File {
    /// The path below the directory; files are taken in this order.
    pub name: Str,
    /// Or why it could not be read.
    pub documents: Result<Arc<[Document]>, String>,
}

/// The objects in force.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    held: BTreeMap<Id, Held>,
    refused: Vec<RefusedPolicy>,
    complaints: Vec<Complaint>,
    /// Files whose content is known, though perhaps not as it is now.
    read: BTreeSet<Str>,
    /// What the regular expressions of a namespace's objects weigh together, where there are any.
    weights: BTreeMap<Str, usize>,
}

/// A security policy that was never understood.
#[derive(Clone, Debug)]
pub struct RefusedPolicy {
    pub kind: Kind,
    /// With a made-up name when it has none.
    pub key: ObjectKey,
    /// Its namespace is not known, so that it may apply to any.
    pub anywhere: bool,
    /// To read its scope from; `None` when not even its syntax is right.
    pub document: Option<Value>,
    pub why: String,
    origin: Option<Origin>,
}

impl RefusedPolicy {
    /// A field of the spec, if it can be read by itself.
    pub(super) fn part<T: DeserializeOwned>(&self, field: &str) -> serde_json::Result<Option<T>> {
        let spec = self.document.as_ref().and_then(|document| document.get("spec"));
        let part = spec.and_then(|spec| spec.get(field)).cloned();
        part.map(serde_json::from_value).transpose()
    }
}

type Id = (Kind, ObjectKey);

#[derive(Clone, Debug)]
struct Held {
    object: Arc<Object>,
    origin: Option<Origin>,
    /// The API server would refuse it: it takes no good version's place, and none is kept for its sake.
    invalid: bool,
    /// The regular expressions of its namespace weigh too much with its own: nothing of it is in force.
    over: bool,
}

impl Objects {
    /// Takes an object, in place of one with the same kind and key.
    pub fn insert(&mut self, object: Object) {
        let id = (object.kind(), object.key());
        _ = self.hold(id, object, None);
    }

    /// What is in force once `files` say what they say and `previous` was in force before.
    pub fn from_files(files: &[File], previous: &Objects) -> Self {
        let mut builder = Builder::new(previous);
        for file in files {
            match &file.documents {
                Ok(documents) => builder.add_documents(&file.name, documents),
                Err(reason) => builder.keep_file(&file.name, reason),
            }
        }
        builder.finish()
    }

    /// Adds the pods that templates would make.
    pub(super) fn add_templates(&mut self, files: &[File]) {
        for file in files {
            for document in file.documents.iter().flat_map(|it| it.iter()) {
                let Content::Ignored { template: Some(pod), .. } = &document.content else {
                    continue;
                };
                let origin = Origin::File { file: file.name.clone(), document: document.number };
                let held =
                    Held { object: pod.clone(), origin: Some(origin), invalid: false, over: false };
                self.held.entry((pod.kind(), pod.key())).or_insert(held);
            }
        }
    }

    /// The object of this type and key.
    pub fn get<T: Typed>(&self, key: &ObjectKey) -> Option<&T> {
        self.in_force(T::KIND, key).and_then(|held| T::of(&held.object))
    }

    /// The object of this type and key, to keep.
    pub(super) fn shared<T: Typed>(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.in_force(T::KIND, key).map(|held| &held.object)
    }

    fn in_force(&self, kind: Kind, key: &ObjectKey) -> Option<&Held> {
        self.held.get(&(kind, key.clone())).filter(|held| !held.over)
    }

    /// All objects of a type, in the order of their keys.
    pub fn all<T: Typed>(&self) -> impl Iterator<Item = (&ObjectKey, &T)> {
        let first = (T::KIND, ObjectKey::new("", ""));
        self.held
            .range(first..)
            .take_while(|((kind, _), _)| *kind == T::KIND)
            .filter(|(_, held)| !held.over)
            .filter_map(|((_, key), held)| T::of(&held.object).map(|object| (key, object)))
    }

    /// All objects of a kind, in the order of their keys.
    pub(super) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&ObjectKey, &Object)> {
        let first = (kind, ObjectKey::new("", ""));
        let held = self.held.range(first..).take_while(move |((of, _), _)| *of == kind);
        held.filter(|(_, held)| !held.over).map(|((_, key), held)| (key, &*held.object))
    }

    /// Those of one namespace.
    pub(super) fn all_in<T: Typed>(
        &self,
        namespace: &str,
    ) -> impl Iterator<Item = (&ObjectKey, &T)> {
        let first = (T::KIND, ObjectKey::new(namespace, ""));
        let (kind, namespace) = (T::KIND, first.1.namespace.clone());
        self.held
            .range(first..)
            .take_while(move |((of, key), _)| *of == kind && key.namespace == namespace)
            .filter(|(_, held)| !held.over)
            .filter_map(|((_, key), held)| T::of(&held.object).map(|object| (key, object)))
    }

    /// What is not as it was in `previous`, or was read elsewhere.
    pub(super) fn differing(&self, previous: &Objects) -> BTreeSet<Id> {
        let is_same = |one: &Held, two: &Held| {
            Arc::ptr_eq(&one.object, &two.object)
                && one.origin == two.origin
                && one.over == two.over
        };
        let between = |one: &'_ Objects, two: &'_ Objects| -> BTreeSet<Id> {
            let held = one.held.iter();
            let other = held.filter(|(id, it)| !two.held.get(id).is_some_and(|to| is_same(it, to)));
            // There are few of these, if any.
            let refused = one.refused.iter().map(|policy| (policy.kind, policy.key.clone()));
            other.map(|(id, _)| id.clone()).chain(refused).collect()
        };
        let mut differing = between(self, previous);
        differing.extend(between(previous, self));
        differing
    }

    pub fn refused(&self) -> &[RefusedPolicy] {
        &self.refused
    }

    /// What was wrong on the way here.
    pub fn complaints(&self) -> &[Complaint] {
        &self.complaints
    }

    /// Where the object, or the refused policy, was read.
    pub fn origin(&self, kind: Kind, key: &ObjectKey) -> Option<&Origin> {
        let held = self.held.get(&(kind, key.clone())).map(|held| &held.origin);
        let refused = || {
            let found = |policy: &&RefusedPolicy| policy.kind == kind && policy.key == *key;
            self.refused.iter().find(found).map(|policy| &policy.origin)
        };
        held.or_else(refused)?.as_ref()
    }
}

fn with_field(field: &str, reason: &str) -> String {
    if field.is_empty() { reason.to_owned() } else { format!("{field}: {reason}") }
}

#[cfg(test)]
mod tests;
