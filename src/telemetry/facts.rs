//! Workloads as expressions see them.

use super::Peer;
use crate::expression::{PeerField, Value};

/// Of every tunnel of the mesh, as Envoy writes it.
pub(super) const TLS_VERSION: &str = "TLSv1.3";

impl Peer {
    /// `None` if it is not known.
    pub(super) fn fact(&self, field: PeerField) -> Option<Value<'_>> {
        let text = match field {
            PeerField::Name => &self.name,
            PeerField::Namespace => &self.namespace,
            PeerField::Workload => &self.workload,
            PeerField::Cluster => &self.cluster,
            PeerField::CanonicalService => &self.canonical_service,
            PeerField::CanonicalRevision => &self.canonical_revision,
            PeerField::App => &self.app,
            PeerField::Version => &self.version,
            PeerField::Identity => &self.principal,
        };
        (!text.is_empty()).then(|| Value::text(text))
    }
}
