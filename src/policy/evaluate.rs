//! The order of evaluation (Istio, "Authorization policy precedence"): what cannot be understood, DENY, ALLOW.

use std::cell::OnceCell;
use std::sync::Arc;

use super::path::Readings;
use super::rule::{self, Principals};
use super::{Connection, Denial, Request};
use crate::base::ObjectKey;
use crate::model::{Action, AuthorizationPolicy};
use crate::world::PolicySet;

/// What rules are compared with.
pub(super) struct Facts<'a> {
    pub(super) principals: Principals<'a>,
    pub(super) connection: &'a Connection<'a>,
    pub(super) request: Option<RequestFacts<'a>>,
}

pub(super) struct RequestFacts<'a> {
    pub(super) request: &'a Request<'a>,
    /// Read when the first rule asks for it.
    path: OnceCell<Readings<'a>>,
}

impl<'a> Facts<'a> {
    /// With the client's principal alone.
    pub(super) fn new(connection: &'a Connection<'a>, request: Option<&'a Request<'a>>) -> Self {
        let request = request.map(|request| RequestFacts { request, path: OnceCell::new() });
        let principals = Principals { client: connection.client, waypoint: None };
        Self { principals, connection, request }
    }
}

impl<'a> RequestFacts<'a> {
    pub(super) fn path(&self) -> &Readings<'a> {
        self.path.get_or_init(|| Readings::of(self.request.path))
    }
}

/// The ALLOW policy that matched, `None` where no ALLOW policy applies, or the refusal. AUDIT and dry-run policies decide nothing.
pub(super) fn evaluate<'a>(
    set: &'a PolicySet,
    facts: &Facts<'_>,
) -> Result<Option<&'a ObjectKey>, Denial> {
    if let Some(broken) = set.broken.first() {
        let why = broken.broken.as_deref().unwrap_or_default();
        let key = &broken.key;
        return Err(Denial::new(format!(
            "AuthorizationPolicy {key} cannot be understood and so denies: {why}"
        )));
    }
    if let Some(policy) = enforced(&set.deny).find(|policy| matches(policy, facts)) {
        return Err(Denial::new(format!("AuthorizationPolicy {} denies (DENY rule)", policy.key)));
    }
    if enforced(&set.allow).next().is_none() {
        return Ok(None);
    }
    match enforced(&set.allow).find(|policy| matches(policy, facts)) {
        Some(policy) => Ok(Some(&policy.key)),
        None => Err(no_allow(set)),
    }
}

fn enforced(policies: &[Arc<AuthorizationPolicy>]) -> impl Iterator<Item = &AuthorizationPolicy> {
    policies.iter().map(|policy| &**policy).filter(|policy| !policy.dry_run)
}

fn matches(policy: &AuthorizationPolicy, facts: &Facts<'_>) -> bool {
    let deny = policy.action == Action::Deny;
    policy.rules.iter().any(|rule| rule::matches(rule, facts, deny))
}

fn no_allow(set: &PolicySet) -> Denial {
    let names: Vec<String> = enforced(&set.allow).map(|policy| policy.key.to_string()).collect();
    Denial::new(format!("no ALLOW AuthorizationPolicy matches ({})", names.join(", ")))
}
