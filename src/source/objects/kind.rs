//! Properties of kinds, from their rows.

use std::fmt;

use super::row::{CarriedOut, Guards, Status};
use super::{DEFAULT_NAMESPACE, Kind};
use crate::base::ObjectKey;

/// The API group of Gateway API's experiments, of which we make one and read none.
const EXPERIMENTS: &str = "gateway.networking.x-k8s.io";

/// What an `apiVersion` and `kind` mean to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognised {
    Kind(Kind),
    /// A kind of ours in a version that we do not read.
    OtherVersion(Kind),
    /// A kind of Gateway API or Istio that would change the mesh's behaviour, if it were supported.
    Unsupported,
    /// None of ours: Deployments, ConfigMaps, ...
    Foreign,
}

impl Kind {
    /// Looks a kind up by the texts of a manifest.
    pub fn recognise(api_version: &str, kind: &str) -> Recognised {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let row = Kind::all().find(|row| row.group() == group && row.name() == kind);
        match row {
            Some(row) if row.versions().contains(&version) => Recognised::Kind(row),
            Some(row) => Recognised::OtherVersion(row),
            None if is_of_ours(group) => Recognised::Unsupported,
            None => Recognised::Foreign,
        }
    }

    /// The kind of this name in whatever group and version.
    pub fn named(name: &str) -> Option<Kind> {
        Kind::all().find(|kind| kind.name() == name)
    }

    /// The translation reads it. A pod names its account itself, and routes of the mesh need no grants (GEP-1294).
    pub fn is_translated(self) -> bool {
        !matches!(self.row().carried_out, CarriedOut::Unread)
    }

    /// Without one of these something is let past that should be denied.
    pub fn is_security(self) -> bool {
        matches!(self.row().guards, Guards::Denies(_))
    }

    /// Without one of these something is let past that should be denied, limited or go through a waypoint, or sent in the clear
    /// that should be encrypted.
    pub fn restricts(self) -> bool {
        self.row().guards != Guards::Nothing
    }

    /// Is watched only to say that it is not carried out; what it would have encrypted is refused.
    pub fn is_unserved(self) -> bool {
        matches!(self.row().carried_out, CarriedOut::No { .. })
    }

    /// For a kind that is not carried out: the effect instead, and what to do.
    pub fn instead(self) -> Option<&'static str> {
        match self.row().carried_out {
            CarriedOut::No { instead, .. } => Some(instead),
            CarriedOut::Yes | CarriedOut::Unread => None,
        }
    }

    /// A route that is carried out.
    pub fn is_route(self) -> bool {
        self.row().status == Status::Parents && !self.is_unserved()
    }

    /// Lives in a namespace.
    pub fn is_namespaced(self) -> bool {
        self.row().namespaced
    }

    /// Every cluster serves it; the others come and go with their CustomResourceDefinitions.
    pub fn is_built_in(self) -> bool {
        matches!(self.group(), "" | "discovery.k8s.io")
    }

    /// The API group; empty for the core.
    pub fn group(self) -> &'static str {
        self.row().group
    }

    /// The versions that can be read, the best one first.
    pub fn versions(self) -> &'static [&'static str] {
        self.row().versions
    }

    /// The name of the resource.
    pub fn plural(self) -> &'static str {
        self.row().plural
    }
}

/// API groups whose other kinds get a warning rather than a note.
fn is_of_ours(group: &str) -> bool {
    let has = |kind: Kind| !kind.is_built_in() && kind.group() == group;
    group == EXPERIMENTS || Kind::all().any(has)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The key by what the object's metadata say, with the default namespace filled in.
pub fn key_of(kind: Kind, namespace: Option<&str>, name: Option<&str>) -> ObjectKey {
    let name = name.unwrap_or_default();
    if !kind.is_namespaced() {
        return ObjectKey::new("", name);
    }
    let namespace = namespace.filter(|text| !text.is_empty());
    ObjectKey::new(namespace.unwrap_or(DEFAULT_NAMESPACE), name)
}
