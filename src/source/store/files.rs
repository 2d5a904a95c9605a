//! The set of objects that files give, built from all of them and the set before.
//!
//! The same files over the set that they gave give the same set, and the same words: what is kept of a refused document is
//! known by the place that it came from.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Held, Id, Objects, RefusedPolicy, with_field};
use crate::base::{ObjectKey, Str};
use crate::source::manifest::{Claim, Content, Document, Refusal};
use crate::source::objects::{FieldError, Guard, Kind, Object};
use crate::source::{Complaint, Condition, ConditionReason, ConditionType, Origin, Severity};

/// What becomes of an object whose document is refused.
const LAST_GOOD: &str = "its last good version stays in force";
const ELSEWHERE: &str = "another document holds the object, and that one is in force";
const DENIES: &str = "until it can be understood, it denies what it may apply to";
const NOTHING: &str = "it is not in force, and there is no earlier version of it";
const INVALID: &str = "the API server would refuse it, and there is no earlier version of it";

pub(super) struct Builder<'a> {
    pub(super) previous: &'a Objects,
    pub(super) objects: Objects,
    /// What is in force although its document is refused.
    kept: BTreeSet<Id>,
    /// Documents that are refused. They wait for the others: one of these may hold what they hold.
    refused: Vec<(Origin, Arc<Refusal>)>,
}

/// How many objects a document seems to hold whose kind and name cannot both be told, by what they would deny.
#[derive(Default)]
struct Unnamed {
    requests: usize,
    plaintext: usize,
}

impl<'a> Builder<'a> {
    pub(super) fn new(previous: &'a Objects) -> Self {
        Self { previous, objects: Objects::default(), kept: BTreeSet::new(), refused: Vec::new() }
    }

    pub(super) fn add_documents(&mut self, file: &Str, documents: &[Document]) {
        self.objects.read.insert(file.clone());
        let read = documents.iter().filter_map(|document| match &document.content {
            Content::Object(object) => Some((document.number, (object.kind(), object.key()))),
            _ => None,
        });
        let read: BTreeSet<(usize, Id)> = read.collect();
        for document in documents {
            let origin = Origin::File { file: file.clone(), document: document.number };
            match &document.content {
                Content::Object(object) => {
                    let (kind, key) = (object.kind(), object.key());
                    self.warn_of_twice(&origin, kind.name().into(), &key, &document.twice);
                    self.add((kind, key), object, origin, document);
                }
                Content::Refused(refusal) => {
                    let ids = refusal.claims.iter().filter_map(id_of);
                    // A list may hold the object twice.
                    let ids = ids.filter(|id| !read.contains(&(document.number, id.clone())));
                    self.refuse(refusal, ids.collect(), origin);
                }
                Content::Ignored { kind, key, severity, reason, .. } => {
                    self.objects.complaints.push(Complaint {
                        origin: Some(origin),
                        kind: kind.clone(),
                        object: key.clone(),
                        field: String::new(),
                        severity: *severity,
                        reason: reason.clone(),
                        condition: None,
                        topic: None,
                    });
                }
            }
        }
    }

    fn warn_of_twice(&mut self, origin: &Origin, kind: Str, key: &ObjectKey, twice: &[String]) {
        for field in twice {
            self.complain(
                origin,
                (kind.clone(), Some(key)),
                field,
                "stands twice; the last one counts",
            );
            if let Some(complaint) = self.objects.complaints.last_mut() {
                complaint.severity = Severity::Warning;
            }
        }
    }

    fn add(&mut self, id: Id, object: &Arc<Object>, origin: Origin, document: &Document) {
        let Some(first) = self.objects.held.get(&id) else {
            let wrong = document.invalid.as_ref().or(document.meaningless.as_ref());
            let mut held = Held {
                object: object.clone(),
                origin: Some(origin.clone()),
                invalid: wrong.is_some(),
                over: false,
            };
            let last_good = self.previous.held.get(&id).filter(|held| !held.invalid);
            match (wrong, &document.invalid, last_good) {
                (Some(error), _, Some(last_good)) => {
                    self.complain_of_invalid(&id, &origin, error, true);
                    held = Held { origin: Some(origin), ..last_good.clone() };
                }
                (_, Some(error), None) => self.complain_of_invalid(&id, &origin, error, false),
                // The translation tells it.
                _ => {}
            }
            self.objects.held.insert(id, held);
            return;
        };
        let place = first.origin.as_ref().map(ToString::to_string).unwrap_or_default();
        let reason = format!(
            "is already defined in {place}; that one is in force, and this one has no effect"
        );
        self.complain(&origin, (id.0.name().into(), Some(&id.1)), "metadata.name", reason);
    }

