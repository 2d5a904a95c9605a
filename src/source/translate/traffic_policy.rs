//! TrafficPolicies: which filter holds for which Service and which rule of a route (GEP-713, a hierarchy of targets).
//!
//! Of several policies that say the same the most specific holds: for a rule of a route, for the route, for the Service or
//! ServiceEntry, for the waypoint that it is bound to, for the waypoint's class. For one target only the oldest policy with
//! a filter holds; the others say in their status that they conflict.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::sync::Arc;

use super::{Attach, Context};
use crate::base::{ObjectKey, Str};
use crate::filter::{self, Half, HttpFilter, PolicyTarget, RuleContext};
use crate::model::{Binding, HttpRoute, HttpRule, Mesh, RouteKind, RouteParent, Service, Waypoint};
use crate::source::objects::{
    GATEWAY_GROUP, ISTIO_NETWORKING_GROUP, TrafficPolicy, Typed, created,
};
use crate::source::{Condition, ConditionReason, ConditionType};

/// Kept from translation to translation, for the state of the filters.
#[derive(Default)]
pub(super) struct Attachments {
    services: BTreeMap<ObjectKey, With<Service>>,
    routes: BTreeMap<(bool, ObjectKey), With<HttpRoute>>,
}

/// What a source says, and the same with filters of policies.
struct With<T> {
    plain: Arc<T>,
    filtered: Arc<T>,
}

/// What a policy is attached to, in its own namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Service(Str),
    ServiceEntry(Str),
    Gateway(Str),
    GatewayClass(Str),
    /// GRPCRoute or not, name, and rule.
    Route(bool, Str, Option<Str>),
}

/// A filter for a target, whose policy it is, and the place of the target in the policy.
#[derive(Clone)]
struct Claim {
    filter: HttpFilter,
    policy: ObjectKey,
    index: usize,
}

/// All claims, by namespace and target; for each no two of one type.
#[derive(Default)]
struct Claims {
    by_target: BTreeMap<(Str, Target), Vec<Claim>>,
    /// Of policies: nothing has to be looked up for others.
    namespaces: BTreeSet<Str>,
    /// Some policy is for a class.
    has_classes: bool,
    /// Policy and place of targets that something was attached to.
    reached: BTreeSet<(ObjectKey, usize)>,
}

/// The object around a filter.
struct Policy<'a>(&'a ObjectKey);

impl RuleContext for Policy<'_> {
    fn policy(&self) -> ObjectKey {
        self.0.clone()
    }
}

impl Attach for Attachments {
    fn attach(&mut self, cx: &mut Context<'_>, mesh: &mut Mesh) {
        let Mesh { waypoints, services, routes, .. } = mesh;
        let mut claims = Claims::of(cx);
        if claims.by_target.is_empty() && self.services.is_empty() && self.routes.is_empty() {
            return;
        }
        let before = std::mem::take(&mut self.services);
        for service in services {
            let filters = claims.of_service(service, waypoints);
            if !filters.is_empty() {
                let with = With::service(before.get(&service.key), service, filters);
                *service = with.filtered.clone();
                self.services.insert(service.key.clone(), with);
            }
        }
        let before = std::mem::take(&mut self.routes);
        for route in routes {
            let filters: Vec<Vec<HttpFilter>> =
                route.rules.iter().map(|rule| claims.of_rule(route, rule)).collect();
            if filters.iter().any(|filters| !filters.is_empty()) {
                let id = (route.kind == RouteKind::Grpc, route.key.clone());
                let with = With::route(before.get(&id), route, filters);
                *route = with.filtered.clone();
                self.routes.insert(id, with);
            }
        }
        claims.complain_of_unreached(cx, waypoints);
    }
}

impl With<Service> {
    fn service(before: Option<&Self>, plain: &Arc<Service>, filters: Vec<HttpFilter>) -> Self {
        let mut filters = filters;
        if let Some(before) = before {
            if Arc::ptr_eq(&before.plain, plain) && before.filtered.filters == filters {
                return Self { plain: plain.clone(), filtered: before.filtered.clone() };
            }
            filter::inherit(&mut filters, &before.filtered.filters);
        }
        let filtered = Arc::new(Service { filters, ..Service::clone(plain) });
        Self { plain: plain.clone(), filtered }
    }
}

impl With<HttpRoute> {
    fn route(before: Option<&Self>, plain: &Arc<HttpRoute>, filters: Vec<Vec<HttpFilter>>) -> Self {
        let mut filtered = HttpRoute::clone(plain);
        for (rule, filters) in filtered.rules.iter_mut().zip(filters) {
            rule.filters.extend(filters);
        }
        if let Some(before) = before {
            let same = |(one, two): (&HttpRule, &HttpRule)| one.filters == two.filters;
            let rules = filtered.rules.iter().zip(&before.filtered.rules);
            if Arc::ptr_eq(&before.plain, plain) && rules.clone().all(same) {
                return Self { plain: plain.clone(), filtered: before.filtered.clone() };
            }
            filtered.inherit(&before.filtered);
        }
        Self { plain: plain.clone(), filtered: Arc::new(filtered) }
    }
}

