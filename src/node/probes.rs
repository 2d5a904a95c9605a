//! The node's own rules: probes of this node reach captured workloads unauthenticated, so that STRICT does not fail their
//! health.

use std::net::IpAddr;

use parking_lot::Mutex;

use super::Node;
use super::caught::Watch;
use crate::redirect::{self, NodePlan, Place};
use crate::world::World;

/// The node's own rules.
#[derive(Default)]
pub(super) struct Probes {
    /// Whose probes are exempt; `None` at the start, when an agent before us may have left its rules.
    exempt: Mutex<Option<Vec<IpAddr>>>,
    /// The counters of these rules.
    pub(super) watch: Watch,
}

impl Probes {
    /// Whether any is exempt, so that the node has rules.
    pub(super) fn have_rules(&self) -> bool {
        self.exempt.lock().as_ref().is_some_and(|them| !them.is_empty())
    }
}

impl Node {
    /// Makes the node's rules those of the workloads that are captured now.
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
        // Without captured workloads nothing of the agent's stays on the node.
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
