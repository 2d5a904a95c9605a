//! The end of the mesh on this node, as opposed to the end of an agent: every pod keeps a working network.

use std::sync::Arc;

use futures_util::StreamExt;

use super::capture::remove_in;
use super::{CONCURRENT, Node};
use crate::redirect::{self, Place};
use crate::sock::NetworkNamespace;

impl Node {
    /// Takes all rules away, of captured workloads and of others in which an earlier agent may have left some, and those
    /// of the node. Call it after [`Node::stop`]: open connections end with the rules, new ones go uncaptured.
    pub async fn release(self: &Arc<Self>) {
        let _turn = self.turn.clone().lock_owned().await;
        let sites = self.sites(&self.layer4.world.snapshot());
        let released = futures_util::stream::iter(sites).map(|(uid, site)| async move {
            let outcome = match NetworkNamespace::open(&site.network_namespace) {
                Ok(namespace) => remove_in(&namespace).await,
                // Nobody is left to be harmed.
                Err(_) => Ok(()),
            };
            if let Err(error) = outcome {
                tracing::error!(
                    workload = %uid, error = format!("{error:#}"),
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
