//! What the regular expressions of a namespace's objects weigh together, and which objects are beyond that: the youngest, so that
//! every agent and the controller leave out the same ones, in whatever order they have heard of them. Nothing of such an object is
//! in force, as if it did not exist, and its status says so. A policy that denies has no regular expressions.

use std::collections::BTreeMap;

use super::{Held, Id, Objects};
use crate::base::{MAX_WEIGHT, ObjectKey, Str};
use crate::source::objects::{Kind, WITH_REGEXES};
use crate::source::{Complaint, Condition, ConditionReason, ConditionType, Origin, Severity};

/// In bytes: some hundreds of expressions of a usual kind.
pub(super) const OF_NAMESPACE: usize = 64 * MAX_WEIGHT;

/// How such a complaint is known.
const OVER: &str = "the regular expressions of the namespace may take";

impl Objects {
    /// Takes note of an object of the namespace that weighs this, in place of `before`. Returns the objects that are in force, or not
    /// in force any more, because of it.
    pub(super) fn reweigh(
        &mut self,
        namespace: &Str,
        before: Option<&Held>,
        weight: usize,
    ) -> Vec<Id> {
        let before = before.map_or(0, |held| held.object.weight());
        if before == 0 && weight == 0 {
            return Vec::new();
        }
        let known = self.weights.entry(namespace.clone()).or_default();
        let total = (*known).saturating_sub(before) + weight;
        // Within its budget as it was and as it is now: all are in force.
        let is_plain = (*known).max(total) <= OF_NAMESPACE;
        *known = total;
        if total == 0 {
            self.weights.remove(namespace);
        }
        if is_plain { Vec::new() } else { self.admit(namespace) }
    }

    /// The same for objects that were taken together.
    pub(super) fn weigh_all(&mut self) {
        self.weights = BTreeMap::new();
        for ((_, key), held) in &mut self.held {
            held.over = false;
            let weight = held.object.weight();
            if weight > 0 {
                *self.weights.entry(key.namespace.clone()).or_default() += weight;
            }
        }
        let with_some: Vec<Str> = self.weights.keys().cloned().collect();
        with_some.iter().for_each(|namespace| _ = self.admit(namespace));
    }

    /// Decides which objects of the namespace are in force, the oldest first. The expressions of the others are laid down, so that no
    /// number of them takes more memory than what is written in them. Returns those of which that has changed.
    fn admit(&mut self, namespace: &Str) -> Vec<Id> {
        let mut candidates = Vec::new();
        for kind in WITH_REGEXES {
            let first = (kind, ObjectKey::new(namespace.clone(), ""));
            let own = self.held.range(first..);
            let own = own.take_while(|((of, key), _)| *of == kind && key.namespace == *namespace);
            candidates.extend(own.filter_map(|((_, key), held)| {
                let (regexes, created) = held.object.regexes()?;
                let weight = regexes.weight();
                (weight > 0).then(|| (created, key.clone(), kind, weight))
            }));
        }
        candidates.sort();
        let (mut total, mut changed) = (0, Vec::new());
        for (_, key, kind, weight) in candidates {
            let over = total + weight > OF_NAMESPACE;
            if !over {
                total += weight;
            }
            let id = (kind, key);
            let Some(held) = self.held.get_mut(&id) else { continue };
            match held.object.regexes() {
                Some((regexes, _)) if over => regexes.lay_down(),
                Some((regexes, _)) => regexes.take_up(),
                None => {}
            }
            if held.over == over {
                continue;
            }
            held.over = over;
            let origin = held.origin.clone();
            match over {
                true => self.complaints.push(complaint(kind, &id.1, weight, origin)),
                false => self.complaints.retain(|it| !is_of(it, &id)),
            }
            changed.push(id);
        }
        changed
    }
}

fn complaint(kind: Kind, key: &ObjectKey, weight: usize, origin: Option<Origin>) -> Complaint {
    let reason = match kind.is_route() {
        true => ConditionReason::UnsupportedValue,
        false => ConditionReason::Invalid,
    };
    Complaint {
        origin,
        kind: kind.name().into(),
        object: Some(key.clone()),
        field: "spec".to_owned(),
        severity: Severity::Error,
        reason: format!(
            "{OVER} {} MiB of memory together, which is not enough for the {} KiB of this object's: older objects come first, and \
             nothing of this one is in force",
            OF_NAMESPACE >> 20,
            weight.div_ceil(1024),
        ),
        condition: Some(Condition::of(ConditionType::Accepted, reason)),
        topic: None,
    }
}

fn is_of(complaint: &Complaint, (kind, key): &Id) -> bool {
    complaint.kind == kind.name()
        && complaint.object.as_ref() == Some(key)
        && complaint.reason.starts_with(OVER)
}
