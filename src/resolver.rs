//! Resolves names as a workload does: its own resolvers, queried from inside its network namespace.
//!
//! `ask` sends a query to the resolvers that the workload itself would use; the DNS stub (`dns`) forwards with it.
//! [`Resolver`] finds the addresses of endpoints that have names (ServiceEntries with the resolution DNS). Layers 4 and
//! 7 pass it a service and get the same service with addresses in place of names, so that `balance` selects among these
//! as among any others. `dynamic` does it for names below a wildcard, which clients choose. `node` reports when a workload has left.
//!
//! Invariants: an answer is cached for its TTL, within bounds; each name of a workload has at most one query in flight;
//! a workload has a bounded number of names. While the resolvers fail, the last answer stays in use for a while. A name
//! or address of a Service of the mesh means the endpoints of that Service: dialling its virtual address from here
//! would bypass the mesh. This room connects only to resolvers, and selects no endpoint.
//!
//! hickory-resolver would replace only `addresses` and the cache in `name`, for eight more crates, because it cannot
//! forward a client's query byte for byte, as the DNS stub does with `ask`. It also drops an answer when its TTL ends,
//! so that new connections would fail as soon as the resolvers do.

mod addresses;
mod ask;
mod dynamic;
mod endpoints;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod name;

pub use ask::{Protocol, Resolvers, read_framed, write_framed};

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::base::{ObjectKey, Reason, Str};
use crate::model::{Resolution, Service, Workload};
use crate::sock::SocketFactory;
use crate::world::WorldStore;
use addresses::Families;
use name::{Known, Name};

/// Names that one workload uses at a time; idle ones are evicted.
const MAX_NAMES: usize = 512;
/// Services whose addresses are cached for one workload.
const MAX_SERVICES: usize = 1024;
/// Concurrent queries for one service.
const CONCURRENT: usize = 8;

/// The state of all workloads of this agent.
pub struct Resolver {
    /// The resolvers of workloads whose namespace has no resolv.conf.
    resolv_conf: PathBuf,
    world: Arc<WorldStore>,
    workloads: papaya::HashMap<Str, Arc<Own>>,
    below: dynamic::Counts,
}

/// No endpoint of a service has an address.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{service} has no address to connect to: {why}")]
pub struct Unresolved {
    service: String,
    why: String,
    /// `UH` or `DF`.
    pub reason: Reason,
}

/// One cached name of one workload.
#[derive(Clone, Debug, serde::Serialize)]
pub struct NameStatus {
    pub workload: Str,
    pub name: Str,
    pub addresses: Vec<IpAddr>,
    /// The seconds until the next query.
    pub holds: u64,
    /// Why there is no address.
    pub error: Option<String>,
}

/// The state of one workload.
struct Own {
    resolvers: Resolvers,
    /// Locked only to find a name, never during a query.
    names: Mutex<HashMap<Str, Arc<Name>>>,
    ready: papaya::HashMap<ObjectKey, Ready>,
    /// Of wildcards.
    below: dynamic::Names,
}

/// A service with addresses in place of names.
struct Ready {
    of: Arc<Service>,
    /// The snapshot in which names of the mesh are looked up.
    generation: u64,
    until: Instant,
    service: Arc<Service>,
}

impl Resolver {
    pub fn new(resolv_conf: PathBuf, world: Arc<WorldStore>) -> Arc<Self> {
        let below = dynamic::Counts::default();
        Arc::new(Self { resolv_conf, world, workloads: papaya::HashMap::new(), below })
    }

    /// The service with the addresses of its endpoints, as `client` resolves them; the service itself if it has no
    /// names.
    ///
    /// # Errors
    /// No endpoint has an address; the error says why, for the log.
    pub async fn endpoints(
        &self,
        client: &Workload,
        sockets: &Arc<dyn SocketFactory>,
        service: &Arc<Service>,
    ) -> Result<Arc<Service>, Unresolved> {
        if service.resolution != Resolution::Names {
            return Ok(service.clone());
        }
        let own = self.own(client);
        if let Some(ready) = own.ready(service, self.world.load().generation) {
            return Ok(ready);
        }
        // Rare and large: connections that need no names do not carry it.
        Box::pin(self.make_ready(&own, client, sockets.as_ref(), service)).await
    }

