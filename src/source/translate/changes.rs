//! What has to be translated anew after some objects changed.

use std::collections::BTreeSet;

use super::labels;
use crate::base::{ObjectKey, Str};
use crate::source::objects::{Affects, Kind};

/// More than what was asked for, rather than less: what is looked at in vain costs time only.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Waypoints, policies and levels of PeerAuthentication.
    pub(super) frame: bool,
    pub(super) all_pods: bool,
    pub(super) all_services: bool,
    pub(super) pods: BTreeSet<ObjectKey>,
    /// All pods of these namespaces.
    pub(super) pods_of: BTreeSet<Str>,
    /// All pods on these nodes.
    pub(super) nodes: BTreeSet<Str>,
    pub(super) services: BTreeSet<ObjectKey>,
    /// All services of these namespaces.
    pub(super) services_of: BTreeSet<Str>,
    pub(super) slices: BTreeSet<ObjectKey>,
    /// Gateways, beside what is bound to them.
    pub(super) gateways: bool,
    /// All hosts of ServiceEntries.
    pub(super) entries: bool,
    pub(super) workload_entries: bool,
    pub(super) all_routes: bool,
    pub(super) routes: BTreeSet<(Kind, ObjectKey)>,
    pub(super) virtual_services: bool,
    /// What is said of kinds that are not carried out.
    pub(super) unserved: bool,
    /// What is said of labels of kinds that are checked as a whole.
    pub(super) labels: bool,
}

/// What must be translated again because the frame changed.
#[derive(Debug, Default)]
pub(super) struct Affected {
    /// Every workload and every service: waypoints changed.
    pub(super) all: bool,
    /// Workloads of these namespaces.
    pub(super) workloads_of: BTreeSet<Str>,
    /// Every service: what DestinationRules or BackendTLSPolicies say changed.
    pub(super) services: bool,
    /// Every ServiceEntry: who sees them changed.
    pub(super) entries: bool,
}

impl Changes {
    pub(super) fn everything() -> Self {
        Self {
            frame: true,
            all_pods: true,
            all_services: true,
            entries: true,
            all_routes: true,
            virtual_services: true,
            unserved: true,
            labels: true,
            ..Self::default()
        }
    }

    pub(super) fn of(changed: &BTreeSet<(Kind, ObjectKey)>) -> Self {
        let mut changes = Self::default();
        for (kind, key) in changed {
            changes.add(*kind, key);
        }
        changes
    }

    fn add(&mut self, kind: Kind, key: &ObjectKey) {
        self.unserved |= kind.is_unserved();
        self.labels |= labels::is_checked_as_a_whole(kind);
        match kind.row().affects {
            Affects::Nothing => {}
            Affects::Frame => self.frame = true,
            Affects::Namespace => {
                self.frame = true;
                self.entries = true;
                self.pods_of.insert(key.name.clone());
                self.services_of.insert(key.name.clone());
            }
            Affects::Node => _ = self.nodes.insert(key.name.clone()),
            Affects::Pod => _ = self.pods.insert(key.clone()),
            Affects::Service => _ = self.services.insert(key.clone()),
            Affects::EndpointSlice => _ = self.slices.insert(key.clone()),
            Affects::WorkloadEntry => {
                self.entries = true;
                self.workload_entries = true;
                self.services_of.insert(key.namespace.clone());
            }
            Affects::ServiceEntry => self.entries = true,
            Affects::Gateway => {
                self.frame = true;
                self.gateways = true;
            }
            Affects::Route => _ = self.routes.insert((kind, key.clone())),
            Affects::VirtualService => self.virtual_services = true,
        }
    }

    /// The frame is not what it was.
    pub(super) fn reframe(&mut self, affected: Affected, root_namespace: &str) {
        if affected.all {
            self.all_pods = true;
            self.all_services = true;
            self.entries = true;
        }
        self.entries |= affected.entries;
        if affected.services {
            self.all_services = true;
            self.entries = true;
        }
        if affected.workloads_of.contains(root_namespace) {
            self.all_pods = true;
        }
        self.pods_of.extend(affected.workloads_of);
    }
}
