//! `isthmus controller`: the tasks that a cluster needs once and not per node. It signs the agents' certificates, keeps
//! the CA in a Secret, writes statuses, and passes tokens of shared rate limits from agent to agent. The data path never waits for it.
//!
//! Several replicas run. All of them sign, each with the CA that is in the Secret now. One of them, the holder of the
//! Lease, changes things: it creates and rotates the CA and writes statuses ([`lead`]). A replica that loses the Lease
//! stops changing things before another begins.
//!
//! Invariants: the CA's key leaves the Secret only into this process's memory; an unauthorized caller gets no
//! certificate, and neither does anyone while the API server does not answer; an unusable CA changes nothing, and the
//! last good one keeps signing.
//!
//! `app` builds it. It captures nothing, carries no traffic, and changes no object of another controller.

mod ca;
mod cluster;
pub mod events;
mod exchange;
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
use crate::quota::broker::Census;
use crate::source::TranslateSettings;
use crate::telemetry::Telemetry;
use ca::Authorities;
use exchange::Exchange;
use lease::{Election, Leadership};
use sign::Server;

/// The name of this controller in statuses, and in its own GatewayClasses.
pub const CONTROLLER_NAME: &str = "isthmus.io/controller";
/// The field manager of its writes (server-side apply).
pub const FIELD_MANAGER: &str = "isthmus-controller";
/// The namespace of the installation, for a replica that runs outside the cluster.
const NAMESPACE: &str = "isthmus-system";
/// The Lease in the controller's namespace; its holder leads.
const LEASE: &str = "isthmus-controller";

/// State that all parts of the controller share.
#[derive(Clone)]
pub struct Context {
    pub client: kube::Client,
    pub settings: ControllerSettings,
    pub trust_domain: Str,
    pub cluster_domain: Str,
    /// This replica's name: its pod's.
    pub replica: Str,
    /// The translation for statuses: the same as the agents'.
    pub translate: TranslateSettings,
    pub telemetry: Telemetry,
}

/// One replica.
pub struct Controller {
    context: Arc<Context>,
    authorities: Authorities,
    leadership: Leadership,
    exchange: Arc<Exchange>,
    server: Mutex<Option<Server>>,
}

impl Controller {
    /// Listens, and serves nothing yet.
    ///
    /// # Errors
    /// The signing address is in use.
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
        let leadership = Leadership::default();
        let exchange = Exchange::new(&context, leadership.clone());
        let bound = Server::bind(context.clone(), authorities.clone(), exchange.clone()).await;
        let server = bound.with_context(|| {
            format!("listen on {} (controller.address)", context.settings.address)
        })?;
        let server = Mutex::new(Some(server));
        Ok(Self { context, authorities, leadership, exchange, server })
    }

    /// The CA in force, for operators; `null` without one.
    pub fn ca_status(&self) -> serde_json::Value {
        self.authorities.current().map_or(serde_json::Value::Null, |current| current.status())
    }

    /// Whether this replica leads, for operators.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// The agents that exchange tokens of shared rate limits here, for operators.
    pub fn exchange(&self) -> Census {
        self.exchange.census()
    }

    /// Runs until cancelled; then releases the Lease, so that another replica need not wait for its expiry. `ready`
    /// reports whether certificates can be signed. Call it once.
    ///
    /// # Errors
    /// A part of it panicked; the others have stopped then.
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
                // A replica that no longer signs or leads must not continue as if it did.
                cancel.cancel();
                ended = Err(error).context("a part of the controller broke off");
            }
        }
        ended
    }
}

/// The leader's tasks. Ends when `term` is cancelled, and promptly: another replica begins soon after. Parts are
/// joined, not spawned, so that nothing outlives the term.
async fn lead(context: Arc<Context>, authorities: Authorities, term: CancellationToken) {
    tokio::join!(ca::keep(context.clone(), authorities, term.clone()), status::run(&context, term));
}
