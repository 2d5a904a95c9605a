//! What a row of the table of kinds says. The table is in `objects.rs`.

use serde_json::Value;

use super::FieldError;
use crate::base::schema::Rule;

/// All that is known of a kind, besides how it is read and translated.
///
/// From it are made: which documents deny when they cannot be read, what is asked of the API server and watched, what is
/// translated again after a change, what is said of kinds that are not carried out, which statuses are written, the roles of
/// `config/helm`, the definitions of `config/crds`, and the table of `docs/resources.md`.
pub struct Row {
    /// Of the API; empty for the core.
    pub group: &'static str,
    /// Those that can be read, the best one first.
    pub versions: &'static [&'static str],
    /// The name of the resource.
    pub plural: &'static str,
    pub namespaced: bool,
    pub carried_out: CarriedOut,
    pub guards: Guards,
    pub affects: Affects,
    pub status: Status,
    pub schema: Schema,
    /// If `config/crds` defines the kind.
    pub definition: Option<Definition>,
    /// For `docs/resources.md`: what of an object is used.
    pub used: &'static str,
}

/// What becomes of an object.
#[derive(Clone, Copy)]
pub enum CarriedOut {
    Yes,
    /// Manifests may contain it; nothing reads it.
    Unread,
    /// It is watched only to say so.
    No {
        /// What happens instead, and what to do.
        instead: &'static str,
        /// It rejects traffic, always.
        denies: bool,
    },
}

/// What would be let past if an object were not known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Guards {
    Nothing,
    /// What should be limited, go through a waypoint, or be encrypted.
    Limits,
    /// What should be denied. An object that was never understood denies it.
    Denies(Guard),
}

/// How an object of a security kind that was never understood denies what it may apply to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guard {
    /// Everything.
    Requests,
    /// What comes without mutual TLS.
    Plaintext,
}

/// What must be translated again if an object changes, besides what is said of kinds that are not carried out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Affects {
    /// Nothing that is kept from translation to translation: attached policies are applied in each.
    Nothing,
    /// Waypoints, policies and levels of PeerAuthentication, and then whatever is under those that changed.
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
}

/// Which status the controller writes.
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

/// What the API server would reject although it can be read, for directories. Metadata are always checked.
#[derive(Clone, Copy)]
pub enum Schema {
    Metadata,
    Spec(&'static Rule),
    /// For the object as a whole.
    Object(&'static Rule),
    /// For the spec, by those who act on it.
    Check(fn(Option<&Value>) -> Result<(), FieldError>),
}

/// What a CustomResourceDefinition has beyond the fields of the spec.
#[derive(Clone, Copy)]
pub struct Definition {
    pub short: &'static str,
    pub description: &'static str,
    /// Name, path and meaning of what `kubectl get` prints.
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
