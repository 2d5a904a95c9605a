//! Since when what a workload's inbound connections are judged by is the same.
//!
//! Ten thousand open connections must not be judged anew because a pod elsewhere got ready. Each world knows, per
//! workload, the generation since which nothing has changed that a gate of the workload reads: itself (labels,
//! PeerAuthentication, waypoint), its policies, the services that lead to it, their waypoints and the policies of
//! these. What is compared errs towards "changed".

use std::collections::{HashMap, HashSet};

use super::Membership;
use super::index::Indexes;
use crate::base::{ObjectKey, Str};
use crate::model::{Binding, Mesh, Workload};

/// By the workload's uid.
pub(super) type JudgedSince = HashMap<Str, u64>;

/// What stayed the same between two worlds.
struct Unchanged<'a> {
    services: HashSet<&'a ObjectKey>,
    waypoints: HashSet<&'a ObjectKey>,
    before: &'a Indexes,
    after: &'a Indexes,
}

/// `before`: the indexes of the world before this one, with what this function said of it.
pub(super) fn judged_since(
    mesh: &Mesh,
    indexes: &Indexes,
    before: Option<(&Mesh, &Indexes)>,
    generation: u64,
) -> JudgedSince {
    // A route may stand in for a service's policies; routes change rarely enough to judge everything anew.
    let before = before.filter(|(old, _)| same_routes(old, mesh));
    let unchanged = before.map(|(_, before)| Unchanged::between(mesh, before, indexes));
    let since = |workload: &Workload| {
        let kept = unchanged.as_ref().filter(|unchanged| unchanged.workload(workload));
        kept.and_then(|kept| kept.before.judged_since(&workload.uid)).unwrap_or(generation)
    };
    mesh.workloads.iter().map(|workload| (workload.uid.clone(), since(workload))).collect()
}

fn same_routes(old: &Mesh, new: &Mesh) -> bool {
    // Compiled expressions cannot be compared; their texts can.
    match (serde_json::to_vec(&old.routes), serde_json::to_vec(&new.routes)) {
        (Ok(old), Ok(new)) => old == new,
        _ => false,
    }
}

impl<'a> Unchanged<'a> {
    fn between(mesh: &'a Mesh, before: &'a Indexes, after: &'a Indexes) -> Self {
        let mut unchanged =
            Self { services: HashSet::new(), waypoints: HashSet::new(), before, after };
        for waypoint in &mesh.waypoints {
            let key = &waypoint.key;
            if before.waypoint(key) == Some(waypoint)
                && before.waypoint_policies(key) == after.waypoint_policies(key)
            {
                unchanged.waypoints.insert(key);
            }
        }
        for service in &mesh.services {
            let key = &service.key;
            // Not its endpoints: those that matter to a workload are its memberships.
            let same = before.service(key).is_some_and(|old| {
                old.hostname == service.hostname
                    && old.ports == service.ports
                    && old.waypoint == service.waypoint
            });
            if same
                && before.service_policies(key) == after.service_policies(key)
                && unchanged.binding(&service.waypoint)
            {
                unchanged.services.insert(key);
            }
        }
        unchanged
    }

    fn binding(&self, binding: &Binding) -> bool {
        match binding {
            Binding::Waypoint(key) => self.waypoints.contains(key),
            Binding::None | Binding::Unusable { .. } => true,
        }
    }

    fn workload(&self, workload: &Workload) -> bool {
        let uid = &workload.uid;
        let served = |one: &Membership| {
            (one.target_port, one.served.service_port, one.served.service.key.clone())
        };
        let (old, new) = (self.before.memberships(uid), self.after.memberships(uid));
        self.before.workload(uid).is_some_and(|old| **old == *workload)
            && self.before.workload_policies(uid) == self.after.workload_policies(uid)
            && self.binding(&workload.waypoint)
            && old.len() == new.len()
            && old.iter().zip(new).all(|(old, new)| served(old) == served(new))
            && new.iter().all(|one| self.services.contains(&one.served.service.key))
    }
}
