//! The tasks of one worker: connections, which it waits for before it ends, and what ends with it at the latest.

use std::sync::Arc;

use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::base::{Str, caught};

/// The tasks of one worker. A panic ends its task only.
pub(in crate::l7) struct Tasks {
    pub(in crate::l7) namespace: Str,
    /// Downstream connections, and what they turned into. The worker lives as long as these.
    connections: TaskTracker,
    /// Drivers of upstream connections, which end with the runtime at the latest.
    drivers: TaskTracker,
}

impl Tasks {
    pub(in crate::l7) fn new(namespace: Str) -> Arc<Self> {
        let (connections, drivers) = (TaskTracker::new(), TaskTracker::new());
        Arc::new(Self { namespace, connections, drivers })
    }

    /// Runs a task that the worker waits for before it ends.
    pub(in crate::l7) fn spawn(
        &self,
        what: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.connections.spawn(isolated(self.namespace.clone(), what, task));
    }

    /// Runs a task that ends with the worker at the latest.
    pub(in crate::l7) fn drive(
        &self,
        what: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.drivers.spawn(isolated(self.namespace.clone(), what, task));
    }

    /// The worker waits for what holds this as well.
    pub(in crate::l7) fn token(&self) -> TaskTrackerToken {
        self.connections.token()
    }

    /// Takes no connection any more, so that [`ended`](Self::ended) comes to its end.
    pub(in crate::l7) fn close(&self) {
        self.connections.close();
    }

    /// Waits for the last connection.
    pub(in crate::l7) async fn ended(&self) {
        self.connections.wait().await;
    }
}

/// Turns a panic into a line in the log.
async fn isolated(namespace: Str, what: &'static str, task: impl Future<Output = ()>) {
    if let Err(text) = caught(task).await {
        tracing::error!(%namespace, "a task of the waypoint worker ({what}) panicked and was ended: {text}");
    }
}

/// Spawns the streams of a server's HTTP/2 connection.
#[derive(Clone)]
pub(in crate::l7) struct Executor(pub(in crate::l7) Arc<Tasks>);

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn("HTTP/2 stream", future);
    }
}
