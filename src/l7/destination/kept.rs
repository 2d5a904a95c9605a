//! What a connection's requests must pass, kept from world to world.
//!
//! A mesh may change many times a second, and most changes are somebody else's. So a connection keeps its [`Gates`] for as long
//! as its class ([`ArrivalClass`]) is judged alike, which is found out once for all connections of the class when a world is
//! published. A request asks two counters, and makes gates only after a change that concerns it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::gates::{Gates, Inbound};
use crate::base::Str;
use crate::gate::ArrivalClass;
use crate::world::{Judged, JudgementChanges, World, WorldStore};

/// The classes of connections to one workload.
type Classes = Judged<ArrivalClass, Gates>;

/// The classes of a worker's inbound connections, by the uid of the workload.
pub(in crate::l7) struct Arrivals {
    store: Arc<WorldStore>,
    workloads: papaya::HashMap<Str, Arc<Classes>>,
}

/// The gates of one connection.
pub(in crate::l7) struct KeptGates {
    classes: Arc<Classes>,
    kept: ArcSwapOption<Kept>,
}

struct Kept {
    gates: Arc<Gates>,
    /// Of the world that they were made from.
    generation: u64,
    changes: JudgementChanges,
}

impl Arrivals {
    pub(in crate::l7) fn new(store: Arc<WorldStore>) -> Self {
        Self { store, workloads: papaya::HashMap::new() }
    }

    pub(in crate::l7) fn gates(&self, workload: &Str) -> KeptGates {
        let workloads = self.workloads.pin();
        let make = || self.store.judged(Some(workload));
        let classes = match workloads.get(workload) {
            Some(classes) => classes.clone(),
            None => workloads.get_or_insert_with(workload.clone(), make).clone(),
        };
        KeptGates { classes, kept: ArcSwapOption::empty() }
    }

    /// Forgets the workloads that no connection is to any more.
    pub(in crate::l7) fn sweep(&self) {
        self.workloads.pin().retain(|_, classes| Arc::strong_count(classes) > 1);
    }
}

impl KeptGates {
    /// What `world`, which was read from `store` just now, demands of the connection.
    pub(in crate::l7) fn of(
        &self,
        store: &WorldStore,
        world: &World,
        inbound: &Inbound,
    ) -> Arc<Gates> {
        if let Some(kept) = &*self.kept.load()
            && kept.holds_for(store, world)
        {
            return kept.gates.clone();
        }
        // Before the world is read, or found to be still the present one: what changes after it is told.
        let changes = self.changes(inbound);
        let gates = Arc::new(inbound.gates(world));
        if store.load().generation == world.generation {
            let kept = Kept { gates: gates.clone(), generation: world.generation, changes };
            self.kept.store(Some(Arc::new(kept)));
        }
        gates
    }

    /// Tells when connections like this one are judged otherwise.
    pub(in crate::l7) fn changes(&self, inbound: &Inbound) -> JudgementChanges {
        self.classes.changes(inbound.class(), || {
            let inbound = inbound.clone();
            move |world| inbound.gates(world)
        })
    }
}

impl Kept {
    /// While a world is being told of, those who do not know yet whether it concerns them find out by themselves.
    fn holds_for(&self, store: &WorldStore, world: &World) -> bool {
        self.generation == world.generation
            || self.generation < world.generation
                && store.told() >= world.generation
                && self.changes.has_changed().is_ok_and(|changed| !changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Action, Mesh, PolicyTarget, Scope};
    use crate::world::fixture::{
        Fixture, backend, bound_to, identity, policy, route, rule, service, store, waypoint,
        workload,
    };

    fn base() -> Mesh {
        let (web, other) = (workload("web", "10.0.0.1"), workload("evil/other", "10.0.0.2"));
        let mut shop = service("web", "10.96.0.1", &[&web]);
        shop.waypoint = bound_to("wp");
        let evil = service("evil/shop", "10.96.0.2", &[&other]);
        let base = Fixture::default().workload(web).workload(other).waypoint(waypoint("wp"));
        base.service(shop).service(evil).mesh
    }

    fn inbound(host: Option<&str>) -> Inbound {
        Inbound {
            workload: Arc::new(workload("web", "10.0.0.1")),
            client: Some(identity("client")),
            client_address: "10.0.0.9:1234".parse().unwrap(),
            destination: "10.0.0.1:8080".parse().unwrap(),
            forwarded_host: host.map(Str::from),
            baggage: None,
            in_process: false,
        }
    }

    fn with(base: &Mesh, turn: u32) -> Mesh {
        let mut mesh = base.clone();
        for (name, parent) in [("evil/own", "evil/shop"), ("evil/consumer", "web")] {
            let rules = vec![rule(vec![backend(parent, turn)])];
            mesh.routes.push(Arc::new(route(name, parent, rules)));
        }
        mesh
    }

    #[test]
    fn another_tenants_changes_cost_requests_nothing() {
        let (store, base) = (store(), base());
        store.publish(base.clone());
        let arrivals = Arrivals::new(store.clone());
        for inbound in [inbound(None), inbound(Some("web.shop.svc.cluster.local"))] {
            let kept = arrivals.gates(&inbound.workload.uid);
            let gates = || kept.of(&store, &store.load(), &inbound);
            let first = gates();
            for turn in 1..=100 {
                store.publish(with(&base, turn));
                assert!(Arc::ptr_eq(&first, &gates()), "made anew in turn {turn}");
            }
            let scope = Scope::Targets(vec![PolicyTarget::Service("web".into())]);
            let denied = Arc::new(policy("p", Action::Deny, scope, Vec::new()));
            store.publish(Mesh { policies: vec![denied], ..base.clone() });
            let guarded = gates();
            assert!(!Arc::ptr_eq(&first, &guarded), "a policy of its own");
            assert!(*guarded == inbound.gates(&store.load()));
            store.publish(base.clone());
        }
    }

    /// A connection whose workload leaves, or that comes while a world is published, has the gates of the world it asks for.
    #[test]
    fn gates_are_always_those_of_the_world_that_is_asked_for() {
        let (store, base) = (store(), base());
        let scope = || Scope::Targets(vec![PolicyTarget::Service("web".into())]);
        let denied = || Arc::new(policy("p", Action::Deny, scope(), Vec::new()));
        let guarded = Mesh { policies: vec![denied()], ..base.clone() };
        let (inbound, arrivals) = (inbound(None), Arrivals::new(store.clone()));
        let kept = arrivals.gates(&inbound.workload.uid);
        let worlds = [base, guarded, Mesh::default()];
        std::thread::scope(|scope| {
            scope.spawn(|| (0..300).for_each(|at| _ = store.publish(worlds[at % 3].clone())));
            for _ in 0..2_000 {
                let world = store.snapshot();
                assert!(*kept.of(&store, &world, &inbound) == inbound.gates(&world));
            }
        });
    }
}
