//! Where this node's workloads are: what their manifests say, what the container runtime said, and a search for the rest.

use std::sync::Arc;

use super::Node;
use super::plan::{self, Site, Sites};
use crate::base::Str;
use crate::model::Workload;
use crate::workloads::Sought;
use crate::world::World;

impl Node {
    /// The sites that are known now.
    pub(super) fn sites(&self, world: &World) -> Sites {
        let here = self.here(world);
        here.filter_map(|it| Some((it.uid.clone(), self.site(it)?))).collect()
    }

    pub(super) fn site(&self, workload: &Workload) -> Option<Site> {
        if let Some(network_namespace) = workload.network_namespace.clone() {
            let (pod, addresses) = (workload.pod.clone(), workload.addresses.clone());
            return Some(Site { network_namespace, pod, addresses });
        }
        let sandbox = self.registry.sandbox(&workload.uid, workload.pod.as_ref()?)?;
        let known = !workload.addresses.is_empty();
        Some(Site {
            network_namespace: sandbox.network_namespace,
            pod: Some(sandbox.pod),
            addresses: if known { workload.addresses.clone() } else { sandbox.addresses },
        })
    }

    /// Whether this workload should be captured now.
    pub(super) fn is_wanted(&self, workload: &Workload) -> bool {
        workload.enrolled
            && self.is_here(workload)
            && self.site(workload).is_some_and(|site| !site.addresses.is_empty())
    }

    fn is_here(&self, workload: &Workload) -> bool {
        workload.node == self.settings.name && !workload.host_network
    }

    fn here<'a>(&'a self, world: &'a World) -> impl Iterator<Item = &'a Arc<Workload>> {
        world.workloads_on(&self.settings.name).iter().filter(|workload| self.is_here(workload))
    }

    /// Looks for pods whose namespace nobody told: they ran before this agent. Those outside of the mesh are looked for
    /// once, for rules that an earlier agent left.
    pub(super) async fn find_pods(self: &Arc<Self>, world: &World) {
        if !self.settings.search {
            return;
        }
        let is_here = |uid: &Str, pod: &Str| {
            let workload = world.workload(uid).filter(|workload| self.is_here(workload));
            workload.is_some_and(|it| it.pod.as_ref() == Some(pod))
        };
        self.registry.retain(is_here);
        self.looked_for.lock().retain(|(uid, pod)| is_here(uid, pod));
        let missing = self.missing(world);
        let is_due = missing.iter().any(|(enrolled, it)| {
            *enrolled || !self.looked_for.lock().contains(&(it.uid.clone(), it.pod.clone()))
        });
        *self.search_again.lock() = None;
        if !is_due {
            return;
        }
        if let Some(due) = self.registry.search_due() {
            *self.search_again.lock() = Some(due);
            return;
        }
        let sought: Vec<Sought> = missing.into_iter().map(|(_, it)| it).collect();
        self.looked_for.lock().extend(sought.iter().map(|it| (it.uid.clone(), it.pod.clone())));
        let registry = self.registry.clone();
        let searched = tokio::task::spawn_blocking(move || registry.search(&sought)).await;
        match searched {
            Ok(Ok(0)) => {}
            Ok(Ok(found)) => tracing::info!(found, "found the network namespaces of pods that run"),
            Ok(Err(error)) => tracing::warn!(
                %error,
                "cannot look for the network namespaces of pods; is /run/netns of the node mounted into the agent's pod?"
            ),
            Err(error) => tracing::error!(%error, "the search for pods broke off"),
        }
    }

    /// Pods of this node without a known site, and whether each should be captured.
    fn missing(&self, world: &World) -> Vec<(bool, Sought)> {
        let without = self.here(world).filter(|it| it.network_namespace.is_none());
        let sought = without.filter_map(|workload| {
            let pod = workload.pod.clone()?;
            let known = self.registry.sandbox(&workload.uid, &pod).is_some();
            if known
                || workload.addresses.is_empty()
                || self.registry.has_ended(&workload.uid, &pod)
            {
                return None;
            }
            let sought = Sought {
                uid: workload.uid.clone(),
                pod,
                addresses: workload.addresses.clone(),
                ready: workload.ready,
            };
            Some((workload.enrolled, sought))
        });
        sought.collect()
    }

    /// What should be captured and cannot be found. It does not make the agent unready: no other agent would find it.
    pub(super) fn note_lost(&self, world: &World) {
        let mut lost = self.lost.lock();
        let mut now = std::collections::BTreeSet::new();
        if self.settings.search {
            now.extend(self.missing(world).into_iter().filter(|(it, _)| *it).map(|(_, it)| it.uid));
        }
        for uid in now.difference(&lost) {
            tracing::warn!(workload = %uid, "{LOST}");
        }
        *lost = now;
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

/// Why a pod that runs is not captured.
pub(super) const LOST: &str = "its network namespace is not found below /run/netns; it is looked for again. Is \
                               /run/netns of the node mounted into the agent's pod, and does the container runtime \
                               keep its namespaces there?";
