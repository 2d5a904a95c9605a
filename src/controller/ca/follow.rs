//! Every replica watches the Secret, and signs with its last good content.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::runtime::watcher::{Config, Event, watcher};
use tokio_util::sync::CancellationToken;

use super::{Authorities, Current, SECRET, secret};
use crate::base::Seldom;
use crate::controller::Context;
use crate::source::kubernetes::Followed;

/// Follows until cancelled. A watch that breaks begins again, with pauses that grow.
pub(in crate::controller) async fn follow(
    context: Arc<Context>,
    authorities: Authorities,
    cancel: CancellationToken,
) {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    let named = Config::default().fields(&format!("metadata.name={SECRET}"));
    let mut events = Followed::new(move || watcher(secrets.clone(), named.clone()).boxed());
    let trouble = Seldom::new();
    let mut listed = false;
    while let Some(event) = cancel.run_until_cancelled(events.next()).await {
        match event {
            Ok(Event::Init) => listed = false,
            Ok(Event::InitApply(secret)) => {
                listed = true;
                authorities.take(&context, Some(&secret));
            }
            Ok(Event::InitDone) if listed => {}
            Ok(Event::Apply(secret)) => authorities.take(&context, Some(&secret)),
            Ok(Event::InitDone | Event::Delete(_)) => authorities.take(&context, None),
            Err(error) if trouble.is_due() => tracing::warn!(
                secret = SECRET, %error,
                "cannot watch the CA's Secret; the last CA keeps signing"
            ),
            Err(_) => {}
        }
    }
}

impl Authorities {
    /// Adopts the Secret's current content, if it is usable.
    fn take(&self, context: &Context, secret: Option<&Secret>) {
        let before = self.current();
        match secret {
            None if before.is_some() => tracing::error!(
                secret = SECRET,
                "the CA's Secret was deleted; the last CA keeps signing, and the leader writes it back"
            ),
            None => {
                tracing::info!(secret = SECRET, "there is no CA yet; the leader will create one")
            }
            Some(secret) => {
                let read =
                    secret::read(secret).and_then(|state| Current::new(state, SystemTime::now()));
                match read {
                    Ok(current) => self.accept(context, current),
                    Err(error) => tracing::error!(
                        secret = SECRET,
                        reason = error.to_string(),
                        "the CA's Secret is unusable; {}",
                        if before.is_some() {
                            "the previous CA keeps signing"
                        } else {
                            "no certificate can be signed until it is repaired"
                        }
                    ),
                }
            }
        }
        self.changed();
    }

    fn accept(&self, context: &Context, current: Current) {
        let (serial, _) = current.authority.description();
        let metrics = context.telemetry.controller();
        metrics.ca_end(current.authority.validity().1);
        tracing::info!(
            secret = SECRET,
            serial,
            trusted_roots = current.trusted.len(),
            rotation = current.state.phase(),
            "the CA is in force"
        );
        self.set(current);
    }
}
