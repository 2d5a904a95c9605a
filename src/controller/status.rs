//! Statuses: what became of an operator's objects, written where `kubectl describe` shows it.
//!
//! [`desired`] says what the statuses ought to be, a pure function of the objects and their translation. [`plan`]
//! compares it with what the API server holds and says what has to be written, if anything. [`run`] does both whenever
//! something changes, and writes; only the leader does.
//!
//! Invariants: what other controllers wrote stays as it is, also in lists that a server-side apply replaces whole;
//! a status says which generation it is about, and never goes back to an older one; where nothing is to be said
//! anew, nothing is written.

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
mod traffic_policy;
mod trouble;
mod unserved;
mod waypoint_bound;
mod write;

use std::collections::BTreeMap;

use crate::source::objects::{FieldError, Labelled, Labels};
use crate::source::{
    Complaint, Objects, TranslateSettings, Translation, WaypointBindings, is_of_other_revision,
};
pub use plan::{Write, plan};
pub use run::run;
pub use subject::{Subject, SubjectKind};

use serde_json::Value;

use super::CONTROLLER_NAME;

/// What the API server holds of one object that has a status to write.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The whole object, in the version that the API server gave.
    pub object: Value,
    /// Why the object is not in force as it stands.
    pub refused: Option<FieldError>,
    pub labels: Option<Labels>,
}

/// Everything that there is to know when statuses are made.
pub struct View<'a> {
    pub objects: &'a Objects,
    pub translation: &'a Translation,
    pub settings: &'a TranslateSettings,
    pub stored: &'a BTreeMap<Subject, Stored>,
    /// Kinds that the API server has.
    pub served: &'a [SubjectKind],
}

/// A status as it ought to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Fields of the status. Conditions have no `lastTransitionTime` yet.
    pub status: Value,
    /// The types of conditions at the status's top that are ours to write and to remove.
    pub owned: &'static [&'static str],
}

/// All statuses, and the objects that have to be made first.
#[derive(Clone, Debug, Default)]
pub struct Desires {
    pub statuses: BTreeMap<Subject, Desired>,
    /// Objects that do not exist and are ours to make.
    pub missing: Vec<(Subject, Value)>,
    /// Somebody else's objects that stand where ours should.
    pub taken: Vec<Taken>,
}

/// An object of ours by its name that another controller owns. It is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub subject: Subject,
    pub reason: &'static str,
    pub message: String,
}

/// What the statuses ought to be.
pub fn desired(view: &View<'_>) -> Desires {
    let mut desires = Desires::default();
    let bindings = WaypointBindings::new(view.objects, view.settings);
    let class = class::desire(view, &mut desires);
    mesh::desire(view, &mut desires);
    for (subject, stored) in view.stored {
        if is_others(view, subject, stored) {
            continue;
        }
        let desired = match subject.kind {
            SubjectKind::GatewayClass | SubjectKind::XMesh => continue,
            SubjectKind::Gateway => gateway::status(view, &class, subject, stored),
            SubjectKind::HTTPRoute
            | SubjectKind::GRPCRoute
            | SubjectKind::TCPRoute
            | SubjectKind::TLSRoute => Some(route::status(view, &class, subject, stored)),
            SubjectKind::Service | SubjectKind::ServiceEntry | SubjectKind::Namespace => {
                waypoint_bound::status(view, &bindings, subject, stored)
            }
            SubjectKind::AuthorizationPolicy => {
                Some(policy::authorization(view, &bindings, subject, stored))
            }
            SubjectKind::PeerAuthentication => {
                Some(policy::peer_authentication(view, subject, stored))
            }
            SubjectKind::TrafficPolicy => Some(traffic_policy::status(view, subject, stored)),
            SubjectKind::BackendTLSPolicy => Some(unserved::ancestors(view, subject, stored)),
            SubjectKind::RequestAuthentication
            | SubjectKind::DestinationRule
            | SubjectKind::VirtualService
            | SubjectKind::EnvoyFilter
            | SubjectKind::WasmPlugin
            | SubjectKind::Telemetry => Some(unserved::status(view, subject, stored)),
        };
        if let Some(desired) = desired {
            desires.statuses.insert(subject.clone(), desired);
        }
    }
    desires
}

/// A route, or an object that is not carried out anyway, of another mesh's revision: its status is that mesh's matter.
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
