//! The certificate of the controller's own server: signed by the current CA, for the names of its Service.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::controller::Context;
use crate::controller::ca::{Authorities, CaError};
use crate::identity::{AuthorityError, certified_key};

/// The Service that agents dial.
const SERVICE: &str = "isthmus-controller";
/// Renewed at half of it, and with each change of the CA.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// The backoff after a failure.
const PAUSE: Duration = Duration::from_secs(5);

/// The certificate in use; before there is a CA there is none, and handshakes fail.
#[derive(Clone, Debug, Default)]
pub(super) struct Serving(Arc<ArcSwapOption<CertifiedKey>>);

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

impl Serving {
    pub(super) fn is_ready(&self) -> bool {
        self.0.load().is_some()
    }

    /// Keeps the certificate current until cancelled.
    pub(super) async fn keep(
        self,
        context: Arc<Context>,
        authorities: Authorities,
        changed: impl Fn(bool),
        cancel: CancellationToken,
    ) {
        let names = names(&context.settings.namespace, &context.cluster_domain);
        let lifetime = LIFETIME.min(context.settings.max_lifetime);
        let mut changes = authorities.changes();
        let renewals = async {
            loop {
                changes.mark_unchanged();
                let pause = match renew(&authorities, &names, lifetime) {
                    Ok(certificate) => {
                        self.0.store(certificate.map(Arc::new));
                        lifetime / 2
                    }
                    Err(error) => {
                        let why = error.to_string();
                        tracing::error!(why, "cannot renew the controller's own certificate");
                        PAUSE
                    }
                };
                changed(self.is_ready());
                tokio::select! {
                    moved = changes.changed() => if moved.is_err() { return },
                    () = sleep(pause) => {}
                }
            }
        };
        cancel.run_until_cancelled(renewals).await;
    }
}

/// `None` while there is no CA.
fn renew(
    authorities: &Authorities,
    names: &[String],
    lifetime: Duration,
) -> Result<Option<CertifiedKey>, CaError> {
    let Some(current) = authorities.current() else { return Ok(None) };
    let signed = current.authority.certify_server(names, lifetime, SystemTime::now());
    let (issued, key) = signed?;
    let certified = certified_key(issued.chain, key);
    certified.map(Some).map_err(|error| AuthorityError::Refused(error.to_string()).into())
}

/// Every name that the Service has in the cluster.
fn names(namespace: &str, cluster_domain: &str) -> [String; 4] {
    let base = format!("{SERVICE}.{namespace}");
    let full = format!("{base}.svc.{cluster_domain}");
    [SERVICE.to_owned(), base.clone(), format!("{base}.svc"), full]
}
