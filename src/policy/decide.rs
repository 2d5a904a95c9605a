//! The order in which the policies of a set decide (Istio, "Authorization policy precedence"): what cannot be understood and who
//! asks come first, then CUSTOM, DENY, ALLOW. AUDIT and dry-run policies decide nothing; what they have to say goes into notes.
//!
//! Deciding is pure and never waits: open connections and streams are judged again, by the thousand, whenever policies change,
//! and that must not send a call to a provider each time. So there are two steps. [`PolicySet::asks`] names the providers that
//! CUSTOM policies ask, and [`PolicySet::decide`] has DENY and ALLOW decide, about the request as the providers made it. A client
//! that is refused whatever it sends costs a provider nothing: between the two, [`PolicySet::decide_connection`] has the policies
//! decide that look at the connection alone, as they do at layer 4.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::bearer::Bearer;
use super::dialled::Destination;
use super::facts::Facts;
use super::{Denial, PolicyList, PolicySet, looks, probe, rule};
use crate::base::{ObjectKey, PolicyEffect, PolicyNote};
use crate::model::{AuthorizationPolicy, ExtAuthz, Rule};

/// Notes of one decision at the most, so that a thousand policies in dry-run do not fill the log.
const MAX_NOTES: usize = 8;
/// Names in the text of a refusal at the most.
const MAX_NAMES: usize = 5;

impl PolicySet {
    /// The first step: the providers that must permit the request before [`decide`](Self::decide) is asked.
    pub fn asks(
        &self,
        facts: &Facts<'_>,
        notes: &mut Vec<PolicyNote>,
    ) -> Result<Vec<Arc<ExtAuthz>>, Denial> {
        let asks = authenticated(self, facts)
            .and_then(|()| askable(self))
            .and_then(|()| custom(self, facts));
        if asks.is_err() {
            self.note(facts, false, notes);
        }
        asks
    }

    /// Before a provider is asked: the refusal of a client whose connection is refused whatever it sends.
    pub fn decide_connection(
        &self,
        facts: &Facts<'_>,
        notes: &mut Vec<PolicyNote>,
    ) -> Result<(), Denial> {
        let decided = connected(self, facts);
        if decided.is_err() {
            self.note(facts, false, notes);
        }
        decided
    }

    /// The second step: the ALLOW policy that matched, `None` where no ALLOW policy applies, or the refusal. The facts are those
    /// of the request as the providers of the first step made it.
    pub fn decide<'a>(
        &'a self,
        facts: &Facts<'_>,
        notes: &mut Vec<PolicyNote>,
    ) -> Result<Option<&'a ObjectKey>, Denial> {
        let decided = second(self, facts);
        self.note(facts, matches!(decided, Ok(Some(_))), notes);
        decided
    }

    /// Whether what is enforced on the port needs the server's name ([`Connection::server_name`](super::Connection)). AUDIT and
    /// dry-run policies have nothing read, since they must not change what passes.
    pub fn reads_server_name(&self, to: Destination<'_>) -> bool {
        let mut rules = self.by_server_name.iter().flat_map(|policy| &policy.rules);
        rules.any(|rule| looks::looks_at_server_name(rule) && rule::is_of_port(rule, to))
    }

    fn note(&self, facts: &Facts<'_>, allowed: bool, notes: &mut Vec<PolicyNote>) {
        if self.has_notes {
            take_notes(self, facts, allowed, notes);
        }
    }
}

fn second<'a>(set: &'a PolicySet, facts: &Facts<'_>) -> Result<Option<&'a ObjectKey>, Denial> {
    authenticated(set, facts)?;
    askable(set)?;
    deny(set, facts)?;
    allow(set, facts)
}

/// What DENY and ALLOW say of the connection alone, which no provider changes.
fn connected(set: &PolicySet, facts: &Facts<'_>) -> Result<(), Denial> {
    let of_connection =
        |policy: &AuthorizationPolicy, rule: &Rule| !policy.dry_run && !looks::looks_at_http(rule);
    if let Some(policy) = first(&set.deny, facts, of_connection) {
        return Err(denied(policy));
    }
    if set.allow.looks_at_http() { Ok(()) } else { allow(set, facts).map(drop) }
}

