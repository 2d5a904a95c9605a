//! Changes of single objects, as the API server tells them.
//!
//! The rules are those of files: what cannot be understood is refused alone, its last good version stays in force, and
//! a security policy without one is remembered, so that it can deny.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::{Held, Id, Objects, RefusedPolicy, with_field};
use crate::base::ObjectKey;
use crate::source::objects::{FieldError, Kind, NEAR, Object, Pod, Typed};
use crate::source::{Complaint, Condition, ConditionReason, ConditionType, Origin, Severity};

impl Objects {
    /// Takes what the API server says of an object now. `document` is asked for only when it is refused. Returns the other objects
    /// that are in force, or not in force any more, because of it.
    pub(in crate::source) fn apply(
        &mut self,
        (kind, key): Id,
        read: Result<Object, FieldError>,
        generation: i64,
        document: impl FnOnce() -> Option<Value>,
    ) -> Vec<Id> {
        let origin = Some(Origin::Api { generation });
        let id = (kind, key);
        self.forget_refusal(&id);
        match read {
            Ok(object) => self.hold(id, object, origin),
            Err(error) => {
                self.refuse_live(id, error, origin, document);
                Vec::new()
            }
        }
    }

    /// What a pod has from its template it most often has in common with itself as it was, or with its neighbours.
    pub(super) fn hold(&mut self, id: Id, mut object: Object, origin: Option<Origin>) -> Vec<Id> {
        if let Object::Pod(pod) = &mut object {
            // The key's text, rather than another like it.
            pod.metadata.name = Some(id.1.name.clone());
            let after = self.held.range(&id..).take(NEAR);
            let before = self.held.range(..&id).rev().take(NEAR);
            let mut near = after.chain(before).filter_map(|(_, held)| Pod::of(&held.object));
            near.any(|other| pod.share(other));
        }
        let weight = object.weight();
        let held = Held { object: Arc::new(object), origin, invalid: false, over: false };
        let namespace = id.1.namespace.clone();
        let before = self.held.insert(id.clone(), held);
        let changed = self.reweigh(&namespace, before.as_ref(), weight);
        if weight > 0
            && let Some(held) = self.held.get(&id).filter(|held| !held.over)
        {
            held.object.regexes().into_iter().for_each(|(regexes, _)| regexes.take_up());
        }
        changed
    }

    /// The object is deleted. What is no more as it was: the object itself where anything was known of it, and others that are in
    /// force now.
    pub(in crate::source) fn remove(&mut self, id: &Id) -> Vec<Id> {
        let refused = self.forget_refusal(id);
        let before = self.held.remove(id);
        let mut changed = self.reweigh(&id.1.namespace, before.as_ref(), 0);
        if before.is_some() || refused {
            changed.push(id.clone());
        }
        changed
    }

    /// Drops what there is of `kind` but `keys`, as after a new list of all. Returns what is no more as it was.
    pub(in crate::source) fn retain(&mut self, kind: Kind, keys: &BTreeSet<ObjectKey>) -> Vec<Id> {
        let known = self.keys(kind);
        let gone = known.into_iter().filter(|key| !keys.contains(key)).map(|key| (kind, key));
        gone.flat_map(|id| self.remove(&id)).collect()
    }

    /// The keys of all objects of a kind, those included that were refused.
    fn keys(&self, kind: Kind) -> BTreeSet<ObjectKey> {
        let first = (kind, ObjectKey::new("", ""));
        let held = self.held.range(first..).map(|(id, _)| id).take_while(|(of, _)| *of == kind);
        let mut keys: BTreeSet<ObjectKey> = held.map(|(_, key)| key.clone()).collect();
        keys.extend(self.refused.iter().filter(|it| it.kind == kind).map(|it| it.key.clone()));
        let complaints = self.complaints.iter().filter(|it| it.kind == kind.name());
        keys.extend(complaints.filter_map(|it| it.object.clone()));
        keys
    }

    fn refuse_live(
        &mut self,
        (kind, key): Id,
        error: FieldError,
        origin: Option<Origin>,
        document: impl FnOnce() -> Option<Value>,
    ) {
        let (outcome, condition) = if let Some(held) = self.held.get_mut(&(kind, key.clone())) {
            held.origin.clone_from(&origin);
            ("its last good version stays in force", ConditionType::PartiallyInvalid)
        } else if kind.is_security() {
            self.refused.push(RefusedPolicy {
                kind,
                key: key.clone(),
                anywhere: false,
                document: document(),
                why: with_field(&error.field, &error.reason),
                origin: origin.clone(),
            });
            ("until it can be understood, it denies what it may apply to", ConditionType::Accepted)
        } else {
            ("it is not in force, and there is no earlier version of it", ConditionType::Accepted)
        };
        let condition = Condition::of(condition, ConditionReason::UnsupportedValue);
        self.complaints.push(Complaint {
            origin,
            kind: kind.name().into(),
            object: Some(key),
            field: error.field,
            severity: Severity::Error,
            reason: format!("{}; {outcome}", error.reason),
            condition: kind.is_route().then_some(condition),
            topic: None,
        });
    }

    /// Whether the object had been refused.
    fn forget_refusal(&mut self, (kind, key): &Id) -> bool {
        let before = self.complaints.len();
        self.refused.retain(|it| (it.kind, &it.key) != (*kind, key));
        self.complaints.retain(|it| it.kind != kind.name() || it.object.as_ref() != Some(key));
        self.complaints.len() != before
    }
}
