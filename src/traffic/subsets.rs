//! Subsets of a service's endpoints (Istio, DestinationRule `subsets`). Which endpoints they have is resolved in the translation:
//! an endpoint knows the selections of labels that select it, and a subset the number of its selection.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Destination, Ports};
use crate::base::{Bits, Str};

/// Subsets by their names.
pub type Named = BTreeMap<Str, Subset>;

/// One subset, as clients under one rule see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Subset {
    /// The number of its selection of labels among those of the service; `None`: it has all endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<u32>,
    /// The policies of its ports. Ports without one are left out.
    #[serde(skip_serializing_if = "Ports::is_empty")]
    pub ports: Ports,
}

impl Subset {
    /// Whether it has an endpoint that these selections select.
    pub fn has(&self, selected_by: &Bits) -> bool {
        self.labels.is_none_or(|number| selected_by.contains(number))
    }

    pub fn on(&self, port: u16) -> Option<&Arc<Destination>> {
        self.ports.get(&port)
    }
}

/// The subsets of a service, by the namespace of the clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Subsets {
    /// For clients of all other namespaces.
    #[serde(skip_serializing_if = "Named::is_empty")]
    everyone: Named,
    /// For clients of these, instead; perhaps none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    namespaces: BTreeMap<Str, Named>,
}

impl Subsets {
    pub(super) fn is_empty(&self) -> bool {
        self.everyone.is_empty() && self.namespaces.is_empty()
    }

    pub(super) fn set(&mut self, clients: Option<Str>, subsets: Named) {
        match clients {
            // Nobody has any, so that these need not be told apart.
            Some(_) if subsets.is_empty() && self.everyone.is_empty() => {}
            Some(namespace) => _ = self.namespaces.insert(namespace, subsets),
            None => self.everyone = subsets,
        }
    }

    /// For each kind of clients.
    pub(super) fn all(&self) -> impl Iterator<Item = &Named> {
        std::iter::once(&self.everyone).chain(self.namespaces.values())
    }

    pub(super) fn of_client(&self, namespace: &str) -> &Named {
        self.namespaces.get(namespace).unwrap_or(&self.everyone)
    }

    pub(super) fn inherit(&mut self, before: &Self) {
        inherit(&mut self.everyone, &before.everyone);
        for (namespace, subsets) in &mut self.namespaces {
            if let Some(before) = before.namespaces.get(namespace) {
                inherit(subsets, before);
            }
        }
    }
}

pub(super) fn inherit(subsets: &mut Named, before: &Named) {
    for (name, subset) in subsets {
        if let Some(before) = before.get(name) {
            super::inherit(&mut subset.ports, &before.ports);
        }
    }
}
