//! The network namespaces of this node's workloads: from their manifests, and from the proofs of their pods.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Node;
use super::capture::Captured;
use super::plan::{self, Refused, Site, Sites};
use super::search::REST;
use crate::base::Str;
use crate::model::Workload;
use crate::sock::{NetworkNamespace, Place};
use crate::workloads::{Claim, ContainerRuntime, Refusal, RuntimeError, Said, Sought, refused};
use crate::world::World;

/// The timeout of the container runtime's answers about all missing pods.
const ASKING: Duration = Duration::from_secs(10);

impl Node {
    /// The known sites that one workload claims, and those that several claim.
    pub(super) fn sites(&self, world: &World) -> (Sites, Refused) {
        let here = self.here(world);
        let mut sites: Sites =
            here.filter_map(|it| Some((it.uid.clone(), self.site(it)?))).collect();
        let claims: Vec<Claim> = sites
            .iter()
            .filter_map(|(uid, site)| Some(Claim { uid: uid.clone(), place: site.place? }))
            .collect();
        let refused = refused(&claims, &self.host).into_iter();
        let refused = refused.filter_map(|(uid, why)| {
            let site = sites.remove(&uid)?;
            Some((uid, (why, site)))
        });
        let refused = refused.collect();
        (sites, refused)
    }

    fn site(&self, workload: &Workload) -> Option<Site> {
        if let Some(network_namespace) = workload.network_namespace.clone() {
            let (pod, addresses) = (workload.pod.clone(), workload.addresses.clone());
            let place = NetworkNamespace::open(&network_namespace).and_then(|it| it.place()).ok();
            return Some(Site { network_namespace, pod, place, addresses });
        }
        let sandbox = self.registry.sandbox(&workload.uid, workload.pod.as_ref()?)?;
        let known = !workload.addresses.is_empty();
        Some(Site {
            network_namespace: sandbox.network_namespace,
            pod: Some(sandbox.pod),
            place: Some(sandbox.namespace.place()),
            addresses: if known { workload.addresses.clone() } else { sandbox.addresses },
        })
    }

    /// Whether this workload should be captured now.
    pub(super) fn is_wanted(&self, workload: &Workload) -> bool {
        workload.enrolled
            && self.is_here(workload)
            && !self.uncaptured.is_refused(&workload.uid)
            && self.site(workload).is_some_and(|site| !site.addresses.is_empty())
    }

    /// Whether this namespace needs rules: a workload is captured there or should be, or it is closed.
    pub(super) fn is_held(&self, place: Place) -> bool {
        let captured = |it: &Arc<Captured>| it.namespace.place().is_ok_and(|own| own == place);
        if self.captured.lock().values().any(captured) {
            return true;
        }
        let world = self.layer4.world.load();
        let (sites, refused) = self.sites(&world);
        let is_there = |site: &Site| site.place == Some(place);
        let enrolled = |uid: &Str| world.workload(uid).is_some_and(|it| it.enrolled);
        let is_wanted = |uid: &Str, site: &Site| enrolled(uid) && !site.addresses.is_empty();
        if sites.iter().any(|(uid, site)| is_there(site) && is_wanted(uid, site)) {
            return true;
        }
        let done = self.done.lock();
        let is_closed = |uid: &Str| done.closed.contains(uid) || enrolled(uid);
        let mut others = refused.iter().filter(|(_, (why, _))| *why != Refusal::Host);
        others.any(|(uid, (_, site))| is_there(site) && is_closed(uid))
    }

    fn is_here(&self, workload: &Workload) -> bool {
        workload.node == self.settings.name && !workload.host_network
    }

    fn here<'a>(&'a self, world: &'a World) -> impl Iterator<Item = &'a Arc<Workload>> {
        world.workloads_on(&self.settings.name).iter().filter(|workload| self.is_here(workload))
    }

    /// Searches for the namespaces of pods that this agent was not told of, because they started before it did. Pods outside
    /// of the mesh are searched once, for rules that an earlier agent left.
    pub(super) async fn find_pods(self: &Arc<Self>, world: &World) {
        let is_here = |uid: &Str, pod: &Str| {
            let workload = world.workload(uid).filter(|workload| self.is_here(workload));
            workload.is_some_and(|it| it.pod.as_ref() == Some(pod))
        };
        self.registry.retain(is_here);
        self.search.retain(is_here);
        let missing = self.missing(world);
        let is_due = self.search.is_due(&missing);
        let not_before = if is_due { self.registry.search_due() } else { None };
        self.search.set_next(not_before);
        if !is_due || not_before.is_some() {
            return;
        }
        let sought: Vec<Sought> = missing.into_iter().map(|(_, it)| it).collect();
        self.search.looked_for(&sought);
        let registry = self.registry.clone();
        let restored = tokio::task::spawn_blocking(move || registry.restore(&sought)).await;
        let mut found = restored.unwrap_or_default();
        if let Some(runtime) = &self.settings.runtime {
            found += self.ask_for(world, runtime).await;
        }
        if found > 0 {
            tracing::info!(found, "found the network namespaces of pods that run");
        }
    }

