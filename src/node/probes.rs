//! The node's own rules: probes of this node reach captured workloads unauthenticated, so that STRICT does not fail their
//! health.

use std::net::IpAddr;

use parking_lot::Mutex;

use super::Node;
use super::caught::Watch;
use crate::redirect::{self, NodePlan, Place};
use crate::world::World;

/// The state of the node's own rules.
#[derive(Default)]
pub(super) struct Probes {
    /// The addresses whose probes are exempt; `None` at the start, when a previous agent may have left its rules.
    exempt: Mutex<Option<Vec<IpAddr>>>,
    /// The counters of these rules.
    pub(super) watch: Watch,
}

impl Probes {
    /// Whether any probe is exempt, so that the node needs rules.
    pub(super) fn have_rules(&self) -> bool {
        self.exempt.lock().as_ref().is_some_and(|them| !them.is_empty())
    }
}

impl Node {
    /// Updates the node's rules for the captured workloads.
    pub(super) async fn exempt_probes(&self, world: &World) {
        let mut workloads: Vec<IpAddr> = {
            let captured = self.captured.lock();
            let known = captured.keys().filter_map(|uid| world.workload(uid));
            // The kubelet probes a pod before the API has its address.
            let told = captured.values().flat_map(|one| one.site.addresses.iter().copied());
            known.flat_map(|workload| workload.addresses.iter().copied()).chain(told).collect()
        };
        workloads.sort_unstable();
        workloads.dedup();
        if self.probes.exempt.lock().as_ref() == Some(&workloads) {
            return;
        }
        let plan = NodePlan { workloads: workloads.clone() };
        // Without captured workloads the agent leaves nothing on the node.
        let change = move || match plan.workloads.is_empty() {
            true => redirect::remove(Place::Node),
            false => redirect::apply(&redirect::plan_node(&plan)).map(drop),
        };
        match tokio::task::spawn_blocking(change).await {
            Ok(Ok(())) => *self.probes.exempt.lock() = Some(workloads),
            Ok(Err(error)) => {
                tracing::warn!(%error, "probes from this node are not exempt; those of STRICT workloads will fail");
            }
            Err(error) => tracing::error!(%error, "the rules for probes were not applied"),
        }
    }
}