    /// The cached names, for dumps.
    pub fn names(&self) -> Vec<NameStatus> {
        let workloads = self.workloads.pin();
        let mut all: Vec<NameStatus> = Vec::new();
        for (uid, own) in &workloads {
            let names = own.names.lock();
            let known = names.iter().filter_map(|(text, name)| Some((text.clone(), name.last()?)));
            all.extend(known.chain(own.below.known()).map(|(name, known)| NameStatus {
                workload: uid.clone(),
                holds: known.until.saturating_duration_since(Instant::now()).as_secs(),
                error: known.failure(&name),
                addresses: known.addresses.clone(),
                name,
            }));
        }
        all.sort_by(|one, other| (&one.workload, &one.name).cmp(&(&other.workload, &other.name)));
        all
    }

    /// Forgets a workload that is no longer captured here.
    pub fn forget(&self, uid: &Str) {
        self.workloads.pin().remove(uid);
        self.below.tidy();
    }

    fn own(&self, client: &Workload) -> Arc<Own> {
        let workloads = self.workloads.pin();
        let make = || {
            let resolvers = Resolvers::of(client.network_namespace.as_deref(), &self.resolv_conf);
            let names = Mutex::default();
            let below = self.below.names(&client.key.namespace);
            Arc::new(Own { resolvers, names, ready: papaya::HashMap::new(), below })
        };
        workloads.get_or_insert_with(client.uid.clone(), make).clone()
    }

    async fn make_ready(
        &self,
        own: &Own,
        client: &Workload,
        sockets: &dyn SocketFactory,
        service: &Arc<Service>,
    ) -> Result<Arc<Service>, Unresolved> {
        let families = Families::of(client);
        let outside = {
            let world = self.world.load();
            let names = service.endpoints.iter().filter_map(|endpoint| endpoint.name.clone());
            let names = names.filter(|name| endpoints::in_mesh(&world, name).is_none());
            names.collect::<Vec<Str>>()
        };
        let asked = stream::iter(outside).map(|text| async move {
            let name = own.name(&text);
            let known = name.known(|| addresses::ask(&own.resolvers, sockets, &text, families));
            (text.clone(), known.await)
        });
        let known: HashMap<Str, Arc<Known>> = asked.buffer_unordered(CONCURRENT).collect().await;
        let world = self.world.snapshot();
        let made = endpoints::made(&world, service, &known);
        if made.endpoints.iter().all(|endpoint| endpoint.addresses.is_empty()) {
            let mut failures = known.iter().filter_map(|(name, known)| known.failure(name));
            let why = failures.next().unwrap_or_else(|| "it has no endpoints".to_owned());
            let reason = Reason::NoHealthyUpstream;
            return Err(Unresolved { service: service.to_string(), why, reason });
        }
        let until = known.values().map(|known| known.until).min();
        let until = until.unwrap_or_else(|| Instant::now() + name::LONGEST);
        let made = Arc::new(made);
        let ready = Ready {
            of: service.clone(),
            generation: world.generation,
            until,
            service: made.clone(),
        };
        own.keep(&service.key, ready);
        Ok(made)
    }
}

impl Ready {
    fn holds(&self, service: &Arc<Service>, generation: u64) -> bool {
        Arc::ptr_eq(&self.of, service)
            && self.generation == generation
            && Instant::now() < self.until
    }
}

impl Own {
    fn ready(&self, service: &Arc<Service>, generation: u64) -> Option<Arc<Service>> {
        let all = self.ready.pin();
        let ready = all.get(&service.key)?;
        ready.holds(service, generation).then(|| ready.service.clone())
    }

    fn keep(&self, key: &ObjectKey, ready: Ready) {
        let all = self.ready.pin();
        if all.len() >= MAX_SERVICES {
            all.clear();
        }
        all.insert(key.clone(), ready);
    }

    /// A service that does not fit is resolved each time.
    fn name(&self, text: &Str) -> Arc<Name> {
        let mut names = self.names.lock();
        if let Some(name) = names.get(text) {
            return name.clone();
        }
        if names.len() >= MAX_NAMES {
            names.retain(|_, name| name.is_in_use());
        }
        let name = Arc::new(Name::default());
        if names.len() < MAX_NAMES {
            names.insert(text.clone(), name.clone());
        }
        name
    }
}

/// An address that is not reachable from another machine.
fn leads_nowhere(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified() || address.is_multicast()
}