    /// Asks the container runtime for pods that are not in the registry. Returns how many were found.
    async fn ask_for(self: &Arc<Self>, world: &World, runtime: &ContainerRuntime) -> usize {
        let sought = self.missing(world).into_iter().map(|(_, it)| it);
        let sought: Vec<Sought> = sought.filter(|it| !it.addresses.is_empty()).collect();
        if sought.is_empty() {
            return 0;
        }
        let registry = self.registry.clone();
        let found = match self.ask_runtime(runtime, &sought).await {
            Some(said) => tokio::task::spawn_blocking(move || Ok(registry.learn(&said))).await,
            None => {
                let all: Vec<Str> = self.here(world).map(|it| it.key.name.clone()).collect();
                tokio::task::spawn_blocking(move || registry.find_named(&sought, &all)).await
            }
        };
        match found {
            Ok(Ok(found)) => return found,
            Ok(Err(error)) => tracing::warn!(
                %error,
                "cannot look for the network namespaces of pods; is /run/netns of the node mounted into the agent's pod?"
            ),
            Err(error) => tracing::error!(%error, "the search for pods broke off"),
        }
        0
    }

    /// `None`: there is no container runtime, or it does not answer.
    async fn ask_runtime(
        &self,
        runtime: &ContainerRuntime,
        sought: &[Sought],
    ) -> Option<Vec<(Sought, Said)>> {
        if self.search.rests() {
            return None;
        }
        let why = match timeout(ASKING, runtime.ask(sought)).await {
            Ok(Ok(said)) => return Some(said),
            Ok(Err(error @ RuntimeError::Absent(_))) => {
                tracing::debug!(%error, "no container runtime answers, so pods that started before the agent are not found");
                return None;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the container runtime tells nothing within {ASKING:?}"),
        };
        self.search.rest();
        tracing::warn!(why, again = ?REST, "pods that started before the agent did are not found");
        None
    }

    /// Pods of this node without a known site, and whether each should be captured.
    pub(super) fn missing(&self, world: &World) -> Vec<(bool, Sought)> {
        let without = self.here(world).filter(|it| it.network_namespace.is_none());
        let sought = without.filter_map(|workload| {
            let pod = workload.pod.clone()?;
            let known = self.registry.sandbox(&workload.uid, &pod).is_some();
            if known || self.registry.has_ended(&workload.uid, &pod) {
                return None;
            }
            let sought = Sought {
                uid: workload.uid.clone(),
                pod,
                namespace: workload.key.namespace.clone(),
                name: workload.key.name.clone(),
                addresses: workload.addresses.clone(),
            };
            Some((workload.enrolled, sought))
        });
        sought.collect()
    }

    /// Workloads that should be captured and cannot be found. They do not make the agent unready: no other agent would find
    /// them.
    pub(super) fn note_lost(&self, world: &World) {
        let mut now = BTreeSet::new();
        if self.settings.runtime.is_some() {
            let missing = self.missing(world).into_iter();
            let lost = missing.filter(|(enrolled, it)| *enrolled && !it.addresses.is_empty());
            now.extend(lost.map(|(_, it)| it.uid));
        }
        for uid in self.uncaptured.set_lost(now) {
            tracing::warn!(workload = %uid, "{LOST}");
        }
    }

    /// Logs each rejected claim to a namespace, once.
    pub(super) fn note_refused(&self, refused: &Refused) {
        let now = refused.iter().map(|(uid, (why, _))| (uid.clone(), why.clone())).collect();
        for (uid, why) in self.uncaptured.set_refused(now) {
            tracing::error!(workload = %uid, "not captured: {why}");
        }
        let mut done = self.done.lock();
        done.closed.retain(|uid| refused.contains_key(uid));
        // The other claim closed its namespace too, so it must be freed when the claim is gone.
        done.cleaned.retain(|uid| !refused.contains_key(uid));
    }

    /// The world's workload, with the addresses that the runtime gave it while the API does not have them yet.
    pub(super) fn placed(workload: &Arc<Workload>, site: &Site) -> Arc<Workload> {
        if !workload.addresses.is_empty() {
            return workload.clone();
        }
        Arc::new(Workload { addresses: site.addresses.clone(), ..Workload::clone(workload) })
    }

    pub(super) fn wanted_identities<'a>(
        world: &'a World,
        sites: &Sites,
    ) -> std::collections::BTreeSet<&'a crate::base::Identity> {
        let here = sites.keys().filter_map(|uid| world.workload(uid));
        let wanted = here.filter(|workload| plan::wanted(workload, sites).is_some());
        wanted.map(|workload| &workload.identity).collect()
    }
}

/// Why a running pod is not captured.
pub(super) const LOST: &str = "its network namespace is unknown: it started before the agent was installed, and the \
                               container runtime does not report it (check [workloads] runtime_socket, and that it is \
                               mounted into the agent's pod). Restart the pod: the CNI plugin then reports it. Rules that \
                               an earlier agent left in it stay";
