//! The filters of policies, by target: which one a Service and a rule of a route are given.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::sync::Arc;

use super::super::Context;
use super::target::{Known, Target, listeners, may_be_http};
use crate::base::{ObjectKey, Str};
use crate::filter::{self, Half, HttpFilter, RuleContext};
use crate::model::{
    Binding, HttpRoute, HttpRule, PolicyTarget, PortFilters, RouteParent, Service, Waypoint,
};
use crate::source::objects::{Service as KubernetesService, TrafficPolicy, Typed, created};
use crate::source::{Condition, ConditionReason, ConditionType, Severity};
use crate::world::Attached;

/// A filter for a target, its policy, and the index of the target in the policy.
#[derive(Clone)]
struct Claim {
    filter: HttpFilter,
    policy: ObjectKey,
    index: usize,
}

/// A target of a policy: the policy, and the index of the target in it.
type Place = (ObjectKey, usize);

/// The filters of a Service.
#[derive(Default)]
pub(super) struct OfService {
    pub(super) filters: Vec<HttpFilter>,
    /// Of ports that are targeted themselves, without those of `filters`.
    pub(super) ports: Vec<PortFilters>,
}

/// All claims; for each target no two of one type.
#[derive(Default)]
pub(super) struct Claims {
    attached: Attached<Claim, Target>,
    root_namespace: Str,
    /// Targets that matched something.
    reached: BTreeSet<Place>,
    /// Targets with a filter in force.
    in_force: BTreeSet<Place>,
    /// Routes with filters that destinations ignore, as targets.
    ignored: BTreeMap<Place, Ignored>,
    /// Filters of requests for services whose requests nobody parses, by their fields.
    unparsed: BTreeMap<Place, BTreeSet<&'static str>>,
}

/// What destinations ignore of a route's policy.
#[derive(Default)]
struct Ignored {
    /// The filters' fields.
    fields: BTreeSet<&'static str>,
    /// The route's parents in other namespaces.
    services: BTreeSet<ObjectKey>,
}

/// The object around a filter.
struct Policy<'a>(&'a ObjectKey);

impl RuleContext for Policy<'_> {
    fn policy(&self) -> ObjectKey {
        self.0.clone()
    }
}

impl Claims {
    /// No policy is attached to anything.
    pub(super) fn are_none(&self) -> bool {
        self.attached.is_empty()
    }

    /// The oldest policy first; of policies of one age the one whose name comes first (GEP-713, "Conflict resolution").
    pub(super) fn of(
        cx: &mut Context<'_>,
        known: &mut BTreeMap<ObjectKey, Vec<HttpFilter>>,
    ) -> Self {
        let objects = cx.objects;
        let mut policies: Vec<_> = objects.all::<TrafficPolicy>().collect();
        // One of unknown age counts as the youngest: no API server created it.
        let age = |policy: &TrafficPolicy| match created(&policy.metadata) {
            0 => i64::MAX,
            created => created,
        };
        policies.sort_by_key(|(key, policy)| (age(policy), *key));
        let root_namespace = cx.settings.root_namespace.clone();
        let mut claims = Self { root_namespace, ..Self::default() };
        let mut read = BTreeMap::new();
        for (key, policy) in policies {
            // A policy with a fault was rejected when it was read.
            let mut filters: Vec<HttpFilter> =
                policy.spec.0.filters(&Policy(key)).into_iter().filter_map(Result::ok).collect();
            if let Some(before) = known.get(key) {
                filter::inherit(&mut filters, before);
            }
            read.insert(key.clone(), filters.clone());
            if filters.is_empty() {
                let reason = "names targets and no filter, so it has no effect";
                cx.warn::<TrafficPolicy>(key, "spec", reason);
            }
            let limits = filters.iter().filter_map(|filter| match filter {
                HttpFilter::RateLimit(limit) => Some(limit),
                _ => None,
            });
            for service in limits.flat_map(|limit| limit.services()) {
                if objects.get::<KubernetesService>(service).is_none() {
                    let why = format!("the Service {service} that is to count does not exist");
                    cx.warn::<TrafficPolicy>(key, "spec.rateLimit", why);
                }
            }
            for (index, target) in policy.spec.0.target_refs.iter().enumerate() {
                match Target::read(cx, key, target) {
                    Ok(target @ Target::Route(..)) => {
                        let of_requests = of_requests(cx, (key, index), &filters);
                        claims.add(cx, key, index, target, &of_requests);
                    }
                    Ok(target) => claims.add(cx, key, index, target, &filters),
                    Err((reason, why)) => complain(cx, (key, index), reason, why),
                }
            }
        }
        *known = read;
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
        let held = self.attached.on_target(&policy.namespace, &target);
        for filter in filters {
            let rival = held.iter().find(|it| discriminant(&it.filter) == discriminant(filter));
            match rival {
                Some(rival) if rival.policy != *policy => {
                    let why = format!(
                        "the TrafficPolicy {} is older and says the same of this target; that one is in force",
                        rival.policy
                    );
                    complain(cx, (policy, index), ConditionReason::Conflicted, why);
                }
                Some(_) => {}
                None => held.push(Claim { filter: filter.clone(), policy: policy.clone(), index }),
            }
        }
    }

