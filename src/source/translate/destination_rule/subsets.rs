//! `subsets`: endpoints with certain labels, and policies that replace those of the rule field by field.

use std::collections::BTreeMap;

use super::reading::Reading;
use super::{Rules, Said};
use crate::base::{Bits, Str};
use crate::model;
use crate::source::objects::{self, Labels, RuleTrafficPolicy, selects};
use crate::traffic::{Named, Policy, Subset};

/// So many may one rule have: each costs every endpoint of the service a bit.
pub(in crate::source::translate) const MOST: usize = 128;

/// What one rule says of one subset.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SubsetSaid {
    pub(super) name: Str,
    labels: Labels,
    own: Own,
    /// Ports with settings of the subset, which inherit nothing.
    ports: BTreeMap<u16, Policy>,
}

/// The policy of a subset for all ports, and which fields it gives.
#[derive(Clone, Debug, Default, PartialEq)]
struct Own {
    policy: Policy,
    load_balancer: bool,
    connection_pool: bool,
    outlier_detection: bool,
    retry_budget: bool,
}

impl Reading<'_, '_> {
    /// Those that are right, each name once.
    pub(super) fn subsets(&mut self, written: &[objects::Subset]) -> Vec<SubsetSaid> {
        let mut all: Vec<SubsetSaid> = Vec::new();
        for (index, subset) in written.iter().enumerate() {
            let within = format!("spec.subsets[{index}]");
            if index >= MOST {
                let reason = format!("only the first {MOST} subsets of a rule are carried out");
                self.error(&within, reason);
                break;
            }
            let known = all.iter().any(|it| it.name == subset.name.as_str());
            if known || subset.name.is_empty() {
                let reason = match known {
                    true => {
                        format!("{:?} is the name of an earlier subset, which holds", subset.name)
                    }
                    false => "is missing, so nothing can lead to the subset".to_owned(),
                };
                self.error(&format!("{within}.name"), reason);
                continue;
            }
            all.push(self.subset(&within, subset));
        }
        all
    }

    fn subset(&mut self, within: &str, written: &objects::Subset) -> SubsetSaid {
        let objects::Subset { name, labels, traffic_policy } = written;
        let (mut own, mut ports) = (Own::default(), BTreeMap::new());
        if let Some(policy) = traffic_policy {
            let said = self.policies(&format!("{within}.trafficPolicy"), policy);
            own = Own::of(said.rest, policy);
            ports = said.ports;
        }
        SubsetSaid { name: name.as_str().into(), labels: labels.clone(), own, ports }
    }
}

impl Own {
    fn of(policy: Policy, written: &RuleTrafficPolicy) -> Self {
        Self {
            policy,
            load_balancer: written.load_balancer.is_some(),
            connection_pool: written.connection_pool.is_some(),
            outlier_detection: written.outlier_detection.is_some(),
            retry_budget: written.retry_budget.is_some(),
        }
    }

    /// The rule's policy with the fields of the subset in place of its own, each as a whole.
    fn over(&self, rule: &Policy) -> Policy {
        fn either<T: Clone>(given: bool, own: &Option<T>, rule: &Option<T>) -> Option<T> {
            if given { own.clone() } else { rule.clone() }
        }
        let Self { policy, load_balancer, connection_pool, outlier_detection, retry_budget } = self;
        let Policy { by, balancer, outliers, limits, budget, locality, warmup } = policy;
        let is_own = *load_balancer || *connection_pool || *outlier_detection || *retry_budget;
        Policy {
            by: if is_own { by.clone() } else { rule.by.clone() },
            locality: either(*load_balancer, locality, &rule.locality),
            warmup: either(*load_balancer, warmup, &rule.warmup),
            budget: either(*retry_budget, budget, &rule.budget),
            balancer: either(*load_balancer, balancer, &rule.balancer),
            outliers: either(*outlier_detection, outliers, &rule.outliers),
            limits: either(*connection_pool, limits, &rule.limits),
        }
    }
}

impl SubsetSaid {
    fn on(&self, rule: &Said, port: u16) -> Policy {
        match self.ports.get(&port) {
            // No port has a budget of its own.
            Some(policy) => Policy {
                budget: policy.budget.clone().or_else(|| rule.on(port).budget.clone()),
                ..policy.clone()
            },
            None => self.own.over(rule.on(port)),
        }
    }

    pub(super) fn policies(&self) -> impl Iterator<Item = &Policy> {
        std::iter::once(&self.own.policy).chain(self.ports.values())
    }
}

impl Rules {
    /// The subsets of a rule for the clients of a service.
    pub(super) fn subsets(
        &self,
        service: &model::Service,
        said: &Said,
        selections: &Selections<'_>,
    ) -> Named {
        let named = said.subsets.iter().map(|subset| {
            let name = &subset.name;
            let ports = self.destinations(service, Some(name), |port| subset.on(said, port));
            (name.clone(), Subset { labels: selections.number(&subset.labels), ports })
        });
        named.collect()
    }
}

/// The labels of all subsets of one host, numbered: which of them select an endpoint is part of the endpoint.
#[derive(Default)]
pub(in crate::source::translate) struct Selections<'a>(BTreeMap<&'a Labels, u32>);

impl<'a> Selections<'a> {
    /// Of the rules that hold.
    pub(super) fn of(rules: impl Iterator<Item = &'a Said>) -> Self {
        let mut numbers = BTreeMap::new();
        let subsets = rules.flat_map(|said| &said.subsets);
        for labels in subsets.map(|subset| &subset.labels).filter(|labels| !labels.is_empty()) {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            numbers.entry(labels).or_insert(next);
        }
        Self(numbers)
    }

    /// `None`: labels that select everything.
    fn number(&self, labels: &Labels) -> Option<u32> {
        self.0.get(labels).copied()
    }

    /// Those that select an endpoint with these labels.
    pub(in crate::source::translate) fn selecting(&self, labels: Option<&Labels>) -> Bits {
        let all = self.0.iter().filter(|(selection, _)| selects(selection, labels));
        all.map(|(_, number)| *number).collect()
    }
}

/// Adds the subsets of a younger rule with the same host, as Istio does. Returns those whose names the older one has already.
pub(super) fn merge(older: &mut Said, younger: Said) -> Vec<Str> {
    let mut left = Vec::new();
    for subset in younger.subsets {
        match older.subsets.iter().any(|it| it.name == subset.name) {
            true => left.push(subset.name),
            false => older.subsets.push(subset),
        }
    }
    left
}
