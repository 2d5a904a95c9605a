//! Whether a terminating agent stops for good: the mesh was uninstalled.

mod judge;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::pod::is_in_pod;
use super::upgrade::Standby;
use crate::config::{Settings, SourceKind};
use crate::node::Node;
pub(super) use watch::Removal;

/// An API server that does not answer must not cost the time in which connections drain.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long an agent that was told to end serves on when no successor serves yet: with [`PATIENCE`] and the drain time
/// below the 30 s that the kubelet gives it. Of two upgrades in quick succession, the DaemonSet ends the agent that took
/// over first before it makes the one that is to come.
const SUCCESSOR: Duration = Duration::from_secs(15);

/// Whether an agent with these settings may have been installed by a DaemonSet: an agent outside a pod has no owner.
fn is_installed(settings: &Settings) -> bool {
    settings.cni.enabled && settings.source.kind == SourceKind::Kubernetes && is_in_pod()
}

/// Watches the DaemonSet that owns this agent, and its namespace, until `cancel`.
pub(super) fn follow(
    settings: &Settings,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
) -> Removal {
    let removal = Removal::new(settings);
    if is_installed(settings) {
        tasks.spawn(removal.clone().follow(cancel.clone()));
    }
    removal
}

/// The first step of an agent that is told to stop: why nobody will serve this node after it, or `None` when somebody will or
/// nobody can tell. `superseded` is cancelled once a successor serves and this agent's own ports are closed. One that is about to is waited for, since the
/// kubelet may end this agent while its successor still starts; so is the word that the mesh is removed, since pods may be
/// deleted before their DaemonSet is.
pub(super) async fn before_the_end(
    removal: &Removal,
    superseded: &CancellationToken,
    standby: &Standby,
) -> Option<&'static str> {
    if superseded.is_cancelled() || !is_installed(&removal.settings) {
        return None;
    }
    if let Some(reason) = removal.reason() {
        return Some(reason);
    }
    match timeout(PATIENCE, removal.ask()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(
            %error,
            "the API server does not say whether this is a removal; unless that is heard, everything stays in place"
        ),
        Err(_) => tracing::warn!(
            "the API server does not answer whether this is a removal; unless that is heard, everything stays in place"
        ),
    }
    if let Some(reason) = removal.reason() {
        return Some(reason);
    }
    if standby.is_spare() {
        tracing::info!("the agent that ran before goes on serving");
        return None;
    }
    tracing::info!(patience = ?SUCCESSOR, "serving on until a successor does");
    let waiting = async {
        tokio::select! {
            reason = removal.seen() => Some(reason),
            () = superseded.cancelled() => None,
        }
    };
    timeout(SUCCESSOR, waiting).await.ok().flatten()
}

/// Ends the service of this node's workloads. `for_good`: why nobody will serve them after; then the node is left as it was
/// before the mesh, the plugin first, so that new pods start without the agent.
pub(super) async fn leave(settings: &Settings, node: &Arc<Node>, for_good: Option<&str>) {
    let Some(reason) = for_good else { return node.stop().await };
    tracing::info!(reason, "the mesh is removed from this node");
    let installer = super::cni::installer(settings);
    match tokio::task::spawn_blocking(move || installer.uninstall()).await {
        Ok(Ok(())) => tracing::info!("the CNI plugin is removed"),
        Ok(Err(error)) => {
            tracing::error!(%error, "the CNI plugin is left: no pod will start; run `isthmus cni uninstall` on the node");
        }
        Err(error) => tracing::error!(%error, "the CNI plugin was not removed"),
    }
    node.release().await;
}
