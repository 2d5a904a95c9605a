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

mod ca;
mod cluster;
pub mod events;
mod lease;
mod sign;
pub mod status;

#[cfg(any(test, feature = "fuzzing"))]
pub use sign::fuzz;

use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::base::Str;
use crate::config::{ControllerSettings, Settings};
use crate::source::TranslateSettings;
use crate::telemetry::Telemetry;
use ca::Authorities;
use lease::{Election, Leadership};
use sign::Server;

/// What statuses call this controller, and GatewayClasses that are its own.
pub const CONTROLLER_NAME: &str = "isthmus.io/controller";
/// Who owns the fields that it writes (server-side apply).
pub const FIELD_MANAGER: &str = "isthmus-controller";
/// Where everything is installed, for a replica that runs outside of the cluster.
const NAMESPACE: &str = "isthmus-system";
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
    authorities: Authorities,
    leadership: Leadership,
    server: Mutex<Option<Server>>,
}

impl Controller {
    /// Listens, and serves nothing yet.
    ///
    /// # Errors
    /// The address to sign at is taken.
    pub async fn bind(
        client: kube::Client,
        settings: &Settings,
        translate: TranslateSettings,
        telemetry: Telemetry,
    ) -> anyhow::Result<Self> {
        let mut own = settings.controller.clone();
        if own.namespace.is_empty() {
            let in_cluster = settings.source.kubeconfig.is_none();
            own.namespace =
                if in_cluster { client.default_namespace().into() } else { NAMESPACE.into() };
        }
        let context = Arc::new(Context {
            client,
            settings: own,
            trust_domain: settings.trust_domain.clone(),
            cluster_domain: settings.cluster_domain.clone(),
            replica: settings.node.clone(),
            translate,
            telemetry,
        });
        let authorities = Authorities::default();
        let server =
            Server::bind(context.clone(), authorities.clone()).await.with_context(|| {
                format!("listen on {} (controller.address)", context.settings.address)
            })?;
        let leadership = Leadership::default();
        Ok(Self { context, authorities, leadership, server: Mutex::new(Some(server)) })
    }

    /// The CA in force, for operators; `null` without one.
    pub fn ca_status(&self) -> serde_json::Value {
        self.authorities.current().map_or(serde_json::Value::Null, |current| current.status())
    }

    /// Whether this replica leads, for operators.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Runs until cancelled; then gives the Lease back, so that another replica need not wait for its end. `ready` is
    /// told whether certificates can be signed. Call it once.
    ///
    /// # Errors
    /// A part of it panicked; the others have ended then.
    pub async fn run(
        &self,
        ready: impl Fn(bool) + Send + Sync + 'static,
        cancel: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        let (context, authorities) = (self.context.clone(), self.authorities.clone());
        tasks.spawn(ca::follow(context.clone(), authorities.clone(), cancel.clone()));
        if let Some(server) = self.server.lock().take() {
            tasks.spawn(server.run(ready, cancel.clone()));
        }
        let election = Election::new(&context, LEASE, self.leadership.clone());
        let work = move |term| lead(context.clone(), authorities.clone(), term);
        tasks.spawn(election.run(cancel.clone(), work));
        let mut ended = Ok(());
        while let Some(task) = tasks.join_next().await {
            if let Err(error) = task {
                // A replica that signs or leads no more must not go on as if it did.
                cancel.cancel();
                ended = Err(error).context("a part of the controller broke off");
            }
        }
        ended
    }
}

/// What the leader alone does. Ends when `term` is cancelled, and promptly: another replica begins soon after.
/// Parts are joined, not spawned, so that nothing outlives the term.
async fn lead(context: Arc<Context>, authorities: Authorities, term: CancellationToken) {
    tokio::join!(ca::keep(context.clone(), authorities, term.clone()), status::run(&context, term));
}
