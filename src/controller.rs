//! `isthmus controller`: what a cluster needs once and not per node. It signs the agents' certificates, keeps the CA in
//! a Secret, and writes statuses. The data path never waits for it.
//!
//! Several replicas run. All of them sign, each with the CA that the Secret holds now; one of them, the holder of the
//! Lease, changes things: it makes and rotates the CA and writes statuses ([`lead`]). A replica that loses the Lease
//! stops changing things before another begins.
//!
//! Invariants: the CA's key leaves the Secret only into this process's memory; who cannot be authorized is given no
//! certificate, an API server that does not answer included; a CA that cannot be used changes nothing, the last good
//! one goes on signing.
//!
//! `app` builds it. It captures nothing and carries no traffic, and it changes no object of another controller.

mod cluster;
pub mod events;
mod lease;
pub mod status;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use cluster::connect;

use crate::base::Str;
use crate::config::{ControllerSettings, Settings};
use crate::source::TranslateSettings;
use crate::telemetry::Telemetry;
use lease::{Election, Leadership};

/// What statuses call this controller, and GatewayClasses that are its own.
pub const CONTROLLER_NAME: &str = "isthmus.io/controller";
/// Who owns the fields that it writes (server-side apply).
pub const FIELD_MANAGER: &str = "isthmus-controller";
/// The Lease in the controller's namespace; its holder leads.
const LEASE: &str = "isthmus-controller";

/// What all parts of the controller share.
#[derive(Clone)]
pub struct Context {
    pub client: kube::Client,
    pub settings: ControllerSettings,
    pub trust_domain: Str,
    pub cluster_domain: Str,
    /// This replica's name: its pod's.
    pub replica: Str,
    /// What statuses are made by: the same translation as the agents'.
    pub translate: TranslateSettings,
    pub telemetry: Telemetry,
}

/// One replica.
pub struct Controller {
    context: Arc<Context>,
    leadership: Leadership,
}

impl Controller {
    /// Connects nothing and starts nothing yet.
    pub fn new(
        client: kube::Client,
        settings: &Settings,
        translate: TranslateSettings,
        telemetry: Telemetry,
    ) -> Self {
        let context = Context {
            client,
            settings: settings.controller.clone(),
            trust_domain: settings.trust_domain.clone(),
            cluster_domain: settings.cluster_domain.clone(),
            replica: settings.node.clone(),
            translate,
            telemetry,
        };
        Self { context: Arc::new(context), leadership: Leadership::default() }
    }

    /// Whether this replica leads, for operators.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Runs until cancelled; then gives the Lease back, so that another replica need not wait for its end.
    pub async fn run(&self, cancel: CancellationToken) {
        let tasks = TaskTracker::new();
        let context = self.context.clone();
        let election = Election::new(&context, LEASE, self.leadership.clone());
        tasks.spawn(election.run(cancel.clone(), move |term| lead(context.clone(), term)));
        tasks.close();
        tasks.wait().await;
    }
}

/// What the leader alone does. Ends when `term` is cancelled, and promptly: another replica begins soon after.
/// Parts are joined, not spawned, so that nothing outlives the term.
async fn lead(context: Arc<Context>, term: CancellationToken) {
    status::run(&context, term).await;
}
