//! Targets of BackendTLSPolicies that lead to nothing: no such object, or no port of the name in `sectionName`. There the policy must
//! not attach, as Gateway API says (LocalPolicyTargetReferenceWithSectionName), so that nothing is encrypted by it; its status says so.

use serde_json::Value;

use super::super::service_ports::Ports;
use super::super::{Context, is_of_other_revision};
use super::policy::target_of;
use crate::model::PolicyTarget;
use crate::source::objects::{BackendTlsPolicy, Typed};
use crate::source::{Condition, ConditionReason, ConditionType};

const OUTCOME: &str = "the policy is not attached there, and asks for no TLS";

/// Says which targets of all policies lead to nothing.
pub(in crate::source::translate) fn check(cx: &mut Context<'_>, ports: &Ports<'_>) {
    let objects = cx.objects;
    for (key, policy) in objects.all::<BackendTlsPolicy>() {
        if is_of_other_revision(cx.settings, policy) {
            continue;
        }
        let targets = policy.spec.get("targetRefs").and_then(Value::as_array);
        for (index, written) in targets.into_iter().flatten().enumerate() {
            let Some((target, section)) = target_of(written) else { continue };
            let (kind, is_entry, name) = match &target {
                PolicyTarget::Service(name) => ("Service", false, name),
                PolicyTarget::ServiceEntry(name) => ("ServiceEntry", true, name),
                PolicyTarget::Gateway(_) | PolicyTarget::GatewayClass(_) => continue,
            };
            let found = ports.named(&key.namespace, is_entry, name);
            let place = format!("{kind} {}/{name}", key.namespace);
            let (field, why) = match section {
                _ if found.is_empty() => ("", format!("there is no {place} in the mesh")),
                Some(port) => {
                    let all = || found.iter().flat_map(|service| &service.ports);
                    if all().any(|it| it.name == port) {
                        continue;
                    }
                    let mut names: Vec<_> = all().map(|it| format!("{:?}", it.name)).collect();
                    names.dedup();
                    let names = names.join(", ");
                    (".sectionName", format!("{place} has no port {port:?}; it has {names}"))
                }
                None => continue,
            };
            let of = (ConditionType::Accepted, ConditionReason::TargetNotFound);
            let condition = Condition::of_parent(of.0, of.1, index);
            let field = format!("spec.targetRefs[{index}]{field}");
            let reason = format!("{why}; {OUTCOME}");
            cx.error_of(BackendTlsPolicy::KIND, key, field, reason, condition);
        }
    }
}
