//! Where the mesh's state comes from: Kubernetes objects, translated to the model.
//!
//! An object passes through four forms: text or API response ([`manifest`]) -> typed object ([`objects`]) -> the set of
//! all objects in force ([`Objects`]) -> [`translate`], a pure function to [`crate::model::Mesh`]. Every source shares
//! the last three steps; [`DirectorySource`] adds the files, [`KubernetesSource`] the API server.
//!
//! Invariants: an invalid object is rejected alone, with its field and the reason, and its last good version stays in
//! force; a security policy without a last good version denies what it may apply to. Unknown enum values, fields and
//! kinds never stop a source.
//!
//! `app` runs a source and publishes each [`Translation`] as a world; `cli` calls [`check`]. This room makes no
//! decisions on traffic and writes nothing: neither files nor statuses.

mod asked;
mod complaint;
mod directory;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod kubernetes;
mod last_read;
mod manifest;
pub mod objects;
mod store;
mod supposed;
mod translate;

#[cfg(test)]
pub(crate) mod tests;

pub use asked::{Asked, NoObjects};
pub use complaint::{
    Complaint, Condition, ConditionReason, ConditionType, Origin, Severity, Topic,
};
pub use directory::{DirectorySource, check, read};
pub use kubernetes::{KubernetesSource, client};
pub use last_read::LastRead;
pub use manifest::{Document, Refusal, made_of, parse};
pub use store::{File, Objects};
pub use supposed::Supposed;
#[cfg(test)]
pub(crate) use translate::compiled_virtual_service;
pub use translate::{
    LAYER4_ALONE, Resolved, TranslateSettings, Translation, Translator, WAYPOINT_CLASS,
    WaypointBindings, is_of_other_revision, other_revision_of_gateway, translate,
};

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

/// A feed of the mesh's state.
pub trait Source {
    /// Publishes the full state once it is known, then a new full state after every change, until `cancel` is
    /// cancelled. States are complete: the receiver replaces the one before.
    ///
    /// # Errors
    /// Only before the first state is published: there is nothing to serve from then. Later failures are logged, and
    /// the last state stays in force.
    fn run(
        self,
        publish: impl FnMut(Translation) + Send,
        cancel: CancellationToken,
    ) -> impl Future<Output = Result<(), SourceError>> + Send;
}

/// Why a source cannot give a state.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(
        "cannot read the manifest directory {}: {cause}; check that `directory` in [source] names a directory \
         that this process may read", path.display()
    )]
    Directory { path: PathBuf, cause: std::io::Error },
    #[error(
        "cannot tell how to reach the API server: {cause}; set `kubeconfig` in [source], or run in a pod with a service \
         account"
    )]
    Cluster { cause: String },
    #[error("reading the manifests was broken off: {0}")]
    Aborted(#[from] tokio::task::JoinError),
}
