//! The order of evaluation (Istio, "Authorization policy precedence"): what cannot be understood, tokens, DENY, ALLOW. AUDIT and
//! dry-run policies decide nothing; what they have to say goes into notes.

use super::facts::Facts;
use super::{Denial, rule};
use crate::base::{ObjectKey, PolicyEffect, PolicyNote};
use crate::model::{Action, AuthorizationPolicy};
use crate::world::{PolicyList, PolicySet};

/// Notes of one decision at the most, so that a thousand policies in dry-run do not fill the log.
const MAX_NOTES: usize = 8;
/// Names in the text of a refusal at the most.
const MAX_NAMES: usize = 5;

/// The ALLOW policy that matched, `None` where no ALLOW policy applies, or the refusal.
pub(super) fn evaluate<'a>(
    set: &'a PolicySet,
    facts: &Facts<'_>,
    notes: &mut Vec<PolicyNote>,
) -> Result<Option<&'a ObjectKey>, Denial> {
    let decided = decide(set, facts);
    if set.has_notes {
        take_notes(set, facts, matches!(decided, Ok(Some(_))), notes);
    }
    decided
}

fn decide<'a>(set: &'a PolicySet, facts: &Facts<'_>) -> Result<Option<&'a ObjectKey>, Denial> {
    if let Some(broken) = set.broken.first() {
        let why = broken.broken.as_deref().unwrap_or_default();
        return Err(Denial::new(format!("{broken} cannot be understood and so denies: {why}")));
    }
    // As in Envoy, who somebody is comes before what he may.
    if let Some(policy) = set.authenticate.iter().find(|policy| matches(policy, facts)) {
        let why = format!("{policy}: the request brings a token, and Isthmus cannot verify tokens");
        return Err(Denial { unauthenticated: true, ..Denial::new(why) });
    }
    if let Some(policy) = matching(&set.deny, facts).find(|policy| !policy.dry_run) {
        return Err(Denial::new(format!("AuthorizationPolicy {} denies (DENY rule)", policy.key)));
    }
    if set.allow.iter().all(|policy| policy.dry_run) {
        return Ok(None);
    }
    match matching(&set.allow, facts).find(|policy| !policy.dry_run) {
        Some(policy) => Ok(Some(&policy.key)),
        None => Err(no_allow(set)),
    }
}

/// `allowed`: an enforced ALLOW policy matched.
fn take_notes(set: &PolicySet, facts: &Facts<'_>, allowed: bool, notes: &mut Vec<PolicyNote>) {
    for policy in matching(&set.audit, facts) {
        note(policy, PolicyEffect::Audit, notes);
    }
    for policy in matching(&set.deny, facts).filter(|policy| policy.dry_run) {
        note(policy, PolicyEffect::WouldDeny, notes);
    }
    let mut admitted = allowed;
    for policy in matching(&set.allow, facts).filter(|policy| policy.dry_run) {
        admitted = true;
        note(policy, PolicyEffect::WouldAllow, notes);
    }
    if !admitted {
        // Enforced, they would be ALLOW policies of which none matches: that denies.
        for policy in set.allow.iter().filter(|policy| policy.dry_run) {
            note(policy, PolicyEffect::WouldDeny, notes);
        }
    }
}

fn note(policy: &AuthorizationPolicy, effect: PolicyEffect, notes: &mut Vec<PolicyNote>) {
    let note = PolicyNote { policy: policy.key.clone(), effect };
    if notes.len() < MAX_NOTES && !notes.contains(&note) {
        notes.push(note);
    }
}

fn matching<'p, 'f, 'x>(
    policies: &'p PolicyList,
    facts: &'f Facts<'x>,
) -> impl Iterator<Item = &'p AuthorizationPolicy> + use<'p, 'f, 'x> {
    let candidates = policies.candidates(facts.principals.iter());
    candidates.filter(|policy| matches(policy, facts))
}

fn matches(policy: &AuthorizationPolicy, facts: &Facts<'_>) -> bool {
    let deny = policy.action == Action::Deny;
    policy.rules.iter().any(|rule| rule::matches(rule, facts, deny))
}

fn no_allow(set: &PolicySet) -> Denial {
    let mut enforced = set.allow.iter().filter(|policy| !policy.dry_run);
    let names: Vec<String> =
        enforced.by_ref().take(MAX_NAMES).map(|policy| policy.key.to_string()).collect();
    let more = match enforced.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Denial::new(format!("no ALLOW AuthorizationPolicy matches ({}{more})", names.join(", ")))
}