/// As in Envoy, who somebody is comes before what he may; and what cannot be understood before both.
fn authenticated(set: &PolicySet, facts: &Facts<'_>) -> Result<(), Denial> {
    if let Some(policy) = set.broken.first() {
        return Err(not_understood(policy));
    }
    match facts.bearer {
        Bearer::Nobody | Bearer::Known(_) => Ok(()),
        Bearer::Refused(policy, fault, keys) => {
            let why = format!("{policy} refuses the request's token: {}", fault.text());
            Err(Denial { token: Some(fault), keys: keys.to_vec(), ..Denial::new(why) })
        }
    }
}

/// A CUSTOM policy whose provider cannot be asked denies whatever it applies to, in either step.
fn askable(set: &PolicySet) -> Result<(), Denial> {
    set.unasked.first().map_or(Ok(()), |policy| Err(not_understood(policy)))
}

/// The providers that must be asked. A CUSTOM policy that matches denies what is not HTTP: there is no request that a provider
/// could judge.
fn custom(set: &PolicySet, facts: &Facts<'_>) -> Result<Vec<Arc<ExtAuthz>>, Denial> {
    let (mut asks, mut denial) = (Vec::new(), None);
    matching(&set.custom, facts, is_enforced, |policy| {
        let Some(provider) = &policy.provider else { return ControlFlow::Continue(()) };
        if facts.request.is_none() {
            let why = format!(
                "AuthorizationPolicy {} asks the provider {} about requests, and this is not HTTP",
                policy.key, provider.name
            );
            denial = Some(Denial::new(why).by(&policy.key));
            return ControlFlow::Break(());
        }
        if !asks.contains(provider) {
            asks.push(provider.clone());
        }
        ControlFlow::Continue(())
    });
    denial.map_or(Ok(asks), Err)
}

fn deny(set: &PolicySet, facts: &Facts<'_>) -> Result<(), Denial> {
    match first(&set.deny, facts, is_enforced) {
        None => Ok(()),
        Some(policy) => Err(denied(policy)),
    }
}

fn denied(policy: &AuthorizationPolicy) -> Denial {
    Denial::new(format!("AuthorizationPolicy {} denies (DENY rule)", policy.key)).by(&policy.key)
}

fn allow<'a>(set: &'a PolicySet, facts: &Facts<'_>) -> Result<Option<&'a ObjectKey>, Denial> {
    if set.allow.enforced() == 0 {
        return Ok(None);
    }
    match first(&set.allow, facts, is_enforced) {
        Some(policy) => Ok(Some(&policy.key)),
        None => Err(no_allow(set)),
    }
}

/// `allowed`: an enforced ALLOW policy matched.
fn take_notes(set: &PolicySet, facts: &Facts<'_>, allowed: bool, notes: &mut Vec<PolicyNote>) {
    matching(&set.audit, facts, |_, _| true, |policy| note(policy, PolicyEffect::Audit, notes));
    if !set.deny.in_dry_run().is_empty() {
        let see = |policy| note(policy, PolicyEffect::WouldDeny, notes);
        matching(&set.deny, facts, is_dry_run, see);
    }
    if !set.custom.in_dry_run().is_empty() {
        let see = |policy| note(policy, PolicyEffect::WouldAsk, notes);
        matching(&set.custom, facts, is_dry_run, see);
    }
    if set.allow.in_dry_run().is_empty() {
        return;
    }
    let mut admitted = allowed;
    matching(&set.allow, facts, is_dry_run, |policy| {
        admitted = true;
        note(policy, PolicyEffect::WouldAllow, notes)
    });
    if !admitted {
        // Enforced, they would be ALLOW policies of which none matches: that denies.
        let mut tried = set.allow.in_dry_run().iter();
        let _ = tried.try_for_each(|policy| note(policy, PolicyEffect::WouldDeny, notes));
    }
}

/// Breaks off when there is no room for another.
fn note(
    policy: &AuthorizationPolicy,
    effect: PolicyEffect,
    notes: &mut Vec<PolicyNote>,
) -> ControlFlow<()> {
    if notes.len() >= MAX_NOTES {
        return ControlFlow::Break(());
    }
    let note = PolicyNote { policy: policy.key.clone(), effect };
    if !notes.contains(&note) {
        notes.push(note);
    }
    ControlFlow::Continue(())
}

