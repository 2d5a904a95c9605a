//! stub
mod complaint;
pub use complaint::{Complaint, Origin, Severity};
pub struct TranslateSettings { pub cluster: crate::base::Str, pub trust_domain: crate::base::Str, pub cluster_domain: crate::base::Str, pub root_namespace: crate::base::Str }
pub struct Translation { pub mesh: crate::model::Mesh, pub complaints: Vec<Complaint> }
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct SourceError;
pub struct DirectorySource;
impl DirectorySource {
    pub fn new(_: std::path::PathBuf, _: TranslateSettings) -> Self { Self }
    pub async fn run(self, _publish: impl FnMut(Translation) + Send, _c: tokio_util::sync::CancellationToken) -> Result<(), SourceError> { Ok(()) }
}
pub fn check(_: &std::path::Path, _: &TranslateSettings) -> Result<Translation, SourceError> { Err(SourceError) }
