//! What the targets of policies are, and what of a policy can never be said of them.

use super::Policies;
use super::behind::{self, Behind};
use crate::base::{ObjectKey, Str};
use crate::model::{self, Action, Binding, Condition, PolicyTarget, Scope};
use crate::policy::never::Found;
use crate::source::Topic;
use crate::source::objects::{AuthorizationPolicy, RequestAuthentication};
use crate::source::translate::Context;
use crate::source::translate::service_ports::Ports;
use crate::source::translate::waypoint::Waypoints;

/// Warns of targets that the policy is not enforced for (only what is bound to a waypoint looks at them), and of ports that
/// nothing has which the policy is about.
pub(in crate::source::translate) fn check(
    cx: &mut Context<'_>,
    policies: &Policies,
    waypoints: &Waypoints,
    services: &Ports<'_>,
) {
    for policy in &policies.models {
        if let Scope::Targets(targets) = &policy.scope {
            for target in targets {
                if let Some(reason) = why_not_enforced(&policy.key, target, services, waypoints) {
                    let reason = format!("{reason}; the policy is not enforced for it");
                    match policy.as_of_tokens() {
                        Some(key) => {
                            cx.warn::<RequestAuthentication>(&key, "spec.targetRefs", reason);
                        }
                        None => {
                            cx.warn::<AuthorizationPolicy>(&policy.key, "spec.targetRefs", reason)
                        }
                    }
                    cx.about(Topic::TargetMissing);
                }
            }
        }
        for (field, reason) in ports(cx, policy, services, waypoints) {
            cx.warn::<AuthorizationPolicy>(&policy.key, field, reason);
            cx.about(Topic::NeverMatches);
        }
    }
}

/// What of a policy is about ports that nothing has.
fn ports(
    cx: &Context<'_>,
    policy: &model::AuthorizationPolicy,
    services: &Ports<'_>,
    waypoints: &Waypoints,
) -> Vec<(String, String)> {
    if policy.broken.is_some() || !behind::looks(&policy.rules) {
        return Vec::new();
    }
    let behind = match &policy.scope {
        Scope::Targets(_) => Behind::targets(policy, services, waypoints),
        _ => Behind::workloads(cx, policy, services),
    };
    let mut found = Found::new(policy.action);
    for (index, rule) in policy.rules.iter().enumerate() {
        let place = format!("spec.rules[{index}]");
        for (index, operation) in rule.to.iter().enumerate() {
            let place = format!("{place}.to[{index}].operation");
            found.each(&place, ["ports", "notPorts"], &operation.ports, |port, _| {
                behind.why_never(*port)
            });
            found.each(&place, ["hosts", "notHosts"], &operation.hosts, |host, _| {
                behind.why_no_host(host)
            });
            if policy.action == Action::Allow {
                for port in &operation.ports.any {
                    if let Some(why) = behind.why_not_alone(*port, &operation.ports.any) {
                        found.add(format!("{place}.ports"), why);
                    }
                }
            }
            if let Some(why) = behind.why_no_http(policy.action, operation) {
                found.add(place, why);
            }
        }
        for (index, condition) in rule.when.iter().enumerate() {
            let place = format!("{place}.when[{index}]");
            match condition {
                Condition::DestinationPort(values) => {
                    found.each(&place, ["values", "notValues"], values, |port, _| {
                        behind.why_never(*port)
                    });
                }
                Condition::DestinationIp(values) => {
                    found.each(&place, ["values", "notValues"], values, |block, role| {
                        behind.why_no_address(block).filter(|_| !role.is_negative())
                    });
                }
                _ => {}
            }
        }
    }
    found.finish()
}

fn why_not_enforced(
    policy: &ObjectKey,
    target: &PolicyTarget,
    services: &Ports<'_>,
    waypoints: &Waypoints,
) -> Option<String> {
    let key = |name: &Str| ObjectKey::new(policy.namespace.clone(), name.clone());
    match target {
        PolicyTarget::Service(name) => {
            let found = services.named(&policy.namespace, false, name).first();
            without_waypoint("Service", &key(name), found.map(|it| &it.waypoint))
        }
        PolicyTarget::ServiceEntry(name) => {
            let found = services.named(&policy.namespace, true, name).first();
            without_waypoint("ServiceEntry", &key(name), found.map(|it| &it.waypoint))
        }
        PolicyTarget::Gateway(name) => {
            let key = key(name);
            let usable = waypoints.usable().any(|waypoint| waypoint.key == key);
            (!usable).then(|| match waypoints.knows(&key) {
                true => format!("the Gateway {key} is not a waypoint"),
                false => format!("the Gateway {key} does not exist"),
            })
        }
        PolicyTarget::GatewayClass(class) => {
            let any = waypoints.usable().any(|waypoint| waypoint.class == *class);
            (!any).then(|| format!("there is no waypoint of the class {class}"))
        }
    }
}

fn without_waypoint(kind: &str, key: &ObjectKey, found: Option<&Binding>) -> Option<String> {
    match found {
        None => Some(format!("the {kind} {key} does not exist")),
        Some(Binding::None) => Some(format!(
            "the {kind} {key} has no waypoint; check the label istio.io/use-waypoint on it or its namespace"
        )),
        Some(_) => None,
    }
}