/// Any one of the policies that match by a rule that is wanted.
fn first<'a>(
    policies: &'a PolicyList,
    facts: &Facts<'_>,
    wanted: impl Fn(&AuthorizationPolicy, &Rule) -> bool,
) -> Option<&'a AuthorizationPolicy> {
    let mut found = None;
    matching(policies, facts, wanted, |policy| {
        found = Some(policy);
        ControlFlow::Break(())
    });
    found
}

fn is_enforced(policy: &AuthorizationPolicy, _: &Rule) -> bool {
    !policy.dry_run
}

fn is_dry_run(policy: &AuthorizationPolicy, _: &Rule) -> bool {
    policy.dry_run
}

/// Shows the policies that match by a rule that is wanted, in no particular order and perhaps twice, until `see` breaks off.
fn matching<'a>(
    policies: &'a PolicyList,
    facts: &Facts<'_>,
    wanted: impl Fn(&AuthorizationPolicy, &Rule) -> bool,
    mut see: impl FnMut(&'a AuthorizationPolicy) -> ControlFlow<()>,
) {
    let refuses = policies.refuses();
    let fits = |policy: &AuthorizationPolicy, rule: &Rule| {
        wanted(policy, rule) && rule::matches(rule, facts, refuses)
    };
    let Some(index) = policies.index() else {
        let matches =
            |policy: &&Arc<AuthorizationPolicy>| policy.rules.iter().any(|rule| fits(policy, rule));
        let _ = policies.iter().filter(matches).try_for_each(|policy| see(policy));
        return;
    };
    let _ = probe::each(index, facts, refuses, |unit| {
        let policy = policies.get(unit.policy as usize);
        let rule = policy.and_then(|policy| policy.rules.get(unit.rule as usize));
        match (policy, rule) {
            (Some(policy), Some(rule)) if fits(policy, rule) => see(policy),
            _ => ControlFlow::Continue(()),
        }
    });
}

fn not_understood(policy: &AuthorizationPolicy) -> Denial {
    let why = policy.broken.as_deref().unwrap_or_default();
    Denial::new(format!("{policy} cannot be understood and so denies: {why}")).by(&policy.key)
}

