//! Zero-downtime upgrades: this agent's part in taking over and handing over.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::pod;
use crate::config::Settings;
use crate::node::Node;
use crate::takeover::{self, Ears, Inherited, Listener, Successor};

/// What remains to be done once this agent serves.
pub(super) struct Upgrade {
    path: PathBuf,
    node: String,
    predecessor: Option<Successor>,
    pub(super) inherited: Arc<Inherited>,
    taken_over: Arc<AtomicBool>,
}

/// Whether this agent has a predecessor that continues to serve if this one stops now.
pub(super) struct Standby {
    has_predecessor: bool,
    taken_over: Arc<AtomicBool>,
}

impl Standby {
    pub(super) fn is_spare(&self) -> bool {
        self.has_predecessor && !self.taken_over.load(Ordering::SeqCst)
    }
}

/// What a successor gets, and how this agent releases it.
pub(super) struct Own {
    pub(super) node: Arc<Node>,
    /// The agent's own ports.
    pub(super) listeners: Vec<Listener>,
    /// Stops serving them.
    pub(super) admin: CancellationToken,
}

impl Upgrade {
    /// Requests the sockets of the running agent of this node. Without one, or if it cannot hand them over, this agent
    /// starts as the first.
    pub(super) async fn begin(settings: &Settings) -> anyhow::Result<Self> {
        let settings = settings.clone();
        let (done, begun) = oneshot::channel();
        // On a separate thread, which a terminating agent does not wait for.
        std::thread::Builder::new()
            .name("takeover".into())
            .spawn(move || _ = done.send(Self::ask(&settings)))
            .context("a thread that asks for the sockets of the agent that runs")?;
        begun.await.context("asking the agent that runs")
    }

    fn ask(settings: &Settings) -> Self {
        let node = settings.node.to_string();
        let path = takeover::socket_path(&settings.takeover.directory, &node);
        let predecessor = match Successor::ask(&path, &node) {
            Ok(predecessor) => predecessor,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot take over from the agent that runs");
                None
            }
        };
        let inherited = predecessor.as_ref().map(|it| it.inherited.clone()).unwrap_or_default();
        Self { path, node, predecessor, inherited, taken_over: Arc::default() }
    }

    pub(super) fn standby(&self) -> Standby {
        let has_predecessor = self.predecessor.is_some();
        Standby { has_predecessor, taken_over: self.taken_over.clone() }
    }

    /// Releases the predecessor once everything is `served`; ready when a successor serves and the last open connection
    /// of this agent has ended; in a pod never, because the DaemonSet ends it. `None`: that cannot be awaited.
    pub(super) async fn handed_over(self, mut served: mpsc::Receiver<()>, own: Own) -> Option<()> {
        let node = own.node.clone();
        served.recv().await?;
        self.taken_over.store(true, Ordering::SeqCst);
        self.complete(own).await.ok()?;
        tracing::info!("a successor serves now; draining open connections");
        node.ended().await;
        if pod::is_in_pod() {
            // The kubelet would restart a container that exits by itself, and it would take everything back.
            std::future::pending::<()>().await;
        }
        Some(())
    }

    /// On a separate thread; the receiver reports that a successor serves.
    fn complete(self, own: Own) -> oneshot::Receiver<()> {
        let (handed_over, receiver) = oneshot::channel();
        let waiting = move || {
            if self.hand_over(own) {
                _ = handed_over.send(());
            }
        };
        if let Err(error) = std::thread::Builder::new().name("takeover".into()).spawn(waiting) {
            tracing::warn!(%error, "no successor can take over: no thread to wait for one");
        }
        receiver
    }

    fn hand_over(self, own: Own) -> bool {
        // Before the predecessor stops, so that a third agent always finds one.
        let ears = Ears::open(&self.path);
        if let Some(predecessor) = self.predecessor {
            match predecessor.serving() {
                Ok(()) => tracing::info!("took over from the agent that ran before"),
                Err(error) => {
                    tracing::warn!(%error, "the previous agent may still accept connections");
                }
            }
        }
        let ears = match ears {
            Ok(ears) => ears,
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "no successor can take over; check [takeover] directory");
                return false;
            }
        };
        let pause = || {
            let (mut listeners, turn) = own.node.pause()?;
            for one in &own.listeners {
                let socket = one.socket.try_clone()?;
                listeners.push(Listener { owner: one.owner.clone(), port: one.port, socket });
            }
            Ok((listeners, turn))
        };
        let release = |turn| {
            own.admin.cancel();
            own.node.retire(turn);
        };
        ears.wait_for_successor(&self.node, pause, release);
        true
    }
}
