//! Since when what a workload's inbound connections are judged by is the same.
//!
//! Ten thousand open connections must not be judged anew because a pod elsewhere got ready. Between two worlds it is
//! asked, for a workload, whether anything changed that a gate of it reads: itself (labels, PeerAuthentication,
//! waypoint), its policies, the services of its own namespace that lead to it, their waypoints and the policies of these. What
//! other namespaces' services say, and routes, concern the connections that addressed a service which leads here only by them;
//! these ask for that service as well. What is compared errs towards "changed".

use std::sync::Arc;

use super::World;
use super::diff::are_shared;
use super::endpoints::Way;
use crate::base::ObjectKey;
use crate::model::{Binding, HttpRoute};

/// Two worlds, one after the other.
pub(super) struct Between<'a> {
    before: &'a World,
    after: &'a World,
}

impl<'a> Between<'a> {
    pub(super) fn new(before: &'a World, after: &'a World) -> Self {
        Self { before, after }
    }

    /// Connections to the workload are judged in `after` as they were in `before`; with `service` those that addressed it, where
    /// it is another namespace's or leads to the workload by a route.
    pub(super) fn is_judged_alike(&self, uid: &str, service: Option<&ObjectKey>) -> bool {
        let (old, new) = (&self.before.indexes, &self.after.indexes);
        let (Some(was), Some(is)) = (old.workload(uid), new.workload(uid)) else { return false };
        was == is
            && old.workload_policies(uid) == new.workload_policies(uid)
            && self.binding(&is.waypoint)
            && self.ways(uid, &is.key.namespace, service)
    }

    /// The services that a gate asks lead to the workload as before, and are as before.
    fn ways(&self, uid: &str, namespace: &str, service: Option<&ObjectKey>) -> bool {
        let asked =
            |way: &&Way| way.service.namespace == namespace || Some(&way.service) == service;
        let (old, new) = (&self.before.indexes, &self.after.indexes);
        let was = old.ways(uid).iter().filter(asked);
        was.eq(new.ways(uid).iter().filter(asked))
            && new.ways(uid).iter().filter(asked).all(|way| self.service(&way.service))
            && service.is_none_or(|service| self.service(service) && self.routes(service))
    }

    fn service(&self, key: &ObjectKey) -> bool {
        let (old, new) = (&self.before.indexes, &self.after.indexes);
        let (Some(was), Some(is)) = (old.service(key), new.service(key)) else { return false };
        // Not its endpoints: those that matter to a workload are its ways.
        let same = Arc::ptr_eq(was, is)
            || was.hostname == is.hostname && was.ports == is.ports && was.waypoint == is.waypoint;
        same && old.service_policies(key) == new.service_policies(key) && self.binding(&is.waypoint)
    }

    fn routes(&self, service: &ObjectKey) -> bool {
        same_routes(self.before.routes_of(service), self.after.routes_of(service))
    }

    fn binding(&self, binding: &Binding) -> bool {
        let Binding::Waypoint(key) = binding else { return true };
        let (old, new) = (&self.before.indexes, &self.after.indexes);
        old.waypoint(key) == new.waypoint(key)
            && old.waypoint_policies(key) == new.waypoint_policies(key)
    }
}

fn same_routes(old: &[Arc<HttpRoute>], new: &[Arc<HttpRoute>]) -> bool {
    if are_shared(old, new) {
        return true;
    }
    // Compiled expressions cannot be compared; their texts can.
    match (serde_json::to_vec(old), serde_json::to_vec(new)) {
        (Ok(old), Ok(new)) => old == new,
        _ => false,
    }
}