    /// Those of the most specific target that has one, for each type. `targets`: the most specific first. `parsed`: there is
    /// somebody who sees requests.
    fn of_targets(&mut self, targets: Vec<(Str, Target)>, parsed: bool) -> Vec<Claim> {
        let mut found: Vec<Claim> = Vec::new();
        for (namespace, target) in targets {
            for claim in self.attached.to_target(&namespace, &target) {
                if !parsed && claim.filter.half() != Half::Connection {
                    let place = (claim.policy.clone(), claim.index);
                    self.unparsed.entry(place).or_default().insert(claim.filter.field());
                    continue;
                }
                self.reached.insert((claim.policy.clone(), claim.index));
                let same = |it: &Claim| discriminant(&it.filter) == discriminant(&claim.filter);
                if !found.iter().any(same) {
                    found.push(claim.clone());
                }
            }
        }
        found
    }

    /// What is bound to no waypoint is not parsed; its connections are counted all the same.
    pub(super) fn of_service(
        &mut self,
        cx: &Context<'_>,
        service: &Service,
        waypoints: &[Arc<Waypoint>],
    ) -> OfService {
        let own = |section: Option<Str>| {
            (service.key.namespace.clone(), Target::Traffic(service.as_target(), section))
        };
        let Binding::Waypoint(bound) = &service.waypoint else {
            if !self.attached.is_from(&service.key.namespace) {
                return OfService::default();
            }
            let filters = self.of_targets(vec![own(None)], false);
            let filters = self.put_in_force(filters);
            return OfService { filters, ports: self.of_ports(service, own, false) };
        };
        let concerned = [&service.key.namespace, &bound.namespace, &self.root_namespace];
        if !concerned.iter().any(|it| self.attached.is_from(it)) {
            return OfService::default();
        }
        let of_gateway = |section: Option<Str>| {
            let gateway = PolicyTarget::Gateway(bound.name.clone());
            (bound.namespace.clone(), Target::Traffic(gateway, section))
        };
        let mut targets = vec![own(None)];
        targets.extend(listeners(cx.objects, bound).into_iter().map(|it| of_gateway(Some(it))));
        targets.push(of_gateway(None));
        if let Some(waypoint) = waypoints.iter().find(|waypoint| waypoint.key == *bound) {
            let class = PolicyTarget::GatewayClass(waypoint.class.clone());
            targets.push((self.root_namespace.clone(), Target::Traffic(class, None)));
        }
        let filters = self.of_targets(targets, true);
        let filters = self.put_in_force(filters);
        OfService { filters, ports: self.of_ports(service, own, true) }
    }

    fn of_ports(
        &mut self,
        service: &Service,
        own: impl Fn(Option<Str>) -> (Str, Target),
        parsed: bool,
    ) -> Vec<PortFilters> {
        let named = service.ports.iter().filter(|it| !it.name.is_empty());
        let ports = named.filter_map(|port| {
            let parsed = parsed && may_be_http(port);
            let claims = self.of_targets(vec![own(Some(port.name.clone()))], parsed);
            let filters = self.put_in_force(claims);
            (!filters.is_empty()).then(|| PortFilters { port: port.port, filters })
        });
        ports.collect()
    }

    fn put_in_force(&mut self, claims: Vec<Claim>) -> Vec<HttpFilter> {
        let filters = claims.into_iter().map(|Claim { filter, policy, index }| {
            self.in_force.insert((policy, index));
            filter
        });
        filters.collect()
    }

    /// The destination takes no rules from its clients, so it ignores what is attached to their routes.
    pub(super) fn of_rule(&mut self, route: &HttpRoute, rule: &HttpRule) -> Vec<HttpFilter> {
        if !self.attached.is_from(&route.key.namespace) {
            return Vec::new();
        }
        let target = |section: Option<Str>| {
            let target = Target::Route(route.kind, route.key.name.clone(), section);
            (route.key.namespace.clone(), target)
        };
        let named = Some(rule.name.clone()).filter(|name| !name.is_empty());
        let mut targets: Vec<_> = named.map(|name| target(Some(name))).into_iter().collect();
        targets.push(target(None));
        let own = |parent: &RouteParent| parent.service.namespace == route.key.namespace;
        let is_producers = route.parents.iter().any(own);
        let mut filters = Vec::new();
        for Claim { filter, policy, index } in self.of_targets(targets, true) {
            let of_destination = filter.half() == Half::Destination;
            let place = (policy, index);
            if of_destination && !route.parents.iter().all(own) {
                let others = route.parents.iter().filter(|it| !own(it)).map(|it| &it.service);
                let ignored = self.ignored.entry(place.clone()).or_default();
                ignored.fields.insert(filter.field());
                ignored.services.extend(others.cloned());
            }
            if !of_destination || is_producers {
                self.in_force.insert(place);
                filters.push(filter);
            }
        }
        filters
    }

