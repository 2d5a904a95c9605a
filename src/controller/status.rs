//! Statuses: the outcome of an operator's objects, written where `kubectl describe` shows it.
//!
//! [`desired`] computes the statuses, as a pure function of the objects and their translation. [`plan`] compares them
//! with the API server's state and returns the writes, if any. [`run`] does both whenever something changes, and
//! writes; only the leader does.
//!
//! Invariants: what other controllers wrote stays as it is, also in lists that a server-side apply replaces as a whole;
//! a status names the generation that it describes, and never returns to an older one; an unchanged status is not
//! written.

mod ancestors;
mod cache;
mod class;
mod condition;
mod features;
mod feed;
mod gateway;
mod mesh;
mod pace;
mod plan;
mod policy;
mod route;
mod run;
mod subject;
#[cfg(test)]
mod tests;
mod trouble;
mod unserved;
mod waypoint_bound;
mod write;

use std::collections::BTreeMap;

use crate::source::objects::{FieldError, Labelled, Labels, Status};
use crate::source::{
    Complaint, Objects, TranslateSettings, Translation, WaypointBindings, is_of_other_revision,
};
pub use plan::{Write, plan};
pub use run::run;
pub use subject::{Subject, SubjectKind};

use serde_json::Value;

use super::CONTROLLER_NAME;

/// The API server's state of one object with a status.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The whole object, in the version that the API server returned.
    pub object: Value,
    /// Why the object is not in force as written.
    pub refused: Option<FieldError>,
    pub labels: Option<Labels>,
}

/// All inputs of the statuses.
pub struct View<'a> {
    pub objects: &'a Objects,
    pub translation: &'a Translation,
    pub settings: &'a TranslateSettings,
    pub stored: &'a BTreeMap<Subject, Stored>,
    /// Kinds that the API server serves.
    pub served: &'a [SubjectKind],
}

/// A desired status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Fields of the status. Conditions have no `lastTransitionTime` yet.
    pub status: Value,
    /// The top-level condition types of the status that Isthmus writes and removes.
    pub owned: &'static [&'static str],
}

/// All statuses, and the objects that must be created first.
#[derive(Clone, Debug, Default)]
pub struct Desires {
    pub statuses: BTreeMap<Subject, Desired>,
    /// Objects that do not exist and that Isthmus creates.
    pub missing: Vec<(Subject, Value)>,
    /// Another controller's objects under the names of ours.
    pub taken: Vec<Taken>,
}

/// An object with one of our names that another controller owns. It is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub subject: Subject,
    pub reason: &'static str,
    pub message: String,
}

/// Computes the desired statuses.
pub fn desired(view: &View<'_>) -> Desires {
    let mut desires = Desires::default();
    let bindings = WaypointBindings::new(view.objects, view.settings);
    let class = class::desire(view, &mut desires);
    mesh::desire(view, &mut desires);
    for (subject, stored) in view.stored {
        if is_others(view, subject, stored) {
            continue;
        }
        let SubjectKind::Of(kind) = subject.kind else { continue };
        let desired = match kind.row().status {
            Status::None | Status::Class => continue,
            Status::Gateway => gateway::status(view, &class, subject, stored),
            Status::Parents => Some(route::status(view, &class, subject, stored)),
            Status::WaypointBound => waypoint_bound::status(view, &bindings, subject, stored),
            Status::Enforced => Some(policy::authorization(view, &bindings, subject, stored)),
            Status::Accepted => Some(policy::accepted(view, subject, stored)),
            Status::Ancestors if kind.is_unserved() => {
                Some(unserved::ancestors(view, subject, stored))
            }
            Status::Ancestors => Some(ancestors::status(view, subject, stored)),
            Status::NotCarriedOut => Some(unserved::status(view, subject, stored)),
        };
        if let Some(desired) = desired {
            desires.statuses.insert(subject.clone(), desired);
        }
    }
    desires
}

/// A route, or an unsupported object, of another mesh's revision: its status belongs to that mesh.
fn is_others(view: &View<'_>, subject: &Subject, stored: &Stored) -> bool {
    let kind = subject.kind.kind();
    let may_be_left = kind.is_some_and(|kind| kind.is_route() || kind.is_unserved());
    may_be_left && is_of_other_revision(view.settings, stored)
}

/// As far as they are kept.
impl Labelled for Stored {
    fn labels(&self) -> Option<&Labels> {
        self.labels.as_ref()
    }

    fn annotations(&self) -> Option<&Labels> {
        None
    }
}

impl Stored {
    /// `metadata.generation`; `None` for kinds that have none.
    pub fn generation(&self) -> Option<i64> {
        self.object.get("metadata")?.get("generation")?.as_i64()
    }

    /// `metadata.resourceVersion`.
    pub fn resource_version(&self) -> &str {
        self.metadata("resourceVersion")
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.metadata("uid")
    }

    fn metadata(&self, field: &str) -> &str {
        let found = self.object.get("metadata").and_then(|it| it.get(field));
        found.and_then(Value::as_str).unwrap_or_default()
    }

    fn spec(&self, field: &str) -> Option<&Value> {
        self.object.get("spec")?.get(field)
    }
}

impl View<'_> {
    /// What is wrong with an object.
    fn complaints<'a>(&'a self, subject: &'a Subject) -> impl Iterator<Item = &'a Complaint> {
        let of = move |it: &&Complaint| {
            it.kind == subject.kind.name() && it.object.as_ref() == Some(&subject.key)
        };
        self.translation.complaints.iter().filter(of)
    }
}
