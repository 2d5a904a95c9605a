//! Since when what a workload's inbound connections are judged by is the same.
//!
//! Ten thousand open connections must not be judged anew because a pod elsewhere got ready. Between two worlds it is
//! asked, for a workload, whether anything changed that a gate of it reads: itself (labels, PeerAuthentication,
//! waypoint), its policies, the services that lead to it, their waypoints and the policies of these. What is compared
//! errs towards "changed".

use std::sync::Arc;

use super::World;
use super::touched::Touched;

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
    touched: Touched<'a>,
}

impl<'a> Between<'a> {
    /// Only what concerns workloads that are watched is asked for later.
    pub(super) fn new(
        before: &'a World,
        after: &'a World,
        is_watched: &'a dyn Fn(&str) -> bool,
    ) -> Self {
        Self { before, after, touched: Touched::between(before, after, is_watched) }
    }

    /// Connections to the workload are judged in `after` as they were in `before`, as far as it goes by what these say.
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