    pub(super) fn complain_of_unreached(&self, cx: &mut Context<'_>, known: &Known<'_>) {
        let mut told = BTreeSet::new();
        for (namespace, target, claims) in self.attached.targets() {
            for claim in claims {
                let place = (claim.policy.clone(), claim.index);
                if self.reached.contains(&place) || !told.insert(place) {
                    continue;
                }
                let why = known.why_unreached(namespace, target);
                let why = format!("{why}; the policy is not in force for it");
                let place = (&claim.policy, claim.index);
                complain(cx, place, ConditionReason::TargetNotFound, why);
            }
        }
    }

    pub(super) fn complain_of_ignored(&self, cx: &mut Context<'_>) {
        for (place @ (policy, index), fields) in &self.unparsed {
            if !self.in_force.contains(place) {
                // Nothing of it is: the target is not reached.
                continue;
            }
            let fields: Vec<&str> = fields.iter().copied().collect();
            let are = if fields.len() == 1 { "is" } else { "are" };
            let why = format!(
                "{} {are} not in force where nobody parses requests: without a waypoint (istio.io/use-waypoint), and on ports \
                 that are not HTTP",
                fields.join(" and ")
            );
            let reason = ConditionReason::PartiallyProgrammed;
            let condition = Condition::of_parent(ConditionType::Programmed, reason, *index);
            complain_with(cx, (policy, *index), Severity::Warning, condition, why);
        }
        for (place @ (policy, index), Ignored { fields, services }) in &self.ignored {
            let reason = match self.in_force.contains(place) {
                true => ConditionReason::PartiallyProgrammed,
                false => ConditionReason::ConsumerRoute,
            };
            let services: Vec<String> = services.iter().map(ToString::to_string).collect();
            let fields: Vec<&str> = fields.iter().copied().collect();
            let are = if fields.len() == 1 { "is" } else { "are" };
            let why = format!(
                "{} {are} not enforced for the route's parents in other namespaces ({}), whose destinations take no rules from \
                 their clients; attach the policy to the Service or to a route of its namespace",
                fields.join(" and "),
                services.join(", ")
            );
            let condition = Condition::of_parent(ConditionType::Programmed, reason, *index);
            complain_with(cx, (policy, *index), Severity::Warning, condition, why);
        }
    }

    /// As the policies' authors may want it: a default for what says nothing itself.
    pub(super) fn tell_of_overridden(&self, cx: &mut Context<'_>) {
        for place @ (policy, index) in &self.reached {
            if self.in_force.contains(place) || self.ignored.contains_key(place) {
                continue;
            }
            let reason = ConditionReason::Overridden;
            let condition = Condition::of_parent(ConditionType::Programmed, reason, *index);
            let why = "policies with more specific targets set the same fields for everything that belongs to the target";
            complain_with(cx, (policy, *index), Severity::Note, condition, why.to_owned());
        }
    }
}

/// The filters that a route has: those of connections are not its own.
fn of_requests(
    cx: &mut Context<'_>,
    place: (&ObjectKey, usize),
    filters: &[HttpFilter],
) -> Vec<HttpFilter> {
    let (of_connections, of_requests): (Vec<_>, Vec<_>) =
        filters.iter().cloned().partition(|it| it.half() == Half::Connection);
    if let Some(filter) = of_connections.first() {
        let why = format!(
            "{} counts connections, and a route has requests; attach it to the Service",
            filter.field()
        );
        if of_requests.is_empty() {
            complain(cx, place, ConditionReason::Invalid, why);
        } else {
            let reason = ConditionReason::PartiallyProgrammed;
            let condition = Condition::of_parent(ConditionType::Programmed, reason, place.1);
            complain_with(cx, place, Severity::Warning, condition, why);
        }
    }
    of_requests
}

/// The policy does not apply to the target.
fn complain(
    cx: &mut Context<'_>,
    (policy, index): (&ObjectKey, usize),
    reason: ConditionReason,
    why: String,
) {
    let condition = Condition::of_parent(ConditionType::Accepted, reason, index);
    complain_with(cx, (policy, index), Severity::Error, condition, why);
}

fn complain_with(
    cx: &mut Context<'_>,
    (policy, index): (&ObjectKey, usize),
    severity: Severity,
    condition: Condition,
    why: String,
) {
    let field = format!("spec.targetRefs[{index}]");
    cx.complain(severity, TrafficPolicy::KIND, policy, field, why);
    if let Some(complaint) = cx.complaints.last_mut() {
        complaint.condition = Some(condition);
    }
}
