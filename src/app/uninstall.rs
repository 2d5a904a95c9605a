//! Whether an agent that is told to end ends for good: its DaemonSet is gone.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::{Api, Error};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::upgrade::Standby;
use crate::config::{Settings, SourceKind};
use crate::node::Node;
use crate::source;

/// The namespace of the agent's pod, given by its manifest.
const POD_NAMESPACE: &str = "POD_NAMESPACE";
/// Where the agent is installed when its manifest does not tell.
const INSTALL_NAMESPACE: &str = "isthmus-system";
/// The DaemonSet that owns the agent's pod.
const DAEMON_SET: &str = "isthmus";
/// An API server that does not answer must not cost the time in which connections drain.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long an agent that was told to end serves on when no successor serves yet: with [`PATIENCE`] and the drain time
/// below the 30 s that the kubelet gives it. Of two upgrades in quick succession, the DaemonSet ends the agent that took
/// over first before it makes the one that is to come.
const SUCCESSOR: Duration = Duration::from_secs(15);

/// The namespace that the agent runs in.
pub(super) fn namespace() -> String {
    let told = std::env::var(POD_NAMESPACE).ok().filter(|name| !name.is_empty());
    told.unwrap_or_else(|| INSTALL_NAMESPACE.to_owned())
}

/// Whether a kubelet runs this agent.
pub(super) fn is_in_pod() -> bool {
    std::env::var_os(POD_NAMESPACE).is_some()
}

/// What an agent that is told to end does first: why nobody will serve this node after it, or `None` when somebody will or
/// nobody can tell. `superseded` is cancelled once a successor serves. One that is about to is waited for, since the
/// kubelet may end this agent while its successor still starts.
pub(super) async fn before_the_end(
    settings: &Settings,
    superseded: &CancellationToken,
    standby: &Standby,
) -> Option<String> {
    if superseded.is_cancelled()
        || !settings.cni.enabled
        || settings.source.kind != SourceKind::Kubernetes
    {
        return None;
    }
    // Outside of a pod nobody owns the agent.
    if !is_in_pod() {
        return None;
    }
    match timeout(PATIENCE, ask(settings)).await {
        Ok(Some(reason)) => return Some(reason),
        Ok(None) => {}
        Err(_) => tracing::warn!(
            "the API server does not say whether this is an uninstall; everything stays in place"
        ),
    }
    if standby.is_spare() {
        tracing::info!("the agent that ran before goes on serving");
        return None;
    }
    tracing::info!(patience = ?SUCCESSOR, "serving on until a successor does");
    _ = timeout(SUCCESSOR, superseded.cancelled()).await;
    None
}

/// Ends the service of this node's workloads. `for_good`: why nobody will serve them after; then the node is left as it was
/// before the mesh, the plugin first, so that new pods start without the agent.
pub(super) async fn leave(settings: &Settings, node: &Arc<Node>, for_good: Option<String>) {
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

async fn ask(settings: &Settings) -> Option<String> {
    let namespace = namespace();
    let client = match source::client(settings.source.kubeconfig.as_deref()).await {
        Ok(client) => client,
        Err(error) => {
            tracing::warn!(%error, "cannot ask whether this is an uninstall; everything stays in place");
            return None;
        }
    };
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), &namespace);
    let set = format!("DaemonSet {namespace}/{DAEMON_SET}");
    if let Some(reason) = judge(&set, &sets.get_metadata(DAEMON_SET).await) {
        return Some(reason);
    }
    let namespaces: Api<Namespace> = Api::all(client);
    let asked = namespaces.get_metadata(&namespace).await;
    judge(&format!("namespace {namespace}"), &asked)
}

/// Whoever removes everything removes the agent's rights too, perhaps first.
fn judge<K>(what: &str, asked: &Result<PartialObjectMeta<K>, Error>) -> Option<String> {
    match asked {
        Ok(object) if object.metadata.deletion_timestamp.is_some() => {
            Some(format!("{what} is being deleted"))
        }
        Ok(_) => None,
        Err(Error::Api(status)) if matches!(status.code, 401 | 403 | 404) => {
            Some(format!("{what}: {}", status.message))
        }
        Err(error) => {
            tracing::warn!(%error, "the API server does not say whether {what} is gone; everything stays in place");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
    use kube::core::Status;

    use super::*;

    fn found(deleted: bool) -> Result<PartialObjectMeta<DaemonSet>, Error> {
        let deletion_timestamp = deleted.then(|| Time(Default::default()));
        let metadata = ObjectMeta { deletion_timestamp, ..ObjectMeta::default() };
        Ok(PartialObjectMeta { metadata, ..PartialObjectMeta::default() })
    }

    fn refused(code: u16) -> Result<PartialObjectMeta<DaemonSet>, Error> {
        Err(Error::Api(Box::new(Status::failure("no", "Reason").with_code(code))))
    }

    #[test]
    fn only_who_is_gone_for_good_is_uninstalled() {
        for (case, asked, uninstalled) in [
            ("it stands", found(false), false),
            ("it is being deleted", found(true), true),
            ("it is gone", refused(404), true),
            ("the account is gone", refused(401), true),
            ("its rights are gone", refused(403), true),
            ("the server has trouble", refused(500), false),
            ("the server is busy", refused(429), false),
        ] {
            assert_eq!(judge("DaemonSet x", &asked).is_some(), uninstalled, "{case}");
        }
    }
}