    /// Whatever else is wrong with it, and what follows from that, its translation tells.
    fn complain_of_invalid(&mut self, id: &Id, origin: &Origin, error: &FieldError, kept: bool) {
        let FieldError { field, reason } = error;
        let (outcome, condition) = match kept {
            true => (LAST_GOOD, ConditionType::PartiallyInvalid),
            false => (INVALID, ConditionType::Accepted),
        };
        self.complain(
            origin,
            (id.0.name().into(), Some(&id.1)),
            field,
            format!("{reason}; {outcome}"),
        );
        let Some(complaint) = self.objects.complaints.last_mut() else { return };
        if !kept {
            complaint.severity = Severity::Warning;
        } else if id.0.is_route() {
            complaint.condition = Some(Condition::of(condition, ConditionReason::UnsupportedValue));
        }
    }

    /// What came from the same document stays before any other document can take its place.
    fn refuse(&mut self, refusal: &Arc<Refusal>, ids: Vec<Id>, origin: Origin) {
        for id in ids {
            if let Some(held) = self.previous.held.get(&id)
                && held.origin.as_ref() == Some(&origin)
                && !self.objects.held.contains_key(&id)
            {
                self.keep(id, held.clone());
            }
        }
        self.refused.push((origin, refusal.clone()));
    }

    fn keep(&mut self, id: Id, held: Held) {
        self.objects.held.insert(id.clone(), held);
        self.kept.insert(id);
    }

    pub(super) fn finish(mut self) -> Objects {
        let refused = std::mem::take(&mut self.refused);
        for (origin, refusal) in &refused {
            for claim in &refusal.claims {
                self.settle(origin, refusal, claim);
            }
        }
        // What no document names any more may have been called otherwise before this one was spoiled.
        for (origin, refusal) in &refused {
            self.settle_unnamed(origin, refusal);
        }
        self.objects.weigh_all();
        self.objects
    }

    /// One object that a refused document names.
    fn settle(&mut self, origin: &Origin, refusal: &Refusal, claim: &Claim) {
        let Some(id) = id_of(claim) else { return };
        if !self.objects.held.contains_key(&id)
            && let Some(last_good) = self.previous.held.get(&id)
        {
            self.keep(id.clone(), Held { origin: Some(origin.clone()), ..last_good.clone() });
        }
        let held = self.objects.held.get(&id).map(|held| held.origin.as_ref() == Some(origin));
        let (outcome, condition) = match (held, claim.guard) {
            (Some(true), _) if self.kept.contains(&id) => {
                (LAST_GOOD, ConditionType::PartiallyInvalid)
            }
            (Some(_), _) => (ELSEWHERE, ConditionType::Accepted),
            (None, Some(guard)) => {
                let kind = if id.0.is_security() { id.0 } else { guard.kind() };
                self.remember(kind, id.1, false, refusal, origin);
                (DENIES, ConditionType::Accepted)
            }
            (None, None) => (NOTHING, ConditionType::Accepted),
        };
        self.complain_of(refusal, origin, claim, outcome, condition);
    }

    /// What a refused document may hold besides the objects that it names.
    fn settle_unnamed(&mut self, origin: &Origin, refusal: &Refusal) {
        let mut unnamed = Unnamed::default();
        let nameless = || refusal.claims.iter().filter(|claim| id_of(claim).is_none());
        for claim in nameless() {
            claim.guard.into_iter().for_each(|guard| *unnamed.of(guard) += 1);
        }
        let mut said = !refusal.claims.is_empty();
        if refusal.value.is_none() || nameless().count() == refusal.claims.len() {
            said |= self.keep_unnamed(origin, refusal, &mut unnamed);
        } else if self.names_others(origin, refusal) {
            self.keep_renamed(origin, refusal);
        }
        for claim in nameless() {
            let outcome = match claim.guard {
                Some(guard) if *unnamed.of(guard) > 0 => {
                    unnamed.explain(guard);
                    let anywhere = claim.namespace.is_none();
                    let made_up = made_up(claim, origin);
                    self.remember(guard.kind(), made_up, anywhere, refusal, origin);
                    DENIES
                }
                Some(_) => "what was last read from this document stays in force",
                None => NOTHING,
            };
            self.complain_of(refusal, origin, claim, outcome, ConditionType::Accepted);
        }
        if !said {
            let (field, reason) = (&refusal.field, &refusal.reason);
            self.complain(origin, (Str::default(), None), field, format!("{reason}; {NOTHING}"));
        }
    }

    /// Whether nothing was known of the objects that a refused document names, so that it may have been edited from what it held
    /// before: to another kind, name or namespace.
    fn names_others(&self, origin: &Origin, refusal: &Refusal) -> bool {
        let mut ids = refusal.claims.iter().filter_map(id_of);
        ids.all(|id| {
            let elsewhere = |it: &RefusedPolicy| {
                (it.kind, &it.key) == (id.0, &id.1) && it.origin.as_ref() != Some(origin)
            };
            !self.previous.held.contains_key(&id) && !self.previous.refused.iter().any(elsewhere)
        })
    }

