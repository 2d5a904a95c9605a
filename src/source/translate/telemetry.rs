//! Telemetry objects, merged over the levels as Istio does, with the providers of MeshConfig.
//!
//! | level | which objects |
//! | --- | --- |
//! | settings | the section `[tracing]` of the agents |
//! | mesh | MeshConfig's `defaultConfig.tracing.sampling` and `defaultProviders`; a Telemetry of the root namespace that is attached to nothing |
//! | namespace | a Telemetry that is attached to nothing |
//! | workload | one with a selector |
//! | target | one with `targetRefs`: of a Gateway, then an XTelemetryPolicy of that Gateway, then one of a Service or ServiceEntry |
//!
//! Each field that a narrower level gives replaces what the wider ones say. At each level the oldest object counts, by itself for
//! each section of its spec.

mod both;
mod level;
mod logging;
mod metrics;
mod policies;
mod providers;
#[cfg(test)]
mod tests;
mod tracing;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::attachment::{self, Attachment, Selecting, Selections};
use super::{Attach, Context};
use crate::base::{ObjectKey, Str};
use crate::expression::{Expression, ExpressionError};
use crate::model::{Mesh, Observation, PolicyTarget, Scope, Service, Sides, Workload};
use crate::source::objects::{Labelled, Pod, Telemetry, created};
use level::Level;
use policies::Policies;
use providers::Providers;

const TAKEN: &str = "an older Telemetry (of equally old ones the first by name) says something of all that this one does and is \
                     attached to the same; this one has no effect";

const NO_PROVIDER: &str = "nothing is recorded: no provider is named here, in a wider Telemetry, in MeshConfig's \
                           defaultProviders.tracing or in the section [tracing] of the settings";

/// The previous result, so that worlds share it, and the expressions that objects have.
#[derive(Default)]
pub(super) struct Attachments {
    before: Arc<Observation>,
    expressions: Expressions,
}

/// Expressions by their texts, which are parsed once. Those that no object has any more are forgotten.
#[derive(Default)]
struct Expressions {
    known: HashMap<String, Parsed>,
    used: HashMap<String, Parsed>,
}

type Parsed = Result<Arc<Expression>, ExpressionError>;

impl Expressions {
    fn parse(&mut self, text: &str) -> Parsed {
        let known = self.used.get(text).or_else(|| self.known.get(text)).cloned();
        let parsed = known.unwrap_or_else(|| Expression::parse(text).map(Arc::new));
        self.used.insert(text.to_owned(), parsed.clone());
        parsed
    }

    /// The end of a translation.
    fn settle(&mut self) {
        self.known = std::mem::take(&mut self.used);
    }
}

impl Attach for Attachments {
    fn attach(&mut self, cx: &mut Context<'_>, mesh: &mut Mesh) {
        let observation = observation(cx, mesh, &mut self.expressions);
        self.expressions.settle();
        if *self.before != observation {
            self.before = Arc::new(observation);
        }
        mesh.observation = self.before.clone();
    }
}

/// The merged settings of the objects at one level, and the objects.
#[derive(Default)]
struct Said {
    by: Vec<ObjectKey>,
    level: Level,
}

/// The settings of all objects, by what they are attached to.
#[derive(Default)]
struct All {
    mesh: Said,
    namespaces: BTreeMap<Str, Said>,
    /// Objects with a selector, the oldest first.
    selecting: Vec<(ObjectKey, Said)>,
    targets: HashMap<(Str, PolicyTarget), Said>,
}

fn observation(cx: &mut Context<'_>, mesh: &Mesh, expressions: &mut Expressions) -> Observation {
    let providers = Providers::read(cx);
    let base = level::of_settings(cx, &providers);
    let (mut all, mut selecting) = (All::default(), Selecting::default());
    let objects = cx.objects;
    let mut telemetries: Vec<_> = objects.all::<Telemetry>().collect();
    telemetries.sort_by_key(|(key, telemetry)| (created(&telemetry.metadata), *key));
    for (key, telemetry) in telemetries {
        let level = level::read(cx, key, &telemetry.spec, &providers, expressions);
        let written = telemetry.spec.attached_to();
        let (attachment, fault) = attachment::of::<Telemetry>(cx, key, written);
        if let Some(fault) = fault {
            cx.error::<Telemetry>(key, fault.field, fault.why);
            continue;
        }
        if !all.add(cx, &mut selecting, key, attachment, &level) {
            cx.warn::<Telemetry>(key, "", TAKEN);
        }
    }
    let policies = Policies::read(cx, mesh);
    let selections = selecting.finish();
    let settling = Settling { all: &all, policies: &policies, base: &base, selections };
    settling.settle(cx, mesh)
}

impl Said {
    /// Adds sections that no older object sets. False if there are none.
    fn add(&mut self, key: &ObjectKey, level: &Level) -> bool {
        let added = self.level.fill(level);
        if added {
            self.by.push(key.clone());
        }
        added
    }
}

