//! The inputs of the pages: the parts of the agent, or of the controller, that `app` passes to this room.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{ConnectionFilter, Readiness, Scrapes};
use crate::observe::Observe;
use crate::telemetry::{Logs, Telemetry};

/// The state of the agent as JSON, in the shape of ztunnel's `/config_dump` where there is the same thing.
pub trait Dump: Send + Sync + 'static {
    fn dump(&self) -> serde_json::Value;
    /// The short form, for `isthmus status`.
    fn status(&self) -> serde_json::Value;
    /// The requested open connections: `connections`, `total`, and the number of rows that were `leftOut`.
    fn connections(&self, filter: &ConnectionFilter) -> serde_json::Value;
    /// Answers `isthmus explain`, given the body of its request. May block for a moment.
    ///
    /// # Errors
    /// What is wrong with the question.
    fn explain(&self, _question: &[u8]) -> Result<serde_json::Value, String> {
        Err("only an agent explains; ask that of a node".to_owned())
    }
    /// Answers `isthmus preview`, given the body of its request. May take long.
    ///
    /// # Errors
    /// What is wrong with the change.
    fn preview(&self, _change: &[u8]) -> Result<serde_json::Value, String> {
        Err("only an agent knows what it has seen; ask that of a node".to_owned())
    }
    /// What is wrong with the objects, for `isthmus analyze`; or why nobody can tell. May take long.
    fn analysis(&self) -> Result<serde_json::Value, String> {
        Err("only agents know the objects".to_owned())
    }
    /// How many workloads wait to be captured, for the readiness page.
    fn pending(&self) -> usize;
    /// Called before each scrape, for metrics that are read rather than counted.
    fn refresh(&self);
}

/// The inputs of the pages.
pub struct Admin {
    pub telemetry: Telemetry,
    pub logs: Arc<Logs>,
    pub readiness: Readiness,
    /// The runtimes of layer 4: if the threads of one do not respond, the agent is not ready.
    pub layer4: Vec<Handle>,
    pub dump: Arc<dyn Dump>,
    /// The memory of flows; a controller has none.
    pub observe: Option<Arc<Observe>>,
    /// Cancelled by `POST /quitquitquit`.
    pub quit: CancellationToken,
    /// Limits concurrent scrapes; the default suits an agent.
    pub scrapes: Scrapes,
}
