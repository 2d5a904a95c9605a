//! The services that routes are translated over, and which of them a route has looked at.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::services;
use crate::base::ObjectKey;
use crate::model::Service;
use crate::source::Objects;
use crate::source::objects::Gateway;

/// For one route.
pub(super) struct Services<'a> {
    kubernetes: &'a services::Services,
    entries: &'a [Arc<Service>],
    looked_at: RefCell<BTreeSet<ObjectKey>>,
    looked_at_entries: Cell<bool>,
    looked_at_gateways: Cell<bool>,
}

/// What a route has looked at, found or not.
#[derive(Default)]
pub(super) struct LookedAt {
    /// By key.
    services: BTreeSet<ObjectKey>,
    others: Others,
}

/// What is looked at, or changed, as a whole.
#[derive(Clone, Copy, Default)]
pub(super) struct Others {
    /// ServiceEntries, by what they say.
    pub(super) entries: bool,
    pub(super) gateways: bool,
}

impl<'a> Services<'a> {
    pub(super) fn new(kubernetes: &'a services::Services, entries: &'a [Arc<Service>]) -> Self {
        Self {
            kubernetes,
            entries,
            looked_at: RefCell::default(),
            looked_at_entries: Cell::new(false),
            looked_at_gateways: Cell::new(false),
        }
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

    /// A Gateway, which only complaints look at.
    pub(super) fn gateway(&self, objects: &'a Objects, key: &ObjectKey) -> Option<&'a Gateway> {
        self.looked_at_gateways.set(true);
        objects.get(key)
    }

    pub(super) fn looked_at(self) -> LookedAt {
        let (entries, gateways) = (self.looked_at_entries.get(), self.looked_at_gateways.get());
        let others = Others { entries, gateways };
        LookedAt { services: self.looked_at.into_inner(), others }
    }
}

impl LookedAt {
    /// Whether services of these keys, some entries, or some Gateways, being others than they were may make another route.
    pub(super) fn concern(&self, services: &BTreeSet<&ObjectKey>, changed: Others) -> bool {
        self.others.entries && changed.entries
            || self.others.gateways && changed.gateways
            || services.iter().any(|key| self.services.contains(*key))
    }
}
