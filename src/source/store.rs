//! The set of objects that are in force, by kind and key.
//!
//! What a file says is not always what is in force: a document that is refused keeps its object's last good version,
//! and a security policy without one is remembered as refused, so that it can deny. Everything here is plain data.
//! Of files, a new set is built from all of them and the set before; what the API server tells changes the set in
//! place, object by object.

mod live;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::manifest::{Content, Document, Refusal};
use super::objects::{DEFAULT_NAMESPACE, Kind, Object, Typed};
use super::{Complaint, Condition, ConditionReason, ConditionType, Origin, Severity};
use crate::base::{ObjectKey, Str};

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
}

/// A security policy that was never understood.
#[derive(Clone, Debug)]
pub struct RefusedPolicy {
    pub kind: Kind,
    /// With a made-up name when it has none.
    pub key: ObjectKey,
    /// To read its scope from; `None` when not even its syntax is right.
    pub document: Option<Value>,
    pub why: String,
    origin: Option<Origin>,
}

type Id = (Kind, ObjectKey);

#[derive(Clone, Debug)]
struct Held {
    object: Arc<Object>,
    origin: Option<Origin>,
}

impl Objects {
    /// Takes an object, in place of one with the same kind and key.
    pub fn insert(&mut self, object: Object) {
        let id = (object.kind(), object.key());
        self.hold(id, object, None);
    }

    /// What is in force once `files` say what they say and `previous` was in force before.
    pub fn from_files(files: &[File], previous: &Objects) -> Self {
        let mut builder = Builder { previous, objects: Objects::default(), later: Vec::new() };
        for file in files {
            match &file.documents {
                Ok(documents) => builder.add_documents(&file.name, documents),
                Err(reason) => builder.keep_file(&file.name, reason),
            }
        }
        builder.finish()
    }

    /// The object of this type and key.
    pub fn get<T: Typed>(&self, key: &ObjectKey) -> Option<&T> {
        self.held.get(&(T::KIND, key.clone())).and_then(|held| T::of(&held.object))
    }

    /// The object of this type and key, to keep.
    pub(super) fn shared<T: Typed>(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.held.get(&(T::KIND, key.clone())).map(|held| &held.object)
    }

    /// All objects of a type, in the order of their keys.
    pub fn all<T: Typed>(&self) -> impl Iterator<Item = (&ObjectKey, &T)> {
        let first = (T::KIND, ObjectKey::new("", ""));
        self.held
            .range(first..)
            .take_while(|((kind, _), _)| *kind == T::KIND)
            .filter_map(|((_, key), held)| T::of(&held.object).map(|object| (key, object)))
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
            .filter_map(|((_, key), held)| T::of(&held.object).map(|object| (key, object)))
    }

