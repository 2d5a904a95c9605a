//! Watches the file with the roots while the agent runs: if the roots change, certificates come with other roots, so
//! all of them are reissued.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{IstioIssuer, files};
use crate::identity::watch::Watch;

/// The CA's replicas have learnt of the roots by then: they follow their source directly, and this file comes through
/// the kubelet.
const SETTLE: Duration = Duration::from_secs(5);
/// The jitter over which the agents of a cluster spread: a thousand of them must not renew everything at once.
const SPREAD: Duration = Duration::from_secs(120);

/// Certificates in the order of their bytes: the file's order means nothing.
type Roots = Vec<CertificateDer<'static>>;

impl IstioIssuer {
    /// Triggers the reissue of all certificates when the roots change, until cancelled. Spawn it once.
    pub async fn follow(&self, cancel: CancellationToken) {
        self.follow_with(SETTLE, SPREAD, cancel).await;
    }

    pub(in crate::identity) async fn follow_with(
        &self,
        settle: Duration,
        spread: Duration,
        cancel: CancellationToken,
    ) {
        let path = &self.settings.ca_root;
        let Some(directory) = path.parent() else { return };
        let mut watch = Watch::new(directory.to_owned());
        let mut known = self.roots().await;
        let following = async {
            loop {
                watch.changed().await;
                // A file that cannot be read says nothing about the roots.
                let Some(roots) = self.roots().await else { continue };
                if known.as_ref() == Some(&roots) {
                    continue;
                }
                let first = known.replace(roots).is_none();
                if !first {
                    let pause = settle + spread.mul_f64(fastrand::f64());
                    tracing::info!(
                        file = %path.display(), within = ?pause,
                        "the roots have changed; reissuing all certificates"
                    );
                    sleep(pause).await;
                    self.revisions.send_modify(|revision| *revision += 1);
                }
            }
        };
        cancel.run_until_cancelled(following).await;
    }

    async fn roots(&self) -> Option<Roots> {
        let text = files::read(&self.settings.ca_root).await.ok()?;
        let roots = CertificateDer::pem_slice_iter(&text).collect::<Result<Roots, _>>();
        let mut roots = roots.ok().filter(|roots| !roots.is_empty())?;
        roots.sort_by(|one, other| one.as_ref().cmp(other.as_ref()));
        roots.dedup();
        Some(roots)
    }
}
