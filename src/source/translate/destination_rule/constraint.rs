//! Retry budgets of XBackendTrafficPolicies (GEP-3388). As in Istio, they hold where the DestinationRule that holds for a client has no
//! `retryBudget` of its own: they are the service's owner's, whoever its clients are.

use std::time::Duration;

use super::super::{Attach, Context, is_of_other_revision};
use crate::base::schema::parse_duration;
use crate::base::{ObjectKey, Str};
use crate::model::{Mesh, PolicyTarget, Service};
use crate::source::objects::{
    BackendTrafficPolicySpec, BudgetDetails, Kind, RequestRate, RetryConstraint, TargetRef,
    XBackendTrafficPolicy, annotation, created,
};
use crate::source::{Condition, ConditionReason, ConditionType, Severity};
use crate::traffic::{LeastRetries, RetryBudget};
use crate::world::Attached;

/// With the value `true` the object is another implementation's (Istio 1.31).
const IGNORE: &str = "istio.io/ignore-policy-attachment";

const PERSISTENCE: &str = "is not carried out: requests are balanced as if it were not there";

/// The budgets, by target.
#[derive(Default, PartialEq)]
pub(super) struct Constraints(Attached<(ObjectKey, RetryBudget)>);

impl Constraints {
    /// Of several policies for one target the oldest holds (GEP-713, "Conflict resolution").
    pub(super) fn collect(cx: &mut Context<'_>) -> Self {
        let mut all = Self::default();
        for (key, spec) in policies(cx) {
            if spec.session_persistence.is_some() {
                cx.warn::<XBackendTrafficPolicy>(key, "spec.sessionPersistence", PERSISTENCE);
            }
            let Some(budget) = spec.retry_constraint.as_ref().map(|it| budget(key, it)) else {
                continue;
            };
            for (index, target) in spec.target_refs.iter().enumerate() {
                let Some(target) = target_of(target) else { continue };
                let held = all.0.on_target(&key.namespace, &target);
                match held.first() {
                    Some((older, _)) if older != key => {
                        let why = format!(
                            "the {} {older} is older and says the same of this target; that one is in force",
                            Kind::XBackendTrafficPolicy
                        );
                        complain(cx, (key, index), ConditionReason::Conflicted, why);
                    }
                    Some(_) => {}
                    None => held.push((key.clone(), budget.clone())),
                }
            }
        }
        all
    }

    /// What holds for all clients of a service.
    pub(super) fn of(&self, service: &Service) -> Option<&RetryBudget> {
        self.0.to_service(service).first().map(|(_, budget)| budget)
    }
}

/// Says which targets there are not. Services come and go without the policies.
#[derive(Default)]
pub(in super::super) struct Targets;

impl Attach for Targets {
    fn attach(&mut self, cx: &mut Context<'_>, mesh: &mut Mesh) {
        for (key, policy) in cx.objects.all::<XBackendTrafficPolicy>() {
            if is_of_other_revision(cx.settings, policy) {
                continue;
            }
            for (index, written) in policy.spec.target_refs.iter().enumerate() {
                let at = (key, index);
                if annotation(policy, IGNORE).is_some_and(|it| it.eq_ignore_ascii_case("true")) {
                    let why = format!("is ignored because of the annotation {IGNORE}");
                    complain(cx, at, ConditionReason::Ignored, why);
                    continue;
                }
                let Some(target) = target_of(written) else {
                    let TargetRef { group, kind, .. } = written;
                    let why = format!("{kind:?} of group {group:?} is no target; Services are");
                    complain(cx, at, ConditionReason::Invalid, why);
                    continue;
                };
                let is_meant =
                    |it: &Service| it.key.namespace == key.namespace && it.as_target() == target;
                if !mesh.services.iter().any(|service| is_meant(service)) {
                    let why = format!("there is no Service {}/{}", key.namespace, written.name);
                    complain(cx, at, ConditionReason::TargetNotFound, why);
                }
            }
        }
    }
}