    /// What is not as it was in `previous`, or was read elsewhere.
    pub(super) fn differing(&self, previous: &Objects) -> BTreeSet<Id> {
        let is_same = |one: &Held, two: &Held| {
            Arc::ptr_eq(&one.object, &two.object) && one.origin == two.origin
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

struct Builder<'a> {
    previous: &'a Objects,
    objects: Objects,
    /// Refusals that have no last good version by their key. They wait for the other documents: one of these may
    /// hold the object.
    later: Vec<(Origin, Arc<Refusal>)>,
}

impl Builder<'_> {
    fn add_documents(&mut self, file: &Str, documents: &[Document]) {
        for document in documents {
            let origin = Origin::File { file: file.clone(), document: document.number };
            match &document.content {
                Content::Object(object) => self.add(object, origin),
                Content::Refused(refusal) => self.refuse(refusal, origin),
                Content::Ignored { kind, key, severity, reason } => {
                    self.objects.complaints.push(Complaint {
                        origin: Some(origin),
                        kind: kind.clone(),
                        object: key.clone(),
                        field: String::new(),
                        severity: *severity,
                        reason: reason.clone(),
                        condition: None,
                    });
                }
            }
        }
    }

    fn add(&mut self, object: &Arc<Object>, origin: Origin) {
        let id = (object.kind(), object.key());
        let Some(first) = self.objects.held.get(&id) else {
            let held = Held { object: object.clone(), origin: Some(origin) };
            self.objects.held.insert(id, held);
            return;
        };
        let place = first.origin.as_ref().map(ToString::to_string).unwrap_or_default();
        let reason = format!(
            "is already defined in {place}; that one is in force, and this one has no effect"
        );
        self.complain(&origin, Some(id.0), Some(&id.1), "metadata.name", reason);
    }

    fn refuse(&mut self, refusal: &Arc<Refusal>, origin: Origin) {
        let id = refusal.kind.zip(refusal.key.clone());
        let last_good = id.as_ref().and_then(|id| self.previous.held.get(id));
        match (id, last_good) {
            (Some(id), Some(last_good)) if !self.objects.held.contains_key(&id) => {
                let object = last_good.object.clone();
                self.objects.held.insert(id, Held { object, origin: Some(origin.clone()) });
                let outcome = "its last good version stays in force";
                self.complain_of(refusal, &origin, outcome, ConditionType::PartiallyInvalid);
            }
            _ => self.later.push((origin, refusal.clone())),
        }
    }

    /// A file, or folder, that cannot be read leaves in force what it held.
    fn keep_file(&mut self, file: &Str, reason: &str) {
        self.keep_where(|origin| {
            let Origin::File { file: other, .. } = origin else { return false };
            let rest = other.strip_prefix(file.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        let origin = Origin::File { file: file.clone(), document: 0 };
        let reason = format!(
            "cannot be read ({reason}); the objects that were last read from it stay in force"
        );
        self.complain(&origin, None, None, "", reason);
    }

    /// Keeps what `previous` had from these places, unless another document has it now. Returns how much.
    fn keep_where(&mut self, from: impl Fn(&Origin) -> bool) -> usize {
        let mut kept = 0;
        let previous = self.previous;
        for (id, held) in &previous.held {
            if held.origin.as_ref().is_some_and(&from) && !self.objects.held.contains_key(id) {
                self.objects.held.insert(id.clone(), held.clone());
                kept += 1;
            }
        }
        for policy in &previous.refused {
            if policy.origin.as_ref().is_some_and(&from) {
                self.objects.refused.push(policy.clone());
                kept += 1;
            }
        }
        kept
    }

    fn finish(mut self) -> Objects {
        for (origin, refusal) in std::mem::take(&mut self.later) {
            let id = refusal.kind.zip(refusal.key.clone());
            let outcome = if id.as_ref().is_some_and(|id| self.objects.held.contains_key(id)) {
                "another document holds the object, and that one is in force"
            } else if id.is_none() && self.keep_where(|place| *place == origin) > 0 {
                "what was last read from this document stays in force"
            } else if let Some(kind) = refusal.kind.filter(|kind| kind.is_security()) {
                self.remember(kind, &refusal, &origin);
                "until it can be understood, it denies what it may apply to"
            } else {
                "it is not in force, and there is no earlier version of it"
            };
            self.complain_of(&refusal, &origin, outcome, ConditionType::Accepted);
        }
        self.objects
    }

    fn remember(&mut self, kind: Kind, refusal: &Refusal, origin: &Origin) {
        let made_up = || {
            let namespace =
                refusal.value.as_ref().and_then(namespace_in).unwrap_or(DEFAULT_NAMESPACE);
            ObjectKey::new(namespace, format!("unnamed ({origin})"))
        };
        self.objects.refused.push(RefusedPolicy {
            kind,
            key: refusal.key.clone().unwrap_or_else(made_up),
            document: refusal.value.clone(),
            why: with_field(&refusal.field, &refusal.reason),
            origin: Some(origin.clone()),
        });
    }

    /// `condition` is what the refusal means for the status of a route.
    fn complain_of(
        &mut self,
        refusal: &Refusal,
        origin: &Origin,
        outcome: &str,
        condition: ConditionType,
    ) {
        let reason = format!("{}; {outcome}", refusal.reason);
        self.complain(origin, refusal.kind, refusal.key.as_ref(), &refusal.field, reason);
        if refusal.kind.is_some_and(Kind::is_route)
            && let Some(complaint) = self.objects.complaints.last_mut()
        {
            complaint.condition = Some(Condition::of(condition, ConditionReason::UnsupportedValue));
        }
    }

    fn complain(
        &mut self,
        origin: &Origin,
        kind: Option<Kind>,
        key: Option<&ObjectKey>,
        field: &str,
        reason: String,
    ) {
        self.objects.complaints.push(Complaint {
            origin: Some(origin.clone()),
            kind: kind.map(Kind::name).unwrap_or_default().into(),
            object: key.cloned(),
            field: field.to_owned(),
            severity: Severity::Error,
            reason,
            condition: None,
        });
    }
}

fn namespace_in(document: &Value) -> Option<&str> {
    document.get("metadata")?.get("namespace")?.as_str()
}

fn with_field(field: &str, reason: &str) -> String {
    if field.is_empty() { reason.to_owned() } else { format!("{field}: {reason}") }
}

#[cfg(test)]
mod tests;