    /// Keeps the security objects that the document held before: no client of a cluster deletes one for such an edit.
    fn keep_renamed(&mut self, origin: &Origin, refusal: &Refusal) {
        let previous = self.previous;
        for (id, held) in &previous.held {
            if id.0.is_security()
                && held.origin.as_ref() == Some(origin)
                && !self.objects.held.contains_key(id)
            {
                self.keep(id.clone(), held.clone());
                let claim = Claim::held(id.0, &id.1);
                let condition = ConditionType::PartiallyInvalid;
                self.complain_of(refusal, origin, &claim, LAST_GOOD, condition);
            }
        }
    }

    /// Keeps what the document held before, unless another one has it now, also where the text does not name it any more.
    fn keep_unnamed(&mut self, origin: &Origin, refusal: &Refusal, unnamed: &mut Unnamed) -> bool {
        let mut any = false;
        let previous = self.previous;
        for (id, held) in &previous.held {
            if held.origin.as_ref() != Some(origin) || self.objects.held.contains_key(id) {
                continue;
            }
            self.keep(id.clone(), held.clone());
            let claim = Claim::held(id.0, &id.1);
            claim.guard.into_iter().for_each(|guard| unnamed.explain(guard));
            self.complain_of(refusal, origin, &claim, LAST_GOOD, ConditionType::PartiallyInvalid);
            any = true;
        }
        // Policies whose names were made up follow from the text as long as it says so.
        let made_up: Vec<ObjectKey> = refusal.claims.iter().map(|it| made_up(it, origin)).collect();
        for policy in &previous.refused {
            let id = (policy.kind, policy.key.clone());
            if policy.origin.as_ref() != Some(origin)
                || made_up.contains(&policy.key)
                || self.objects.refused.iter().any(|it| (it.kind, &it.key) == (id.0, &id.1))
                || self.objects.held.contains_key(&id)
            {
                continue;
            }
            self.objects.refused.push(policy.clone());
            let claim = Claim::held(policy.kind, &policy.key);
            claim.guard.into_iter().for_each(|guard| unnamed.explain(guard));
            self.complain_of(refusal, origin, &claim, DENIES, ConditionType::Accepted);
            any = true;
        }
        any
    }

    fn remember(
        &mut self,
        kind: Kind,
        key: ObjectKey,
        anywhere: bool,
        refusal: &Refusal,
        origin: &Origin,
    ) {
        let policy = RefusedPolicy {
            kind,
            key,
            anywhere,
            document: refusal.value.clone(),
            why: with_field(&refusal.field, &refusal.reason),
            origin: Some(origin.clone()),
        };
        let same = |other: &RefusedPolicy| {
            (other.kind, &other.key, &other.origin) == (policy.kind, &policy.key, &policy.origin)
        };
        if !self.objects.refused.iter().any(same) {
            self.objects.refused.push(policy);
        }
    }

    /// `condition` is what the refusal means for the status of a route.
    fn complain_of(
        &mut self,
        refusal: &Refusal,
        origin: &Origin,
        claim: &Claim,
        outcome: &str,
        condition: ConditionType,
    ) {
        let reason = format!("{}; {outcome}", refusal.reason);
        let object = (claim.kind_name.clone(), claim.key.as_ref());
        self.complain(origin, object, &refusal.field, reason);
        if claim.kind.is_some_and(Kind::is_route)
            && let Some(complaint) = self.objects.complaints.last_mut()
        {
            complaint.condition = Some(Condition::of(condition, ConditionReason::UnsupportedValue));
        }
    }

    pub(super) fn complain(
        &mut self,
        origin: &Origin,
        (kind, object): (Str, Option<&ObjectKey>),
        field: &str,
        reason: impl Into<String>,
    ) {
        self.objects.complaints.push(Complaint {
            origin: Some(origin.clone()),
            kind,
            object: object.cloned(),
            field: field.to_owned(),
            severity: Severity::Error,
            reason: reason.into(),
            condition: None,
            topic: None,
        });
    }
}

impl Unnamed {
    fn of(&mut self, guard: Guard) -> &mut usize {
        match guard {
            Guard::Requests => &mut self.requests,
            Guard::Plaintext => &mut self.plaintext,
        }
    }

    /// One of them is known to be in force.
    fn explain(&mut self, guard: Guard) {
        let left = self.of(guard);
        *left = left.saturating_sub(1);
    }
}

fn id_of(claim: &Claim) -> Option<Id> {
    claim.kind.zip(claim.key.clone())
}

/// A name for a policy that has none that could be used: no object of the API can have one.
fn made_up(claim: &Claim, origin: &Origin) -> ObjectKey {
    let namespace = claim.namespace.clone().unwrap_or_default();
    let (kind, name) = (&claim.kind_name, claim.key.as_ref().map(|key| &key.name));
    match name {
        Some(name) => ObjectKey::new(namespace, format!("{name} ({kind}, {origin})")),
        None => ObjectKey::new(namespace, format!("unnamed ({origin})")),
    }
}