impl Claims {
    /// The oldest policy first; of policies of one age the one whose name comes first (GEP-713, "Conflict resolution").
    fn of(cx: &mut Context<'_>) -> Self {
        let objects = cx.objects;
        let mut policies: Vec<_> = objects.all::<TrafficPolicy>().collect();
        // One of unknown age counts as the youngest: no API server created it.
        let age = |policy: &TrafficPolicy| match created(&policy.metadata) {
            0 => i64::MAX,
            created => created,
        };
        policies.sort_by_key(|(key, policy)| (age(policy), *key));
        let mut claims = Self::default();
        for (key, policy) in policies {
            // What is at fault was refused when the policy was read.
            let filters: Vec<HttpFilter> =
                policy.spec.0.filters(&Policy(key)).into_iter().filter_map(Result::ok).collect();
            if filters.is_empty() {
                let reason = "says nothing: neither fault nor rateLimit is there";
                cx.warn::<TrafficPolicy>(key, "spec", reason);
            }
            for (index, target) in policy.spec.0.target_refs.iter().enumerate() {
                match understand(cx, key, target) {
                    Ok(target) => claims.add(cx, key, index, target, &filters),
                    Err((reason, why)) => complain(cx, key, index, reason, why),
                }
            }
        }
        claims
    }

    fn add(
        &mut self,
        cx: &mut Context<'_>,
        policy: &ObjectKey,
        index: usize,
        target: Target,
        filters: &[HttpFilter],
    ) {
        self.namespaces.insert(policy.namespace.clone());
        self.has_classes |= matches!(target, Target::GatewayClass(_));
        let held = self.by_target.entry((policy.namespace.clone(), target)).or_default();
        for filter in filters {
            let rival = held.iter().find(|it| discriminant(&it.filter) == discriminant(filter));
            match rival {
                Some(rival) if rival.policy != *policy => {
                    let why = format!(
                        "the TrafficPolicy {} is older and says the same of this target; that one is in force",
                        rival.policy
                    );
                    complain(cx, policy, index, ConditionReason::Conflicted, why);
                }
                Some(_) => {}
                None => held.push(Claim { filter: filter.clone(), policy: policy.clone(), index }),
            }
        }
    }

    /// Those of the most specific target that has one, for each type. `targets`: the most specific first.
    fn of_targets(&mut self, targets: Vec<(Str, Target)>) -> Vec<HttpFilter> {
        let mut filters: Vec<HttpFilter> = Vec::new();
        for id in targets {
            for claim in self.by_target.get(&id).into_iter().flatten() {
                self.reached.insert((claim.policy.clone(), claim.index));
                let same = |it: &HttpFilter| discriminant(it) == discriminant(&claim.filter);
                if !filters.iter().any(same) {
                    filters.push(claim.filter.clone());
                }
            }
        }
        filters
    }

    /// Only what is bound to a waypoint: nothing else is parsed.
    fn of_service(&mut self, service: &Service, waypoints: &[Arc<Waypoint>]) -> Vec<HttpFilter> {
        let Binding::Waypoint(bound) = &service.waypoint else { return Vec::new() };
        let concerned = [&service.key.namespace, &bound.namespace];
        if !self.has_classes && !concerned.iter().any(|it| self.namespaces.contains(*it)) {
            return Vec::new();
        }
        let own = match &service.entry {
            Some(entry) => Target::ServiceEntry(entry.clone()),
            None => Target::Service(service.key.name.clone()),
        };
        let mut targets = vec![
            (service.key.namespace.clone(), own),
            (bound.namespace.clone(), Target::Gateway(bound.name.clone())),
        ];
        if let Some(waypoint) = waypoints.iter().find(|waypoint| waypoint.key == *bound) {
            let class = Target::GatewayClass(waypoint.class.clone());
            targets.extend(self.namespaces_of(&class).map(|namespace| (namespace, class.clone())));
        }
        self.of_targets(targets)
    }

    /// Classes are only targeted from the root namespace, which was looked at when the target was read.
    fn namespaces_of(&self, class: &Target) -> impl Iterator<Item = Str> + use<> {
        let of = self.by_target.keys().filter(|(_, target)| target == class);
        of.map(|(namespace, _)| namespace.clone()).collect::<Vec<_>>().into_iter()
    }

