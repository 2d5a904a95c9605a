//! The agent's part in the node's container network.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::pod;
use crate::admin::{Readiness, Task};
use crate::cni::{self, Entry, Installer};
use crate::config::Settings;
use crate::node::Node;
use crate::telemetry::CniMetrics;

/// This program, even if its file was replaced since.
const PROGRAM: &str = "/proc/self/exe";
/// Where nothing may wait for the agent: pods that the node itself needs to recover.
const SYSTEM_NAMESPACE: &str = "kube-system";

/// How to install this program as a plugin.
pub(super) fn installer(settings: &Settings) -> Installer {
    let always = [SYSTEM_NAMESPACE.to_owned(), pod::namespace()];
    let more = settings.cni.exclude_namespaces.iter().map(ToString::to_string);
    let mut exclude_namespaces: Vec<String> = always.into_iter().chain(more).collect();
    exclude_namespaces.sort();
    exclude_namespaces.dedup();
    Installer {
        conf_directory: settings.cni.conf_directory.clone(),
        bin_directory: settings.cni.bin_directory.clone(),
        program: PathBuf::from(PROGRAM),
        entry: Entry { socket: settings.cni.socket.clone(), exclude_namespaces },
    }
}

/// The plugin's part of a running agent.
pub(super) struct Cni {
    settled: CancellationToken,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Cni {
    /// Answers the plugin once the node has settled for the first time, and installs it then: a plugin without an
    /// answering agent would keep pods from starting. Ends with `cancel`.
    pub(super) fn start(
        settings: &Settings,
        node: &Arc<Node>,
        readiness: &Readiness,
        metrics: CniMetrics,
        cancel: CancellationToken,
    ) -> Self {
        let it = Self { settled: CancellationToken::new(), cancel, tasks: TaskTracker::new() };
        if settings.cni.enabled {
            let (settled, cancel) = (it.settled.clone(), it.cancel.clone());
            let (installer, socket) = (installer(settings), settings.cni.socket.clone());
            let installed = readiness.register("cni");
            let node = node.clone();
            it.tasks.spawn(async move {
                if cancel.run_until_cancelled(settled.cancelled()).await.is_some() {
                    run(installer, &socket, node, installed, metrics, cancel).await;
                }
            });
        }
        it
    }

    /// Called after each round of the node; the first one matters.
    pub(super) fn settled(&self) -> impl Fn() + Send + 'static {
        let settled = self.settled.clone();
        move || settled.cancel()
    }

    /// Stops answering and installing. An installed plugin stays.
    pub(super) async fn stop(self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn run(
    installer: Installer,
    socket: &Path,
    node: Arc<Node>,
    installed: Task,
    metrics: CniMetrics,
    cancel: CancellationToken,
) {
    let serving = async {
        if let Err(error) = cni::serve(socket, Arc::new(node), metrics, cancel.clone()).await {
            tracing::error!(
                socket = %socket.display(), %error,
                "the CNI plugin cannot reach this agent; check [cni] socket in the settings"
            );
        }
    };
    let following = cni::follow(installer, |is| installed.set(is), cancel.clone());
    tokio::join!(serving, following);
}
