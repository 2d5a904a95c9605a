//! Since when what a workload's inbound connections are judged by is the same.
//!
//! Ten thousand open connections must not be judged anew because a pod elsewhere got ready. Between two worlds it is
//! asked, for a workload, whether anything changed that a gate of it reads: itself (labels, PeerAuthentication,
//! waypoint), its policies, the services that lead to it, their waypoints and the policies of these. What is compared
//! errs towards "changed".

use std::collections::HashSet;
use std::sync::Arc;

use super::World;
use super::diff::Diff;
use super::endpoints::Way;
use crate::base::{ObjectKey, Str};
use crate::model::{BackendRef, Binding, HttpRoute};

/// Whose services and routes count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Those of the workload's own namespace.
    Own,
    Anybodys,
}

/// Two worlds, one after the other.
pub(super) struct Between<'a> {
    before: &'a World,
    after: &'a World,
    /// Where routes lead that came, went or changed.
    rerouted: HashSet<&'a ObjectKey>,
    /// The same with the namespace of the route.
    rerouted_by: HashSet<(&'a Str, &'a ObjectKey)>,
}

impl<'a> Between<'a> {
    pub(super) fn new(before: &'a World, after: &'a World) -> Self {
        let routes = Diff::between(&before.mesh.routes, &after.mesh.routes, |it| &it.key);
        let changed = routes.gone.iter().chain(&routes.come);
        let led = changed.flat_map(|route| led_to(route).map(move |service| (*route, service)));
        let (mut rerouted, mut rerouted_by) = (HashSet::new(), HashSet::new());
        for (route, service) in led {
            rerouted.insert(service);
            rerouted_by.insert((&route.key.namespace, service));
        }
        Self { before, after, rerouted, rerouted_by }
    }

    /// Connections to the workload are judged in `after` as they were in `before`, as far as it goes by what these say.
    pub(super) fn is_judged_alike(&self, uid: &str, whose: Whose) -> bool {
        let (old, new) = (&self.before.indexes, &self.after.indexes);
        let (Some(was), Some(is)) = (old.workload(uid), new.workload(uid)) else { return false };
        was == is
            && old.workload_policies(uid) == new.workload_policies(uid)
            && self.binding(&is.waypoint)
            && self.ways(old.ways(uid), new.ways(uid), whose, &is.key.namespace)
    }

    /// The services that lead to a workload, and the routes that may stand in for their policies.
    fn ways(&self, old: &[Way], new: &[Way], whose: Whose, own: &Str) -> bool {
        let rerouted = |way: &Way| match whose {
            Whose::Own => self.rerouted_by.contains(&(own, &way.service)),
            Whose::Anybodys => self.rerouted.contains(&way.service),
        };
        let counts = |way: &&Way| whose == Whose::Anybodys || way.service.namespace == *own;
        old.iter().filter(counts).eq(new.iter().filter(counts))
            && !old.iter().chain(new).any(rerouted)
            && new.iter().filter(counts).all(|way| self.service(&way.service))
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

fn led_to(route: &HttpRoute) -> impl Iterator<Item = &ObjectKey> {
    let backends = route.rules.iter().flat_map(|rule| &rule.backends);
    backends.filter_map(|backend| match &backend.target {
        BackendRef::Service { service, .. } => Some(service),
        BackendRef::Invalid { .. } => None,
    })
}
