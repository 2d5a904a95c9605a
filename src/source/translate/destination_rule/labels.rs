//! Labels that rules compare (`failoverPriority`), of clients and of endpoints. Only these are kept.

use std::collections::BTreeSet;

use crate::base::{LabelMap, Str};
use crate::model::{Locality, Service};

/// The labels that are compared, and what is known without any label.
#[derive(Default, PartialEq)]
pub(in crate::source::translate) struct Compared {
    names: BTreeSet<Str>,
    cluster: Str,
}

impl Compared {
    pub(super) fn new(names: BTreeSet<Str>, cluster: &Str) -> Self {
        Self { names, cluster: cluster.clone() }
    }

    /// Those of `labels` that are compared. Where a workload runs is what its node says, whatever its labels say (Istio,
    /// `failoverPriority`).
    pub(in crate::source::translate) fn of<'a>(
        &self,
        label: impl Fn(&str) -> Option<&'a str>,
        locality: &Locality,
        node: &Str,
    ) -> LabelMap {
        let mut compared = LabelMap::new();
        for name in &self.names {
            let value = match self.of_place(name, locality, node) {
                Some(value) => Some(value),
                None => label(name).map(Str::from),
            };
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                compared.insert(name.clone(), value);
            }
        }
        compared
    }

    /// Reduces the labels of a service's endpoints to those that are compared.
    pub(in crate::source::translate) fn reduce(&self, service: &mut Service) {
        for endpoint in &mut service.endpoints {
            if self.names.is_empty() {
                endpoint.labels.clear();
                continue;
            }
            let own = std::mem::take(&mut endpoint.labels);
            let label = |name: &str| own.get(name).map(Str::as_str);
            endpoint.labels = self.of(label, &endpoint.locality, &endpoint.node);
        }
    }

    fn of_place(&self, name: &str, locality: &Locality, node: &Str) -> Option<Str> {
        Some(match name {
            "topology.kubernetes.io/region" => locality.region.clone(),
            "topology.kubernetes.io/zone" => locality.zone.clone(),
            "topology.istio.io/subzone" => locality.subzone.clone(),
            "topology.istio.io/cluster" => self.cluster.clone(),
            "kubernetes.io/hostname" => node.clone(),
            _ => return None,
        })
    }
}

/// All labels of an object.
pub(in crate::source::translate) fn all_of<'a>(
    labels: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> LabelMap {
    labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}
