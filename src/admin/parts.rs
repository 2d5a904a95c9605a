//! What the pages are made from: the parts of the agent, or of the controller, that `app` gives to this room.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{ConnectionFilter, Readiness, Scrapes};
use crate::telemetry::{Logs, Telemetry};

/// The state of the agent as JSON, in the shape of ztunnel's `/config_dump` where there is the same thing.
pub trait Dump: Send + Sync + 'static {
    fn dump(&self) -> serde_json::Value;
    /// The short form, for `isthmus status`.
    fn status(&self) -> serde_json::Value;
    /// The open connections that are asked for: `connections`, `total`, and how many were `leftOut`.
    fn connections(&self, filter: &ConnectionFilter) -> serde_json::Value;
    /// How many workloads wait to be captured, for whoever asks what keeps the agent from being ready.
    fn pending(&self) -> usize;
    /// Called before each scrape, for metrics that are read rather than counted.
    fn refresh(&self);
}

/// What the pages are made from.
pub struct Admin {
    pub telemetry: Telemetry,
    pub logs: Arc<Logs>,
    pub readiness: Readiness,
    /// The runtime of layer 4: an agent whose data path does not answer is not ready.
    pub layer4: Handle,
    pub dump: Arc<dyn Dump>,
    /// Cancelled by `POST /quitquitquit`.
    pub quit: CancellationToken,
    /// Who may scrape at the same time: by default as many as are good for the agent.
    pub scrapes: Scrapes,
}