    /// The destination knows only routes of its own namespace, so limits of others' routes are not for it.
    fn of_rule(&mut self, route: &HttpRoute, rule: &HttpRule) -> Vec<HttpFilter> {
        if !self.namespaces.contains(&route.key.namespace) {
            return Vec::new();
        }
        let target = |section: Option<Str>| {
            let grpc = route.kind == RouteKind::Grpc;
            let target = Target::Route(grpc, route.key.name.clone(), section);
            (route.key.namespace.clone(), target)
        };
        let named = Some(rule.name.clone()).filter(|name| !name.is_empty());
        let mut targets: Vec<_> = named.map(|name| target(Some(name))).into_iter().collect();
        targets.push(target(None));
        let mut filters = self.of_targets(targets);
        let own = |parent: &RouteParent| parent.service.namespace == route.key.namespace;
        if !route.parents.iter().any(own) {
            filters.retain(|filter| filter.half() == Half::Client);
        }
        filters
    }

    fn complain_of_unreached(&self, cx: &mut Context<'_>, waypoints: &[Arc<Waypoint>]) {
        let mut told = BTreeSet::new();
        for ((namespace, target), claims) in &self.by_target {
            for claim in claims {
                let place = (claim.policy.clone(), claim.index);
                if self.reached.contains(&place) || !told.insert(place) {
                    continue;
                }
                let why = why_unreached(namespace, target, waypoints);
                let why = format!("{why}; the policy is not in force for it");
                complain(cx, &claim.policy, claim.index, ConditionReason::TargetNotFound, why);
            }
        }
    }
}

fn why_unreached(namespace: &Str, target: &Target, waypoints: &[Arc<Waypoint>]) -> String {
    let without = |kind: &str, name: &Str| {
        format!(
            "the {kind} {namespace}/{name} does not exist or has no waypoint; check the label istio.io/use-waypoint on it or \
             its namespace"
        )
    };
    match target {
        Target::Service(name) => without("Service", name),
        Target::ServiceEntry(name) => without("ServiceEntry", name),
        Target::Gateway(name) => {
            let key = ObjectKey::new(namespace.clone(), name.clone());
            match waypoints.iter().any(|waypoint| waypoint.key == key) {
                true => format!("no Service is bound to the waypoint {key}"),
                false => {
                    format!("the Gateway {key} does not exist or is no waypoint that can be used")
                }
            }
        }
        Target::GatewayClass(class) => {
            format!("no Service is bound to a waypoint of the class {class}")
        }
        Target::Route(grpc, name, section) => {
            let kind = if *grpc { RouteKind::Grpc } else { RouteKind::Http };
            match section {
                Some(section) => format!(
                    "the {kind} {namespace}/{name} is not in force or has no rule {section:?}"
                ),
                None => format!("the {kind} {namespace}/{name} does not exist or is not in force"),
            }
        }
    }
}

fn complain(
    cx: &mut Context<'_>,
    policy: &ObjectKey,
    index: usize,
    reason: ConditionReason,
    why: String,
) {
    let condition = Condition::of_parent(ConditionType::Accepted, reason, index);
    let field = format!("spec.targetRefs[{index}]");
    cx.error_of(TrafficPolicy::KIND, policy, field, why, condition);
}

fn understand(
    cx: &Context<'_>,
    policy: &ObjectKey,
    target: &PolicyTarget,
) -> Result<Target, (ConditionReason, String)> {
    let name = Str::from(target.name.as_str());
    let found = match (target.group.as_str(), target.kind.as_str()) {
        ("" | "core", "Service") => Target::Service(name),
        (ISTIO_NETWORKING_GROUP, "ServiceEntry") => Target::ServiceEntry(name),
        (GATEWAY_GROUP, "Gateway") => Target::Gateway(name),
        (GATEWAY_GROUP, "GatewayClass") if !cx.is_root(&policy.namespace) => {
            let why = format!(
                "a GatewayClass can only be targeted from the root namespace {:?}",
                cx.settings.root_namespace
            );
            return Err((ConditionReason::Invalid, why));
        }
        (GATEWAY_GROUP, "GatewayClass") => Target::GatewayClass(name),
        (GATEWAY_GROUP, kind @ ("HTTPRoute" | "GRPCRoute")) => {
            let section = target.section_name.as_deref().map(Str::from);
            return Ok(Target::Route(kind == "GRPCRoute", name, section));
        }
        (group, kind) => {
            let why = format!(
                "{kind:?} of group {group:?} is not a target; Service (group \"\"), ServiceEntry, Gateway, GatewayClass, \
                 HTTPRoute and GRPCRoute are"
            );
            return Err((ConditionReason::Invalid, why));
        }
    };
    if target.section_name.is_some() {
        let why = format!(
            "sectionName is only possible for routes, where it names a rule, not for {}",
            target.kind
        );
        return Err((ConditionReason::Invalid, why));
    }
    Ok(found)
}
