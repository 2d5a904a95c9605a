//! Whether the inputs to the decisions about a workload's inbound connections are unchanged.
//!
//! Ten thousand open connections must not be re-evaluated because a pod elsewhere became ready. Between two worlds,
//! this module determines for a workload whether anything changed that its gate reads: itself (labels,
//! PeerAuthentication, waypoint), its policies, the services that lead to it, their waypoints and the policies of
//! these. The comparison errs towards "changed".

use std::sync::Arc;

use super::World;
use super::touched::Touched;

/// The services and routes that count.
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
    touched: Touched<'a>,
}

impl<'a> Between<'a> {
    /// Only what affects watched workloads is computed later.
    pub(super) fn new(
        before: &'a World,
        after: &'a World,
        is_watched: &'a dyn Fn(&str) -> bool,
    ) -> Self {
        Self { before, after, touched: Touched::between(before, after, is_watched) }
    }

    /// The decisions about connections to the workload are the same in `after` as in `before`, as far as these inputs
    /// go.
    pub(super) fn is_judged_alike(&self, uid: &str, whose: Whose) -> bool {
        let (old, new) = (&self.before.indexes, &self.after.indexes);
        let (Some(was), Some(is)) = (old.workload(uid), new.workload(uid)) else { return false };
        let namespace = &is.key.namespace;
        let policies = || old.workload_policies(uid) == new.workload_policies(uid);
        (Arc::ptr_eq(was, is) || was == is)
            && !self.touched.is_bound(&is.waypoint)
            && !self.touched.leads_to(uid, (whose == Whose::Own).then_some(namespace))
            && (!self.touched.has_policies_of(namespace) || policies())
    }
}
