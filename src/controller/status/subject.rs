//! The objects whose statuses Isthmus writes.

use std::fmt;

use crate::base::ObjectKey;
use crate::source::objects::{GATEWAY_X_GROUP, Kind, Status};

/// A kind of object whose status is ours to write, in part or as a whole, or that statuses depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SubjectKind {
    /// A kind of the table (`source::objects`).
    Of(Kind),
    /// The mesh itself, which we make and nothing reads.
    XMesh,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    pub kind: SubjectKind,
    pub key: ObjectKey,
}

/// How a server-side apply must handle a kind's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lists {
    /// Entries of lists have separate owners; we apply ours (Kubernetes "Merge strategy", list type `map`).
    Merged,
    /// The list has one owner, so all entries must be applied: other controllers' unchanged (list type `atomic`).
    Whole,
}

impl SubjectKind {
    /// Every kind whose status Isthmus writes.
    pub fn all() -> impl Iterator<Item = SubjectKind> {
        let with_status = Kind::all().filter(|kind| kind.row().status != Status::None);
        with_status.map(SubjectKind::Of).chain([SubjectKind::XMesh])
    }

    /// Every kind that is read: besides those, the kinds of which one object concerns the whole mesh and how others are
    /// understood (MeshConfig).
    pub fn read() -> impl Iterator<Item = SubjectKind> {
        let alone = Kind::all().filter(|kind| kind.row().only.is_some());
        Self::all().chain(alone.map(SubjectKind::Of))
    }

    /// The name of the only object that is read, in the root namespace; `None` for all objects.
    pub fn only(self) -> Option<&'static str> {
        self.kind().and_then(|kind| kind.row().only)
    }

    pub fn name(self) -> &'static str {
        match self {
            SubjectKind::Of(kind) => kind.name(),
            SubjectKind::XMesh => "XMesh",
        }
    }

    /// Its kind in the translation; `None` if the translation does not know it.
    pub fn kind(self) -> Option<Kind> {
        match self {
            SubjectKind::Of(kind) => Some(kind),
            SubjectKind::XMesh => None,
        }
    }

    /// Nothing of its objects' specs is needed beside the parsed object.
    pub fn is_read_without_spec(self) -> bool {
        match self.status() {
            Status::WaypointBound => true,
            // Others have an entry for each parent or target.
            Status::NotCarriedOut => self.kind().is_some_and(Kind::is_unserved),
            _ => false,
        }
    }

    /// Whether an object of it must exist that Isthmus creates.
    pub fn is_made(self) -> bool {
        self == SubjectKind::XMesh || self.status() == Status::Class
    }

    pub fn is_namespaced(self) -> bool {
        self.kind().is_some_and(Kind::is_namespaced)
    }

    /// The versions that can be read, the best one first.
    pub fn versions(self) -> &'static [&'static str] {
        self.kind().map_or(&["v1alpha1"][..], Kind::versions)
    }

    /// The API group; empty for the core.
    pub fn group(self) -> &'static str {
        self.kind().map_or(GATEWAY_X_GROUP, Kind::group)
    }

    pub fn plural(self) -> &'static str {
        self.kind().map_or("xmeshes", Kind::plural)
    }

    /// As in the kinds' definitions. Conditions of Kubernetes' own kinds, of Gateways and of classes are merged by type. The
    /// entries of parents and ancestors are atomic (RouteStatus, PolicyStatus), and so are the conditions of Istio's kinds and
    /// ours, whose definitions say nothing of them.
    pub fn lists(self) -> Lists {
        match self.status() {
            _ if self.group().is_empty() || self == SubjectKind::XMesh => Lists::Merged,
            Status::Class | Status::Gateway => Lists::Merged,
            _ => Lists::Whole,
        }
    }

    /// Whether the whole status is ours once the object is: earlier content is then taken over. Otherwise the
    /// conditions of a Service or policy may be another mesh's, which keeps them.
    pub fn is_all_ours(self) -> bool {
        self.is_made() || self.status() == Status::Gateway
    }

    fn status(self) -> Status {
        self.kind().map_or(Status::None, |kind| kind.row().status)
    }
}

impl Subject {
    pub fn new(kind: SubjectKind, key: ObjectKey) -> Self {
        Self { kind, key }
    }
}

/// `Kind namespace/name`
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `listType` in the kinds' definitions, as the API server has them.
    #[test]
    fn lists_are_applied_as_the_api_server_merges_them() {
        let lists = |kind| SubjectKind::Of(kind).lists();
        for kind in [Kind::GatewayClass, Kind::Gateway, Kind::Namespace, Kind::Service] {
            assert_eq!(lists(kind), Lists::Merged, "{kind}");
        }
        assert_eq!(SubjectKind::XMesh.lists(), Lists::Merged);
        for kind in [
            Kind::HTTPRoute,
            Kind::GRPCRoute,
            Kind::TLSRoute,
            Kind::BackendTLSPolicy,
            Kind::TrafficPolicy,
            Kind::AuthorizationPolicy,
            Kind::ServiceEntry,
        ] {
            assert_eq!(lists(kind), Lists::Whole, "{kind}");
        }
    }
}
