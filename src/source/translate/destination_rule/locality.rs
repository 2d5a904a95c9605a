//! `localityLbSetting`, of rules and of MeshConfig.
//!
//! What holds for a service (Istio, `GetEffectiveLbSetting`): the rule's setting in its entirety, else the Service's
//! `trafficDistribution`, else MeshConfig's setting, which is on unless it says otherwise. Failover needs outlier detection, since nothing
//! else finds an endpoint unhealthy that Kubernetes calls ready.

use std::cmp::Reverse;

use crate::base::Str;
use crate::model::{Preference, Service};
use crate::source::objects::LocalitySetting;
use crate::traffic::{Distribute, Failover, LocalityPolicy, PlacePattern, Policy};

/// What all shares of one rule must add up to.
const WHOLE: u32 = 100;

/// A field, and what is wrong with it.
pub(super) type Fault = (String, String);

/// What MeshConfig says where it says nothing.
pub(super) fn default() -> LocalityPolicy {
    LocalityPolicy::Failover(Failover { by_place: true, ..Failover::default() })
}

/// Reads a setting; what is wrong with it goes to `faults`.
pub(super) fn read(written: &LocalitySetting, faults: &mut Vec<Fault>) -> LocalityPolicy {
    let LocalitySetting { distribute, failover, failover_priority, enabled } = written;
    let given = [
        ("distribute", !distribute.is_empty()),
        ("failover", !failover.is_empty()),
        ("failoverPriority", !failover_priority.is_empty()),
    ];
    if *enabled == Some(false) {
        return LocalityPolicy::Off;
    }
    if !distribute.is_empty() {
        for (field, _) in given.into_iter().skip(1).filter(|(_, is_given)| *is_given) {
            faults.push((field.to_owned(), "has no effect beside distribute".to_owned()));
        }
        let rules = distribute.iter().enumerate().map(|(index, it)| {
            let within = format!("distribute[{index}]");
            shares(&within, it, faults)
        });
        return LocalityPolicy::Distribute(rules.collect());
    }
    for (index, region) in failover.iter().enumerate() {
        if region.from.contains('*') || region.to.contains('*') || region.from == region.to {
            let reason = "must be two regions, without wildcards";
            faults.push((format!("failover[{index}]"), reason.to_owned()));
        }
    }
    let label = |text: &String| match text.split_once('=') {
        Some((name, value)) => (name.into(), Some(value.into())),
        None => (text.as_str().into(), None),
    };
    LocalityPolicy::Failover(Failover {
        labels: failover_priority.iter().map(label).collect(),
        // Beside failoverPriority only where failover is given, as in Istio.
        by_place: failover_priority.is_empty() || !failover.is_empty(),
        regions: failover.iter().map(|it| (Str::from(&it.from), Str::from(&it.to))).collect(),
    })
}

fn shares(
    within: &str,
    written: &crate::source::objects::Distribute,
    faults: &mut Vec<Fault>,
) -> Distribute {
    let all: u64 = written.to.values().map(|share| u64::from(*share)).sum();
    if all != u64::from(WHOLE) || written.to.values().any(|share| *share == 0) {
        let reason = format!(
            "must be shares of at least 1 that add up to {WHOLE}; they are taken as relative to each other"
        );
        faults.push((format!("{within}.to"), reason));
    }
    let to = written.to.iter().map(|(place, share)| (PlacePattern::of(place), *share));
    let mut to: Vec<(PlacePattern, u32)> = to.collect();
    // Several may match a place. Istio leaves it to chance which one does.
    to.sort_by_key(|(place, _)| Reverse(place.specific()));
    Distribute { from: PlacePattern::of(&written.from), to }
}

/// Puts in force what holds for the service.
pub(super) fn settle(policy: &mut Policy, service: &Service, of_mesh: &LocalityPolicy) {
    let has_outliers = policy.outliers.is_some();
    policy.locality = match policy.locality.take().map(|it| *it) {
        Some(LocalityPolicy::Failover(_)) if !has_outliers => Some(LocalityPolicy::Off),
        Some(own) => Some(own),
        None if service.balancing.preference != Preference::None => None,
        None => match of_mesh {
            LocalityPolicy::Distribute(_) => Some(of_mesh.clone()),
            LocalityPolicy::Failover(_) if has_outliers => Some(of_mesh.clone()),
            _ => None,
        },
    }
    .map(Box::new);
}

/// The labels that a setting compares.
pub(super) fn compared(policy: &LocalityPolicy) -> impl Iterator<Item = &Str> {
    let labels = match policy {
        LocalityPolicy::Failover(failover) => &failover.labels[..],
        _ => &[],
    };
    labels.iter().map(|(name, _)| name)
}