/// All that are ours, the oldest first. One of unknown age counts as the youngest.
fn policies<'a>(cx: &Context<'a>) -> Vec<(&'a ObjectKey, &'a BackendTrafficPolicySpec)> {
    let ours = |policy: &XBackendTrafficPolicy| {
        !is_of_other_revision(cx.settings, policy)
            && !annotation(policy, IGNORE).is_some_and(|it| it.eq_ignore_ascii_case("true"))
    };
    let all = cx.objects.all::<XBackendTrafficPolicy>();
    let mut all: Vec<_> = all.filter(|(_, policy)| ours(policy)).collect();
    let age = |policy: &XBackendTrafficPolicy| match created(&policy.metadata) {
        0 => i64::MAX,
        created => created,
    };
    all.sort_by_key(|(key, policy)| (age(policy), *key));
    all.into_iter().map(|(key, policy)| (key, &policy.spec)).collect()
}

/// A Service of the policy's namespace.
fn target_of(written: &TargetRef) -> Option<PolicyTarget> {
    written.target().filter(|target| matches!(target, PolicyTarget::Service(_)))
}

/// The defaults are those of the definition.
fn budget(policy: &ObjectKey, written: &RetryConstraint) -> RetryBudget {
    let BudgetDetails { percent, interval } = written.budget.clone().unwrap_or_default();
    let RequestRate { count, interval: each } = written.min_retry_rate.clone().unwrap_or_default();
    // What the API server would reject was rejected when it was read.
    let duration = |text: Option<String>, default: u64| {
        let read = text.as_deref().and_then(parse_duration).filter(|it| !it.is_zero());
        read.unwrap_or(Duration::from_secs(default))
    };
    RetryBudget {
        by: Str::from(format!("{} {policy}", Kind::XBackendTrafficPolicy)),
        per_million: percent.unwrap_or(RetryBudget::PERCENT).min(100) * 10_000,
        interval: duration(interval, 10),
        least: LeastRetries::Rate { count: count.unwrap_or(10), interval: duration(each, 1) },
    }
}

