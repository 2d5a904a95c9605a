//! On which nodes a Service has pods, asked from the API server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::base::{ObjectKey, Seldom, Str};
use crate::controller::cluster::told;
use crate::controller::sign::throttle::{Rate, Throttle};
use crate::filter::Pods;

/// The label of an EndpointSlice with its Service.
const SERVICE: &str = "kubernetes.io/service-name";
/// How long an answer is good: the nodes of a Service ask at once when a pod comes.
const REMEMBER: Duration = Duration::from_secs(3);
const MAX_REMEMBERED: usize = 4096;
/// The timeout of the API server, and how much of it all nodes together may ask at a time.
const PATIENCE: Duration = Duration::from_secs(5);
const AT_ONCE: usize = 16;
/// What the agents of one node may have asked: all of its limits at once, and after that what pods that come and go need.
const OF_NODE: Rate = Rate { burst: 600.0, each_second: 20.0 };

pub(super) struct Places {
    client: Client,
    known: Mutex<HashMap<ObjectKey, Known>>,
    asking: Semaphore,
    nodes: Throttle<Str>,
    trouble: Seldom,
}

/// Pods by node.
type Counts = Arc<HashMap<String, u32>>;
type Known = (Counts, Instant);

impl Places {
    pub(super) fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            known: Mutex::default(),
            asking: Semaphore::new(AT_ONCE),
            nodes: Throttle::new(OF_NODE),
            trouble: Seldom::new(),
        }
    }

    /// `None` unless a pod of the Service is on the node, as far as the API server says.
    pub(super) async fn pods(&self, service: &ObjectKey, node: &Str) -> Option<Pods> {
        let counts = match self.recall(service) {
            Some(counts) => counts,
            None if self.nodes.admits(node.clone()) => self.ask(service).await?,
            None => return None,
        };
        let here = *counts.get(node.as_str())?;
        let all = counts.values().fold(0u32, |sum, count| sum.saturating_add(*count));
        Some(Pods { here, all })
    }

    fn recall(&self, service: &ObjectKey) -> Option<Counts> {
        let known = self.known.lock();
        let (counts, asked) = known.get(service)?;
        (asked.elapsed() < REMEMBER).then(|| counts.clone())
    }

    /// The name has been checked: it fits into a selector.
    async fn ask(&self, service: &ObjectKey) -> Option<Counts> {
        let _place = self.asking.acquire().await.ok()?;
        // Somebody else may have asked meanwhile.
        if let Some(counts) = self.recall(service) {
            return Some(counts);
        }
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &service.namespace);
        let selection = ListParams::default().labels(&format!("{SERVICE}={}", service.name));
        let asked = Instant::now();
        let why = match timeout(PATIENCE, slices.list(&selection)).await {
            Ok(Ok(found)) => {
                let counts = Arc::new(count(&found.items));
                self.remember(service, &counts, asked);
                return Some(counts);
            }
            Ok(Err(error)) => told(&error),
            Err(_) => format!("no answer within {PATIENCE:?}"),
        };
        if self.trouble.is_due() {
            tracing::warn!(
                %service, why,
                "shared rate limits: cannot list the endpoints of a Service, so that its nodes exchange nothing; check that the \
                 controller may list endpointslices"
            );
        }
        None
    }

    fn remember(&self, service: &ObjectKey, counts: &Counts, asked: Instant) {
        let mut known = self.known.lock();
        known.retain(|_, (_, asked)| asked.elapsed() < REMEMBER);
        if known.len() < MAX_REMEMBERED {
            known.insert(service.clone(), (counts.clone(), asked));
        }
    }
}

/// As agents count them: ready or not, each address once.
fn count(found: &[EndpointSlice]) -> HashMap<String, u32> {
    let mut counts: HashMap<String, u32> = HashMap::new();
    for endpoint in found.iter().flat_map(|slice| &slice.endpoints).flatten() {
        if let Some(node) = endpoint.node_name.as_ref().filter(|node| !node.is_empty()) {
            *counts.entry(node.clone()).or_default() += 1;
        }
    }
    counts
}
