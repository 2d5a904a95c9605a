//! What an operator sees of a running agent: administration on a socket that only root may open, metrics on 15020,
//! readiness on 15021.
//!
//! Ports tell how much and how well, never what: every process of the node, and every pod on its network, can reach them,
//! loopback too. Whatever tells secrets or changes something is asked over the socket ([`door`]); what is changed there is
//! logged with the process that asked, and no log level silences that.
//!
//! Runs on the control runtime, so that a scrape or a dump never holds up a connection. It knows nothing of the
//! other rooms: `app` gives it a [`Dump`] to ask and a [`Readiness`] to read. It changes nothing but
//! the log level and whether allocations are recorded, and ends the agent when asked to (`POST /quitquitquit`).

mod body;
mod connections;
mod door;
mod hurried;
mod pages;
mod probe;
mod profile;
mod readiness;
mod ready_file;
mod serve;

pub use body::{MAX_SCRAPES, Scrapes};
pub use connections::{ConnectionFilter, MAX_CONNECTIONS_SHOWN};
pub use door::{connect, may_administer, socket_name, socket_names};
pub use readiness::{Readiness, Task};
pub use ready_file::keep_ready_file;
pub use serve::{Addresses, AdminError, Servers};

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

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