fn complain(
    cx: &mut Context<'_>,
    (policy, index): (&ObjectKey, usize),
    reason: ConditionReason,
    why: String,
) {
    let ignored = reason == ConditionReason::Ignored;
    let severity = if ignored { Severity::Note } else { Severity::Error };
    let field = format!("spec.targetRefs[{index}]");
    cx.complain(severity, Kind::XBackendTrafficPolicy, policy, field, why);
    if let Some(complaint) = cx.complaints.last_mut() {
        complaint.condition = Some(Condition::of_parent(ConditionType::Accepted, reason, index));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Complaint;
    use crate::source::tests::translated;

    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
        spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}\n---\n";

    fn policy(namespace: &str, name: &str, more: &str, spec: &str) -> String {
        format!(
            "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackendTrafficPolicy\n\
             metadata: {{name: {name}, namespace: {namespace}{more}}}\nspec: {{targetRefs: [{{group: '', kind: Service, name: web}}], \
             {spec}}}\n---\n"
        )
    }

    fn rule(namespace: &str, policy: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: web, namespace: {namespace}}}\n\
             spec: {{host: web.shop.svc.cluster.local, trafficPolicy: {policy}}}\n---\n"
        )
    }

    /// The object whose budget holds for clients of a namespace, and what is complained of.
    fn holds(text: &str, namespace: &str) -> (Option<String>, Vec<Complaint>) {
        let translation = translated(&format!("{SERVICE}{text}"));
        let destination = translation.mesh.services[0].traffic.of_client(namespace, &[], 80);
        let budget = destination.and_then(|it| it.budget()).map(|it| it.by().to_string());
        let mut told = translation.complaints;
        told.retain(|it| it.kind != "Service");
        (budget, told)
    }

    #[test]
    fn each_field_and_each_default_is_the_apis() {
        for (constraint, per_million, interval, count, each) in [
            ("{}", 200_000, 10, 10, 1),
            ("{budget: {percent: 50}}", 500_000, 10, 10, 1),
            (
                "{budget: {percent: 5, interval: 30s}, minRetryRate: {count: 3, interval: 2s}}",
                50_000,
                30,
                3,
                2,
            ),
            ("{minRetryRate: {count: 7}}", 200_000, 10, 7, 1),
        ] {
            let text = policy("shop", "a", "", &format!("retryConstraint: {constraint}"));
            assert_eq!(holds(&text, "shop").1, [], "{constraint}");
            let translation = translated(&format!("{SERVICE}{text}"));
            let traffic = &translation.mesh.services[0].traffic;
            let shown = serde_json::to_value(traffic.of_client("any", &[], 80).unwrap()).unwrap();
            let interval = Duration::from_secs(interval);
            let rate = LeastRetries::Rate { count, interval: Duration::from_secs(each) };
            let by = "XBackendTrafficPolicy shop/a".into();
            let expected = RetryBudget { by, per_million, interval, least: rate };
            let expected = serde_json::to_value(expected).unwrap();
            assert_eq!(shown["policy"]["budget"], expected, "{constraint}");
        }
    }

    #[test]
    fn it_holds_where_no_destination_rule_has_a_budget() {
        let of_service = policy("shop", "a", "", "retryConstraint: {}");
        let plain = "{loadBalancer: {simple: RANDOM}}";
        let own = "{retryBudget: {percent: 1}}";
        let by_policy = Some("XBackendTrafficPolicy shop/a");
        for (rules, of_shop, of_clients) in [
            (String::new(), by_policy, by_policy),
            (rule("shop", plain), by_policy, by_policy),
            (rule("clients", plain), by_policy, by_policy),
            (rule("shop", own), Some("DestinationRule shop/web"), Some("DestinationRule shop/web")),
            (rule("clients", own), by_policy, Some("DestinationRule clients/web")),
        ] {
            let text = format!("{of_service}{rules}");
            for (namespace, expected) in [("shop", of_shop), ("clients", of_clients)] {
                let (holds, told) = holds(&text, namespace);
                assert_eq!(holds.as_deref(), expected, "{namespace}: {rules}");
                assert!(told.is_empty(), "{told:?}");
            }
        }
    }

    #[test]
    fn what_is_not_in_force_is_told_in_the_status() {
        let constraint = "retryConstraint: {}";
        let ignored = ", annotations: {istio.io/ignore-policy-attachment: \"True\"}";
        let created = |hour: u32| format!(", creationTimestamp: '2026-01-01T0{hour}:00:00Z'");
        let two = [
            policy("shop", "a", &created(2), constraint),
            policy("shop", "b", &created(1), constraint),
        ];
        for (text, expected, reason) in [
            (policy("shop", "a", ignored, constraint), None, "Ignored"),
            // Of another namespace.
            (policy("other", "a", "", constraint), None, "TargetNotFound"),
            (
                policy("shop", "a", "", constraint).replace("kind: Service", "kind: Pod"),
                None,
                "Invalid",
            ),
            (two.concat(), Some("XBackendTrafficPolicy shop/b"), "Conflicted"),
        ] {
            let (holds, told) = holds(&text, "shop");
            assert_eq!(holds.as_deref(), expected, "{text}");
            let [told] = &told[..] else { panic!("{told:?}") };
            assert_eq!(told.condition.map(|it| it.reason.name()), Some(reason), "{told:?}");
        }
        let (_, told) =
            holds(&policy("shop", "a", "", "sessionPersistence: {type: Cookie}"), "shop");
        assert_eq!(told[0].field, "spec.sessionPersistence");
    }

    /// In a directory nobody else would say it.
    #[test]
    fn what_the_api_server_would_reject_is_told() {
        for (constraint, field) in [
            ("{budget: {percent: 101}}", ".budget.percent"),
            ("{budget: {interval: 500ms}}", ".budget.interval"),
            ("{budget: {interval: 2h}}", ".budget.interval"),
            ("{minRetryRate: {count: 0}}", ".minRetryRate.count"),
            ("{minRetryRate: {interval: 0s}}", ".minRetryRate.interval"),
            ("{budgets: {}}", ".budgets"),
        ] {
            let text = policy("shop", "a", "", &format!("retryConstraint: {constraint}"));
            let (_, told) = holds(&text, "shop");
            let fields: Vec<_> = told.iter().map(|it| it.field.as_str()).collect();
            assert_eq!(fields, [format!("spec.retryConstraint{field}")], "{constraint}");
        }
    }
}
