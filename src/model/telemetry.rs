//! How requests and connections are observed: Telemetry objects, MeshConfig and the settings, merged.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Service, Workload};
use crate::base::{ObjectKey, Str};
use crate::telemetry::Rules;
use crate::trace::{Kind, Tracing};

/// The merged levels. The narrowest one holds; it includes the wider ones.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Observation {
    pub mesh: Sides,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<Str, Sides>,
    /// By uid.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub workloads: BTreeMap<Str, Sides>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", serialize_with = "as_list")]
    pub waypoints: BTreeMap<ObjectKey, Sides>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", serialize_with = "as_list")]
    pub services: BTreeMap<ObjectKey, Sides>,
    /// Some level differs from the default. If none does, requests need no look-up.
    #[serde(skip)]
    pub speaks: bool,
}

/// How both sides of a call are observed.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Sides {
    #[serde(skip_serializing_if = "Observed::is_plain")]
    pub client: Observed,
    #[serde(skip_serializing_if = "Observed::is_plain")]
    pub server: Observed,
}

/// How one side of a call is observed.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Observed {
    /// `None` where no spans are recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Arc<Tracing>>,
    /// The rules for the access log and the metrics, where one differs from the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Arc<Rules>>,
}

impl Observed {
    /// Nothing differs from the default.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

impl Sides {
    pub fn of(&self, side: Kind) -> &Observed {
        match side {
            Kind::Client => &self.client,
            Kind::Server => &self.server,
        }
    }
}

impl Observation {
    /// Settles [`speaks`](Self::speaks).
    pub fn settled(mut self) -> Self {
        let Self { mesh, namespaces, workloads, waypoints, services, .. } = &self;
        let narrower = namespaces.values().chain(workloads.values());
        let targets = waypoints.values().chain(services.values());
        let mut all = std::iter::once(mesh).chain(narrower).chain(targets);
        self.speaks = all.any(|sides| *sides != Sides::default());
        self
    }

    /// How a workload's side of a call is observed, to a service where one was addressed.
    ///
    /// The level of a service or its waypoint holds only for workloads of the service's namespace, so that its owner cannot direct
    /// the spans, logs and metrics of others.
    pub fn of(&self, side: Kind, workload: &Workload, service: Option<&Service>) -> &Observed {
        let namespace = &workload.key.namespace;
        let own = service.filter(|service| service.key.namespace == *namespace);
        let of_target = own.and_then(|service| {
            let waypoint = || self.waypoints.get(service.waypoint.waypoint()?);
            self.services.get(&service.key).or_else(waypoint)
        });
        let of_workload = || self.workloads.get(&workload.uid);
        let of_namespace = || self.namespaces.get(namespace);
        let sides = of_target.or_else(of_workload).or_else(of_namespace);
        sides.unwrap_or(&self.mesh).of(side)
    }
}

/// An object's key is no text, as JSON's keys are.
fn as_list<S: serde::Serializer>(
    sides: &BTreeMap<ObjectKey, Sides>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(sides)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Rate;
    use crate::world::fixture::{key, service, workload};

    /// Sides that tell by their rate where they come from.
    fn sides(percentage: f64) -> Sides {
        let rate = Rate::of_percentage(percentage);
        let observed = Observed {
            tracing: Some(Arc::new(Tracing { rate, ..Tracing::default() })),
            ..Observed::default()
        };
        Sides { client: observed.clone(), server: observed }
    }

    #[test]
    fn the_narrowest_level_holds() {
        let mut web = service("web", "10.96.0.1", &[]);
        web.waypoint = crate::model::Binding::Waypoint(key("wp"));
        let plain = service("plain", "10.96.0.2", &[]);
        let (pod, other) = (workload("web-1", "10.0.0.1"), workload("else/a", "10.0.0.2"));
        let all = Observation {
            mesh: sides(1.0),
            namespaces: [(pod.key.namespace.clone(), sides(2.0))].into(),
            workloads: [(pod.uid.clone(), sides(3.0))].into(),
            waypoints: [(key("wp"), sides(4.0))].into(),
            services: BTreeMap::new(),
            speaks: true,
        };
        let with_service =
            Observation { services: [(key("web"), sides(5.0))].into(), ..all.clone() };
        let without_workload = Observation { workloads: BTreeMap::new(), ..all.clone() };
        for (level, of, workload, service) in [
            (5.0, &with_service, &pod, Some(&web)),
            (4.0, &all, &pod, Some(&web)),
            (3.0, &all, &pod, Some(&plain)),
            (3.0, &all, &pod, None),
            (2.0, &without_workload, &pod, None),
            // Another namespace's service says nothing of this workload.
            (1.0, &with_service, &other, Some(&web)),
            (1.0, &with_service, &other, None),
        ] {
            let found = of.of(Kind::Server, workload, service);
            assert_eq!(*found, sides(level).server, "{level}");
        }
    }
}
