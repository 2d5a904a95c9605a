//! Since when what a workload's inbound connections are judged by is the same.
//!
//! Ten thousand open connections must not be judged anew because a pod elsewhere got ready. Between two worlds it is
//! asked, for a workload, whether anything changed that a gate of it reads: itself (labels, PeerAuthentication,
//! waypoint), its policies, the services that lead to it, their waypoints and the policies of these. What is compared
//! errs towards "changed".

use std::sync::Arc;

use super::World;
use super::diff::are_shared;
use crate::base::ObjectKey;
use crate::model::{Binding, Mesh};

/// Two worlds, one after the other.
pub(super) struct Between<'a> {
    before: &'a World,
    after: &'a World,
    same_routes: bool,
}

impl<'a> Between<'a> {
    pub(super) fn new(before: &'a World, after: &'a World) -> Self {
        Self { before, after, same_routes: same_routes(&before.mesh, &after.mesh) }
    }

    /// Connections to the workload are judged in `after` as they were in `before`.
    pub(super) fn is_judged_alike(&self, uid: &str) -> bool {
        let (old, new) = (&self.before.indexes, &self.after.indexes);
        let (Some(was), Some(is)) = (old.workload(uid), new.workload(uid)) else { return false };
        // A route may stand in for a service's policies; routes change rarely enough to judge everything anew.
        self.same_routes
            && was == is
            && old.workload_policies(uid) == new.workload_policies(uid)
            && self.binding(&is.waypoint)
            && old.ways(uid) == new.ways(uid)
            && new.ways(uid).iter().all(|way| self.service(&way.service))
    }

    fn service(&self, key: &ObjectKey) -> bool {
        let (old, new) = (&self.before.indexes, &self.after.indexes);
        let (Some(was), Some(is)) = (old.service(key), new.service(key)) else { return false };
        // Not its endpoints: those that matter to a workload are its ways.
        let same = Arc::ptr_eq(was, is)
            || was.hostname == is.hostname && was.ports == is.ports && was.waypoint == is.waypoint;
        same && old.service_policies(key) == new.service_policies(key) && self.binding(&is.waypoint)
    }

    fn binding(&self, binding: &Binding) -> bool {
        let Binding::Waypoint(key) = binding else { return true };
        let (old, new) = (&self.before.indexes, &self.after.indexes);
        old.waypoint(key) == new.waypoint(key)
            && old.waypoint_policies(key) == new.waypoint_policies(key)
    }
}

fn same_routes(old: &Mesh, new: &Mesh) -> bool {
    if are_shared(&old.routes, &new.routes) {
        return true;
    }
    // Compiled expressions cannot be compared; their texts can.
    match (serde_json::to_vec(&old.routes), serde_json::to_vec(&new.routes)) {
        (Ok(old), Ok(new)) => old == new,
        _ => false,
    }
}
