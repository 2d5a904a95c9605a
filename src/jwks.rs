//! Fetches the keys of issuers (`jwksUri` of RequestAuthentications), for the node that needs them.
//!
//! The first request with a token of such an issuer has its keys fetched, once for all workers and namespaces of the node that name
//! the same address. From then on, one task for each address ([`keep`]) fetches them again before they expire as HTTP says
//! ([`fresh`]), and at once when a token names a key that is not known, as often as [`keep`] permits. The last good keys stay when a
//! fetch fails. There are no built-in keys, and no redirect is followed.
//!
//! The authors of policies choose these addresses, and the agent stands where its node does. So whatever a name resolves to, the agent
//! connects only where [`reachable`](crate::base::reachable) permits, and what it learns is a key set or nothing. Keys depend on the address alone:
//! names are resolved without what namespaces define for their own clients ([`resolve`]).

mod fetch;
mod fresh;
mod keep;
mod resolve;
#[cfg(test)]
mod tests;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::base::Str;
use crate::jwt::KeysUri;
use crate::model::{Action, AuthorizationPolicy, IssuerKeys, Mesh};
use crate::policy;
use crate::telemetry::{JwksMetrics, Telemetry};
use crate::world::WorldStore;

/// The settings of this room.
#[derive(Clone, Debug, Default)]
pub struct FetchSettings {
    /// Addresses that may be connected to although [`reachable`](crate::base::reachable) refuses them.
    pub allowed: Vec<IpNet>,
    /// Certificates that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The suffix of the names of Services.
    pub cluster_domain: Str,
}

/// Fetches what requests want.
pub struct Fetcher {
    world: Arc<WorldStore>,
    metrics: JwksMetrics,
    settings: FetchSettings,
    /// Made for the first address that needs it.
    tls: OnceCell<TlsConnector>,
}

impl Fetcher {
    pub fn new(world: Arc<WorldStore>, telemetry: &Telemetry, settings: FetchSettings) -> Self {
        Self { world, metrics: telemetry.jwks().clone(), settings, tls: OnceCell::new() }
    }

    /// Fetches until it is told to end.
    pub async fn run(self, cancel: CancellationToken) {
        let ring = self.world.load().keys.clone();
        let Some(mut added) = ring.added() else { return };
        let fetcher = Arc::new(self);
        let mut tasks = JoinSet::new();
        loop {
            let set = tokio::select! {
                set = added.recv() => set,
                Some(_) = tasks.join_next() => continue,
                () = cancel.cancelled() => return,
            };
            let Some(set) = set else { return };
            tasks.spawn(keep::keep(fetcher.clone(), ring.clone(), set));
        }
    }
}

/// The RequestAuthentications that name an address.
pub fn named_by<'a>(
    mesh: &'a Mesh,
    uri: &'a KeysUri,
) -> impl Iterator<Item = &'a AuthorizationPolicy> {
    let policies = mesh.policies.iter().map(|it| &**it);
    policies.filter(|it| it.action == Action::Authenticate).filter(move |policy| {
        policy::token_rules(policy)
            .any(|rule| matches!(&rule.keys, IssuerKeys::Remote(source) if *source.uri == *uri))
    })
}
