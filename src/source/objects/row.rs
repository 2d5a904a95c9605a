//! The columns of the table of kinds, which is in `objects.rs`.

use serde_json::Value;

use super::FieldError;
use crate::base::schema::Rule;

/// A kind of object, apart from the code that reads and translates it.
///
/// Derived from it: the documents that deny if they cannot be read, the discovery and the watches, the parts of a translation that
/// are done again after a change, the complaints about kinds that are not carried out, the statuses, the roles of `config/helm`,
/// the definitions of `config/crds`, and the table of `docs/resources.md`.
pub struct Row {
    /// The API group; empty for the core.
    pub group: &'static str,
    /// The versions that can be read, the best one first.
    pub versions: &'static [&'static str],
    /// The name of the resource.
    pub plural: &'static str,
    pub namespaced: bool,
    /// The name of the only object that is watched, in the root namespace; `None` for all objects.
    pub only: Option<&'static str>,
    pub carried_out: CarriedOut,
    pub guards: Guards,
    pub affects: Affects,
    pub status: Status,
    pub schema: Schema,
    /// `Some` if `config/crds` defines the kind.
    pub definition: Option<Definition>,
    /// The fields that are used, for `docs/resources.md`.
    pub used: &'static str,
}

/// Whether Isthmus acts on an object.
#[derive(Clone, Copy)]
pub enum CarriedOut {
    Yes,
    /// Manifests may contain it; nothing reads it.
    Unread,
    /// It is watched only to report that.
    No {
        /// The effect instead, and what to do.
        instead: &'static str,
        /// It always rejects traffic.
        denies: bool,
    },
}

/// The traffic that an object holds back, and that would pass without it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Guards {
    Nothing,
    /// Traffic that should be limited, go through a waypoint, or be encrypted.
    Limits,
    /// Traffic that should be denied. An object that could never be read denies it.
    Denies(Guard),
}

/// The traffic that an object of a security kind denies if it could never be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guard {
    /// Everything.
    Requests,
    /// Everything without mutual TLS.
    Plaintext,
}

/// The part of the translation that is done again if an object changes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Affects {
    /// Nothing that is kept between translations: policies are attached in each of them.
    Nothing,
    /// Waypoints, policies and levels of PeerAuthentication, and then the objects that these apply to.
    Frame,
    Namespace,
    Node,
    Pod,
    Service,
    EndpointSlice,
    WorkloadEntry,
    ServiceEntry,
    Gateway,
    Route,
    VirtualService,
}

/// The status that the controller writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    None,
    /// Of a GatewayClass.
    Class,
    /// Of a Gateway and its listeners.
    Gateway,
    /// An entry for each parent (Gateway API, RouteStatus).
    Parents,
    /// An entry for each target (Gateway API, PolicyAncestorStatus), from the complaints about it.
    Ancestors,
    /// One condition: whether the object is accepted, from the complaints about it.
    Accepted,
    /// Conditions of an AuthorizationPolicy: where it is enforced.
    Enforced,
    /// One condition: whether the object is bound to the waypoint that it names.
    WaypointBound,
    /// One condition: that the object is not carried out.
    NotCarriedOut,
}

/// The API server's validation, for directories. Metadata are always validated.
#[derive(Clone, Copy)]
pub enum Schema {
    Metadata,
    Spec(&'static Rule),
    /// For the object as a whole.
    Object(&'static Rule),
    /// For the spec, by the room that acts on it.
    Check(fn(Option<&Value>) -> Result<(), FieldError>),
}

/// The parts of a CustomResourceDefinition beyond the fields of the spec.
#[derive(Clone, Copy)]
pub struct Definition {
    pub short: &'static str,
    pub description: &'static str,
    /// Name, path and meaning of each column of `kubectl get`.
    pub columns: &'static [(&'static str, &'static str, &'static str)],
}

impl Row {
    /// A kind in namespaces that is carried out, without a status.
    pub(super) const fn of(group: &'static str, versions: &'static [&'static str]) -> Self {
        Self {
            group,
            versions,
            plural: "",
            namespaced: true,
            only: None,
            carried_out: CarriedOut::Yes,
            guards: Guards::Nothing,
            affects: Affects::Nothing,
            status: Status::None,
            schema: Schema::Metadata,
            definition: None,
            used: "",
        }
    }
}