impl All {
    /// False if older objects leave it without any effect.
    fn add(
        &mut self,
        cx: &mut Context<'_>,
        selecting: &mut Selecting,
        key: &ObjectKey,
        to: Attachment,
        level: &Level,
    ) -> bool {
        if level.is_empty() {
            return true;
        }
        let namespace = &key.namespace;
        match to {
            Attachment::Selector(_) => {
                selecting.scope_of(key, to);
                let mut said = Said::default();
                said.add(key, level);
                self.selecting.push((key.clone(), said));
                true
            }
            Attachment::Scope(Scope::Mesh) => self.mesh.add(key, level),
            Attachment::Scope(Scope::Targets(targets)) => {
                let mut added = targets.is_empty();
                for target in targets {
                    if let PolicyTarget::GatewayClass(_) = target {
                        let reason = "a GatewayClass is not carried out as a target of a Telemetry; name the Gateways";
                        cx.warn::<Telemetry>(key, "spec.targetRefs", reason);
                        added = true;
                        continue;
                    }
                    let said = self.targets.entry((namespace.clone(), target)).or_default();
                    added |= said.add(key, level);
                }
                added
            }
            Attachment::Scope(_) => {
                self.namespaces.entry(namespace.clone()).or_default().add(key, level)
            }
        }
    }
}

/// Merges the levels.
struct Settling<'a> {
    all: &'a All,
    policies: &'a Policies,
    base: &'a Level,
    selections: Selections,
}

impl Settling<'_> {
    fn settle(&self, cx: &mut Context<'_>, mesh: &Mesh) -> Observation {
        let of_mesh = self.base.then(Some(&self.all.mesh.level));
        tell(cx, &self.all.mesh, &of_mesh);
        let mut observation = Observation { mesh: of_mesh.sides(), ..Observation::default() };
        for (name, said) in &self.all.namespaces {
            let level = of_mesh.then(Some(&said.level));
            tell(cx, said, &level);
            observation.namespaces.insert(name.clone(), level.sides());
        }
        observation.workloads = self.workloads(cx, mesh, &of_mesh);
        self.targets(cx, mesh, &of_mesh, &mut observation);
        observation.settled()
    }

    fn in_namespace(&self, of_mesh: &Level, name: &str) -> Level {
        of_mesh.then(self.all.namespaces.get(name).map(|said| &said.level))
    }

    /// What is attached to a Gateway, above this level.
    fn at_gateway(&self, level: Level, gateway: &ObjectKey) -> Level {
        let target = PolicyTarget::Gateway(gateway.name.clone());
        let said = self.all.targets.get(&(gateway.namespace.clone(), target));
        level.then(said.map(|said| &said.level)).then(self.policies.of(gateway))
    }

    /// The sides of each selected workload.
    fn workloads(
        &self,
        cx: &mut Context<'_>,
        mesh: &Mesh,
        of_mesh: &Level,
    ) -> BTreeMap<Str, Sides> {
        let mut sides_of: BTreeMap<&ObjectKey, Sides> = BTreeMap::new();
        for (key, said) in &self.all.selecting {
            let level = self.in_namespace(of_mesh, &key.namespace).then(Some(&said.level));
            tell(cx, said, &level);
            sides_of.insert(key, level.sides());
        }
        if sides_of.is_empty() {
            return BTreeMap::new();
        }
        let sides = |workload: &Arc<Workload>| {
            let pod = cx.objects.get::<Pod>(&workload.key)?;
            let labels = pod.labels();
            // The oldest one.
            let by = self.selections.of(&workload.key.namespace, labels).next()?;
            Some((workload.uid.clone(), sides_of.get(by)?.clone()))
        };
        mesh.workloads.iter().filter_map(sides).collect()
    }

    fn targets(
        &self,
        cx: &mut Context<'_>,
        mesh: &Mesh,
        of_mesh: &Level,
        observation: &mut Observation,
    ) {
        for key in self.policies.gateways() {
            let level = self.at_gateway(self.in_namespace(of_mesh, &key.namespace), key);
            observation.waypoints.insert(key.clone(), level.sides());
        }
        for ((namespace, target), said) in &self.all.targets {
            if let PolicyTarget::Gateway(name) = target {
                let key = ObjectKey::new(namespace.clone(), name.clone());
                let level = self.at_gateway(self.in_namespace(of_mesh, namespace), &key);
                tell(cx, said, &level);
                observation.waypoints.insert(key, level.sides());
                continue;
            }
            let is_meant =
                |it: &&Arc<Service>| it.key.namespace == *namespace && it.as_target() == *target;
            for service in mesh.services.iter().filter(is_meant) {
                let level = self.in_namespace(of_mesh, namespace);
                let level = match service.waypoint.waypoint() {
                    Some(waypoint) => self.at_gateway(level, waypoint),
                    None => level,
                };
                let level = level.then(Some(&said.level));
                tell(cx, said, &level);
                observation.services.insert(service.key.clone(), level.sides());
            }
        }
    }
}

/// Complains of objects that ask for spans while no provider is known.
fn tell(cx: &mut Context<'_>, said: &Said, merged: &Level) {
    if merged.records_nothing(&said.level) {
        for key in &said.by {
            cx.warn::<Telemetry>(key, "spec.tracing", NO_PROVIDER);
        }
    }
}