fn no_allow(set: &PolicySet) -> Denial {
    let enforced = || set.allow.iter().filter(|policy| !policy.dry_run);
    let names: Vec<String> =
        enforced().take(MAX_NAMES).map(|policy| policy.key.to_string()).collect();
    let more = match set.allow.enforced() - names.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let why = format!("no ALLOW AuthorizationPolicy matches ({}{more})", names.join(", "));
    // Of several, each would have done.
    let only = enforced().next().filter(|_| set.allow.enforced() == 1);
    Denial { policy: only.map(|policy| policy.key.clone()), ..Denial::new(why) }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method};

    use super::*;
    use crate::jwt::KeyRing;
    use crate::jwt::fixture::Issuer;
    use crate::model::{Action, Operation, Scope, StringMatch, TokenPlace, Values};
    use crate::policy::{self, Connection, Request, fixture};

    fn policy(name: &str, action: Action, rule: Rule) -> AuthorizationPolicy {
        AuthorizationPolicy {
            key: ObjectKey::new("shop", name),
            action,
            scope: Scope::Namespace,
            rules: vec![rule],
            dry_run: false,
            broken: (action == Action::Custom).then(|| "no provider".into()),
            provider: None,
        }
    }

    fn tokens() -> AuthorizationPolicy {
        let rule = fixture::token_rule(&Issuer::new("k"));
        fixture::tokens(&ObjectKey::new("shop", "tokens"), Scope::Namespace, vec![rule])
    }

    fn broken() -> AuthorizationPolicy {
        let broken = Some("spec: unreadable".into());
        AuthorizationPolicy { broken, ..policy("broken", Action::Allow, Rule::default()) }
    }

    /// Matches nothing that the tests ask.
    fn never() -> Rule {
        let methods = Values { any: vec![StringMatch::Exact("PUT".into())], none: Vec::new() };
        Rule { to: vec![Operation { methods, ..Operation::default() }], ..Rule::default() }
    }

    /// What becomes of `GET /`, with a token or without, and the notes on it.
    fn asked(
        policies: &[AuthorizationPolicy],
        token: bool,
    ) -> (Result<Option<ObjectKey>, Denial>, Vec<PolicyNote>) {
        let set: PolicySet = policies.iter().cloned().map(Arc::new).collect();
        let connection = Connection {
            client: None,
            source: "10.0.9.9".parse().unwrap(),
            destination: "10.0.0.1:8080".parse().unwrap(),
            server_name: None,
        };
        let mut headers = HeaderMap::new();
        if token {
            headers.insert("authorization", HeaderValue::from_static("Bearer t"));
        }
        let request =
            Request { method: &Method::GET, path: "/", host: "web.shop", headers: &headers };
        let (mut facts, mut notes) = (Facts::new(&connection, Some(&request)), Vec::new());
        let checked = policy::check([&set].into_iter(), Some(&request), &KeyRing::new());
        facts.bearer = checked.bearer();
        let asks = set.asks(&facts, &mut notes);
        let decided = asks.and_then(|_| set.decide(&facts, &mut notes));
        (decided.map(|policy| policy.cloned()), notes)
    }

    #[test]
    fn custom_comes_before_deny_and_deny_before_allow() {
        let all = [
            policy("allow", Action::Allow, Rule::default()),
            policy("deny", Action::Deny, Rule::default()),
            policy("custom", Action::Custom, Rule::default()),
            tokens(),
            broken(),
        ];
        // Each policy decides once those of the steps before it are gone, however they are sorted.
        for last in (1..all.len()).rev() {
            let mut policies = all[..=last].to_vec();
            for _ in 0..policies.len() {
                policies.rotate_left(1);
                let denial = asked(&policies, true).0.unwrap_err();
                let by = &all[last];
                assert!(denial.why.contains(&by.to_string()), "{by}: {}", denial.why);
                assert_eq!(denial.token.is_some(), by.action == Action::Authenticate);
            }
        }
        assert_eq!(asked(&all[..1], true).0, Ok(Some(all[0].key.clone())));
        assert_eq!(asked(&[], true).0, Ok(None));
    }

    #[test]
    fn without_a_provider_a_custom_policy_denies_whatever_it_says() {
        for rule in [Rule::default(), never()] {
            let custom = policy("custom", Action::Custom, rule);
            let dry = AuthorizationPolicy { dry_run: true, ..custom.clone() };
            for one in [custom, dry] {
                let allow = policy("allow", Action::Allow, Rule::default());
                let denial = asked(&[allow, one.clone()], false).0.unwrap_err();
                let expected = "AuthorizationPolicy shop/custom cannot be understood and so denies: no provider";
                assert_eq!(denial.why, expected);
                assert_eq!(denial.token, None);
            }
        }
    }

    #[test]
    fn claims_are_those_that_a_request_authentication_looks_for() {
        let allow = policy("allow", Action::Allow, Rule::default());
        let mut rule = fixture::token_rule(&Issuer::new("k"));
        rule.places = vec![TokenPlace::Cookie("t".into())];
        let key = ObjectKey::new("shop", "tokens");
        let other = fixture::tokens(&key, Scope::Namespace, vec![rule]);
        assert!(asked(&[allow.clone(), tokens()], true).0.unwrap_err().token.is_some());
        assert!(asked(&[allow.clone(), tokens()], false).0.is_ok(), "without a token");
        assert!(asked(&[allow, other], true).0.is_ok(), "looks elsewhere");
    }

    #[test]
    fn notes_are_taken_whichever_step_decides() {
        let audit = policy("audit", Action::Audit, Rule::default());
        let custom = policy("custom", Action::Custom, Rule::default());
        let (decided, notes) = asked(&[audit, custom], false);
        assert!(decided.is_err());
        let notes: Vec<String> = notes.iter().map(ToString::to_string).collect();
        assert_eq!(notes, ["shop/audit=audit"]);
    }
}
