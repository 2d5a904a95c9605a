//! Removes the mesh from this node, so that every pod keeps a working network. The end of an agent does not do that.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt;

use super::capture::remove_in;
use super::{CONCURRENT, Node};
use crate::base::Str;
use crate::redirect::{self, Place};
use crate::sock::NetworkNamespace;
use crate::workloads::{Refusal, Sought};

impl Node {
    /// Instead of [`Node::stop`]: removes all rules, of captured workloads, of others in which an earlier agent may have left
    /// some, and of the node. New connections are uncaptured at once; open ones have the drain time.
    pub async fn release(self: &Arc<Self>) {
        // No workload joins after this.
        self.turns.end_with(self.turns.take().await);
        let captured: Vec<Str> = self.captured.lock().keys().cloned().collect();
        for uid in captured {
            self.leave(&uid).await;
        }
        self.drains.wait().await;
        let world = self.layer4.world.snapshot();
        let (sites, refused) = self.sites(&world);
        let refused = refused.into_values().filter(|(why, _)| *why != Refusal::Host);
        let claimed = sites.into_values().chain(refused.map(|(_, site)| site));
        let mut paths: BTreeSet<Str> = claimed.map(|site| site.network_namespace).collect();
        // Rules of an earlier agent in pods that this one did not find. All of the node is freed, so an address will do.
        let lost: Vec<Sought> = self.missing(&world).into_iter().map(|(_, it)| it).collect();
        let registry = self.registry.clone();
        let resembling = tokio::task::spawn_blocking(move || registry.resembling(&lost)).await;
        paths.extend(resembling.unwrap_or_default());
        let released = futures_util::stream::iter(paths).map(|path| async move {
            let outcome = match NetworkNamespace::open(&path) {
                Ok(namespace) => remove_in(&namespace).await,
                // No process is left that could be harmed.
                Err(_) => Ok(()),
            };
            if let Err(error) = outcome {
                tracing::error!(
                    network_namespace = %path, error = format!("{error:#}"),
                    "its rules are left, and its connections will fail; remove the pod, or `nft delete table inet isthmus` in its namespace"
                );
            }
        });
        released.buffer_unordered(CONCURRENT).collect::<()>().await;
        match tokio::task::spawn_blocking(|| redirect::remove(Place::Node)).await {
            Ok(Ok(())) => tracing::info!("the rules of this node and its pods are removed"),
            Ok(Err(error)) => tracing::error!(%error, "the node's rules for probes are left"),
            Err(error) => tracing::error!(%error, "the node's rules for probes were not removed"),
        }
    }
}
