//! The services that routes are translated over, and which of them a route has looked at.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::services;
use crate::base::ObjectKey;
use crate::model::Service;

/// For one route.
pub(super) struct Services<'a> {
    kubernetes: &'a services::Services,
    entries: &'a [Arc<Service>],
    looked_at: RefCell<BTreeSet<ObjectKey>>,
    looked_at_entries: Cell<bool>,
}

/// What a route has looked at, found or not.
#[derive(Default)]
pub(super) struct LookedAt {
    /// By key.
    services: BTreeSet<ObjectKey>,
    /// ServiceEntries, by what they say.
    entries: bool,
}

impl<'a> Services<'a> {
    pub(super) fn new(kubernetes: &'a services::Services, entries: &'a [Arc<Service>]) -> Self {
        let (looked_at, looked_at_entries) = (RefCell::default(), Cell::new(false));
        Self { kubernetes, entries, looked_at, looked_at_entries }
    }

    /// A Service of Kubernetes.
    pub(super) fn kubernetes(&self, key: &ObjectKey) -> Option<&'a Service> {
        self.looked_at.borrow_mut().insert(key.clone());
        self.kubernetes.get(key).map(|service| &**service)
    }

    /// The hosts of all ServiceEntries.
    pub(super) fn entries(&self) -> impl Iterator<Item = &'a Service> + use<'a> {
        self.looked_at_entries.set(true);
        self.entries.iter().map(|service| &**service)
    }

    /// A service of either kind.
    pub(super) fn get(&self, key: &ObjectKey) -> Option<&'a Service> {
        self.kubernetes(key).or_else(|| self.entries().find(|service| service.key == *key))
    }

    pub(super) fn looked_at(self) -> LookedAt {
        let entries = self.looked_at_entries.get();
        LookedAt { services: self.looked_at.into_inner(), entries }
    }
}

impl LookedAt {
    /// Whether services of these keys, or some entries, being others than they were may make another route.
    pub(super) fn concern(&self, services: &BTreeSet<&ObjectKey>, entries: bool) -> bool {
        self.entries && entries || services.iter().any(|key| self.services.contains(*key))
    }
}
