//! AuthorizationPolicies (`ZtunnelAccepted`, `WaypointAccepted`) and PeerAuthentications (`Accepted`). Types and
//! reasons are istiod's, so that its readers keep working; the messages describe Isthmus.

use serde_json::json;

use super::condition::{self, Condition};
use super::{Desired, Stored, Subject, View};
use crate::base::ObjectKey;
use crate::model::{self, Action, PolicyTarget, Scope};
use crate::source::objects::{
    AuthorizationPolicy, Gateway, Kind, Service, ServiceEntry, TargetRef,
};
use crate::source::{
    Complaint, ConditionType, Resolved, Severity, WAYPOINT_CLASS, WaypointBindings,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

const ZTUNNEL: &str = "ZtunnelAccepted";
const WAYPOINT: &str = "WaypointAccepted";
const ACCEPTED: &str = "Accepted";

/// The outcome of one target: bound, or the reason and message why not.
struct Target {
    name: String,
    outcome: Result<String, (&'static str, String)>,
}

pub(super) fn authorization(
    view: &View<'_>,
    bindings: &WaypointBindings<'_>,
    subject: &Subject,
    stored: &Stored,
) -> Desired {
    let policy = view.objects.get::<AuthorizationPolicy>(&subject.key);
    let model = view.translation.mesh.policies.iter().find(|it| it.key == subject.key);
    let targets = policy.map_or_else(Vec::new, |policy| policy.spec.attached_to().targets());
    let has_targets = stored.spec("targetRefs").or_else(|| stored.spec("targetRef")).is_some();
    let kind = if has_targets { WAYPOINT } else { ZTUNNEL };
    let broken = model.and_then(|it| it.broken.as_deref());
    let condition = if stored.refused.is_some() || broken.is_some() {
        let errors = view.complaints(subject).filter(|it| it.severity == Severity::Error);
        let reason = if has_targets { "Invalid" } else { "UnsupportedValue" };
        Condition::fails(kind, reason, told(errors, broken))
    } else if has_targets {
        let targets: Vec<Target> =
            targets.iter().map(|(_, it)| target(view, bindings, &subject.key, it)).collect();
        with_warnings(of_targets(&targets), view, subject)
    } else {
        Condition::holds(ZTUNNEL, "Accepted", enforced(view, subject, model))
    };
    let status = json!({ "conditions": condition::list(&[condition], stored.generation()) });
    Desired { status, owned: &[ZTUNNEL, WAYPOINT] }
}

fn told<'a>(complaints: impl Iterator<Item = &'a Complaint>, otherwise: Option<&str>) -> String {
    let messages: Vec<String> = complaints
        .map(|it| match it.field.is_empty() {
            true => it.reason.clone(),
            false => format!("{}: {}", it.field, it.reason),
        })
        .collect();
    if messages.is_empty() {
        return otherwise.unwrap_or_default().to_owned();
    }
    condition::joined(messages.iter().map(String::as_str))
}

/// What the policy does, and what it does not do although it seems to.
fn enforced(
    view: &View<'_>,
    subject: &Subject,
    model: Option<&std::sync::Arc<model::AuthorizationPolicy>>,
) -> String {
    let does = match model {
        Some(model) if model.dry_run => "dry run: noted in log and metrics, not enforced",
        Some(model) if model.action == Action::Audit => "noted in log and metrics where it matches",
        Some(model) if model.scope == Scope::Mesh => "enforced for all workloads of the mesh",
        Some(model) if model.scope == Scope::Namespace => {
            "enforced for all workloads of its namespace"
        }
        _ => "enforced for the workloads that it selects",
    };
    let warnings = told(view.complaints(subject), None);
    if warnings.is_empty() { does.to_owned() } else { format!("{does}; {warnings}") }
}

/// A policy in force lists its values that never match; the condition itself covers its targets.
fn with_warnings(mut condition: Condition, view: &View<'_>, subject: &Subject) -> Condition {
    let about_values =
        |it: &&Complaint| ["spec.rules", "metadata."].iter().any(|at| it.field.starts_with(at));
    let warnings = told(view.complaints(subject).filter(about_values), None);
    if condition.holds && !warnings.is_empty() {
        condition.message = format!("{}; {warnings}", condition.message);
    }
    condition
}

/// As istiod merges several targets into one condition.
fn of_targets(targets: &[Target]) -> Condition {
    if let [only] = targets {
        return match &only.outcome {
            Ok(bound) => Condition::holds(WAYPOINT, "Accepted", bound.clone()),
            Err((reason, why)) => Condition::fails(WAYPOINT, reason, why.clone()),
        };
    }
    let unbound: Vec<&str> =
        targets.iter().filter(|it| it.outcome.is_err()).map(|it| it.name.as_str()).collect();
    if unbound.is_empty() {
        return Condition::holds(WAYPOINT, "Accepted", "bound to all of its targets");
    }
    let message = format!("Invalid targetRefs: {}", unbound.join(", "));
    if unbound.len() < targets.len() {
        return Condition::holds(WAYPOINT, "PartiallyInvalid", message);
    }
    Condition::fails(WAYPOINT, "Invalid", message)
}

fn target(
    view: &View<'_>,
    bindings: &WaypointBindings<'_>,
    policy: &ObjectKey,
    target: &TargetRef,
) -> Target {
    let key = ObjectKey::new(policy.namespace.clone(), target.name.as_str());
    let group = if target.group.is_empty() { "core" } else { &target.group };
    let name = format!("{}.{group}:{key}", target.kind);
    let outcome = match target.target() {
        Some(PolicyTarget::Service(_)) => {
            let found = view.objects.get::<Service>(&key).map(|it| &it.metadata);
            service(bindings, Kind::Service, &key, found)
        }
        Some(PolicyTarget::ServiceEntry(_)) => {
            let found = view.objects.get::<ServiceEntry>(&key).map(|it| &it.metadata);
            service(bindings, Kind::ServiceEntry, &key, found)
        }
        Some(PolicyTarget::Gateway(_)) => gateway(view, &key),
        Some(PolicyTarget::GatewayClass(class)) if class == WAYPOINT_CLASS => {
            Ok(format!("bound to {WAYPOINT_CLASS}"))
        }
        Some(PolicyTarget::GatewayClass(class)) => {
            let why = format!("gateways of the class {class:?} are not served by Isthmus");
            Err(("TargetNotFound", why))
        }
        None => {
            let TargetRef { group, kind, .. } = target;
            Err(("Invalid", format!("{kind:?} of group {group:?} is not a target")))
        }
    };
    Target { name, outcome }
}

fn service(
    bindings: &WaypointBindings<'_>,
    kind: Kind,
    key: &ObjectKey,
    found: Option<&ObjectMeta>,
) -> Result<String, (&'static str, String)> {
    let Some(metadata) = found else {
        return Err(("TargetNotFound", format!("{kind} {key} was not found")));
    };
    let unbound = |why: String| Err(("AncestorNotBound", why));
    match bindings.of_service(kind, key, metadata) {
        Some((waypoint, Resolved::Bound)) => Ok(format!("bound to {waypoint}")),
        Some((_, Resolved::Missing(why))) => {
            unbound(format!("{kind} {key} is not bound to a waypoint: {why}"))
        }
        Some((_, Resolved::NotReady(why) | Resolved::Denied(why))) => {
            unbound(format!("{kind} {key} is not bound to a waypoint: {why}"))
        }
        Some((_, Resolved::OtherTraffic)) | None => unbound(format!(
            "{kind} {key} is not bound to a waypoint, so the policy is not enforced for it; check the label \
             istio.io/use-waypoint on it or its namespace"
        )),
    }
}

fn gateway(view: &View<'_>, key: &ObjectKey) -> Result<String, (&'static str, String)> {
    if view.translation.mesh.waypoints.iter().any(|it| it.key == *key) {
        return Ok(format!("bound to {key}"));
    }
    let why = match view.objects.get::<Gateway>(key) {
        Some(_) => format!("Gateway {key} is not a waypoint that can be used"),
        None => format!("Gateway {key} was not found"),
    };
    Err(("TargetNotFound", why))
}

/// One condition of a policy that has no targets: whether it is in force, by what the translation complains of.
pub(super) fn accepted(view: &View<'_>, subject: &Subject, stored: &Stored) -> Desired {
    let complaints: Vec<&Complaint> = view.complaints(subject).collect();
    let all = || told(complaints.iter().copied(), None);
    let condition = if stored.refused.is_some() || complaints.iter().any(|it| is_unattached(it)) {
        Condition::fails(ACCEPTED, "Invalid", all())
    } else if let Some(reason) = complaints.iter().find_map(|it| not_accepted(it)) {
        Condition::fails(ACCEPTED, reason, all())
    } else if let Some(overruled) = complaints.iter().find(|it| it.field.is_empty()) {
        Condition::fails(ACCEPTED, "Conflicted", overruled.reason.clone())
    } else if complaints.iter().any(|it| it.severity != Severity::Note) {
        Condition::holds(ACCEPTED, "PartiallyInvalid", all())
    } else {
        Condition::holds(ACCEPTED, "Accepted", told(complaints.iter().copied(), Some("in force")))
    };
    let status = json!({ "conditions": condition::list(&[condition], stored.generation()) });
    Desired { status, owned: &[ACCEPTED] }
}

/// The reason why the object is not accepted, where the complaint says it.
fn not_accepted(complaint: &Complaint) -> Option<&'static str> {
    let condition = complaint.condition.filter(|it| it.kind == ConditionType::Accepted)?;
    (!condition.status()).then(|| condition.reason.name())
}

/// A Telemetry whose attachment is wrong has no effect. Policies that guard something are in force then, and deny.
fn is_unattached(complaint: &Complaint) -> bool {
    let of_attachment = ["spec.selector", "spec.targetRef"];
    complaint.kind == Kind::Telemetry.name()
        && complaint.severity == Severity::Error
        && of_attachment.iter().any(|field| complaint.field.starts_with(field))
}
