//! The Services of Kubernetes, translated one by one.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::Context;
use super::changes::Changes;
use super::frame::Frame;
use super::roster::{Member, Roster};
use super::selectors::Selectors;
use super::service::endpoints::{Endpoints, service_of};
use super::service::{self, selector};
use super::translator::Moved;
use crate::base::{ObjectKey, Str};
use crate::model;
use crate::source::objects::{EndpointSlice, Labelled, Service, WorkloadEntry};
use crate::source::{Complaint, Objects};

/// Kept from translation to translation.
#[derive(Default)]
pub(super) struct Services {
    known: BTreeMap<ObjectKey, Known>,
    /// By namespace: which services select a pod.
    selectors: BTreeMap<Str, Selectors<ObjectKey>>,
    /// The service of each EndpointSlice, to find it again when the slice is gone or leads elsewhere.
    slice_of: BTreeMap<ObjectKey, ObjectKey>,
}

struct Known {
    /// `None` for one that takes no traffic.
    model: Option<Arc<model::Service>>,
    complaints: Vec<Complaint>,
}

impl Services {
    /// In the order of their keys.
    pub(super) fn models(&self) -> Vec<Arc<model::Service>> {
        self.known.values().filter_map(|known| known.model.clone()).collect()
    }

    pub(super) fn complaints(&self) -> impl Iterator<Item = &Complaint> {
        self.known.values().flat_map(|known| &known.complaints)
    }

    /// Translates what `changes` and the pods that `moved` concern. Whether more than endpoints changed.
    pub(super) fn update(
        &mut self,
        cx: &mut Context<'_>,
        frame: &Frame,
        roster: &Roster,
        changes: &Changes,
        moved: &[Moved],
    ) -> bool {
        let objects = cx.objects;
        self.follow_selectors(objects, changes);
        let concerned = self.concerned(objects, changes, moved);
        self.follow_slices(objects, changes);
        if concerned.is_empty() {
            return false;
        }
        let wanted = concerned.iter().filter_map(|key| Some((key, objects.get::<Service>(key)?)));
        let endpoints = Endpoints::index(objects, roster, wanted.clone());
        let mut reshaped = false;
        for key in &concerned {
            let Some(service) = objects.get::<Service>(key) else {
                reshaped |= self.known.remove(key).is_some();
                continue;
            };
            let mut model = service::translate(cx, &frame.waypoints, &endpoints, key, service);
            if let Some(model) = &mut model {
                model.encryption = frame.encryptions.of(model);
            }
            let before = self.known.get(key).and_then(|known| known.model.as_ref());
            let same = before.filter(|before| model.as_ref() == Some(&***before)).cloned();
            reshaped |= same.is_none() && !is_same_but_for_endpoints(before, model.as_ref());
            let model = same.or_else(|| model.map(Arc::new));
            let complaints = std::mem::take(&mut cx.complaints);
            self.known.insert(key.clone(), Known { model, complaints });
        }
        reshaped
    }

    /// Services that may not be what they were.
    fn concerned(
        &self,
        objects: &Objects,
        changes: &Changes,
        moved: &[Moved],
    ) -> BTreeSet<ObjectKey> {
        let mut concerned = changes.services.clone();
        if changes.all_services {
            concerned.extend(objects.all::<Service>().map(|(key, _)| key.clone()));
            concerned.extend(self.known.keys().cloned());
            return concerned;
        }
        for key in &changes.slices {
            concerned.extend(self.slice_of.get(key).cloned());
            concerned.extend(objects.get(key).and_then(|slice| service_of(key, slice)));
        }
        let mut namespaces = changes.services_of.clone();
        if !moved.is_empty() {
            let places = Places::of(moved);
            for moved in moved {
                concerned.extend(self.selecting(moved));
            }
            let slices = objects.all::<EndpointSlice>();
            let leading = slices.filter(|(key, slice)| places.are_led_to(key, slice));
            concerned.extend(leading.filter_map(|(key, slice)| service_of(key, slice)));
            let entries = objects.all::<WorkloadEntry>();
            let there = entries.filter(|(_, entry)| places.has(&entry.spec.address));
            namespaces.extend(there.map(|(key, _)| key.namespace.clone()));
        }
        for namespace in &namespaces {
            concerned.extend(objects.all_in::<Service>(namespace).map(|(key, _)| key.clone()));
        }
        concerned
    }

    /// The services that select a pod as it was or as it is.
    fn selecting(&self, moved: &Moved) -> BTreeSet<ObjectKey> {
        let Some(selectors) = self.selectors.get(&moved.key.namespace) else {
            return BTreeSet::new();
        };
        let versions = [&moved.before, &moved.after].into_iter().flatten();
        let labels = versions.filter_map(|member| member.pod()?.labels());
        labels.flat_map(|labels| selectors.selecting(Some(labels))).cloned().collect()
    }

    fn follow_selectors(&mut self, objects: &Objects, changes: &Changes) {
        let pair = |(key, service): (&ObjectKey, &Service)| {
            Some((selector(service)?.clone(), key.clone()))
        };
        if changes.all_services {
            let mut lists: BTreeMap<Str, Vec<_>> = BTreeMap::new();
            for (key, service) in objects.all::<Service>() {
                lists.entry(key.namespace.clone()).or_default().extend(pair((key, service)));
            }
            let lists = lists.into_iter().map(|(key, list)| (key, list.into_iter().collect()));
            self.selectors = lists.collect();
            return;
        }
        let namespaces: BTreeSet<&Str> =
            changes.services.iter().map(|key| &key.namespace).collect();
        for namespace in namespaces {
            let selectors = objects.all_in::<Service>(namespace).filter_map(pair).collect();
            self.selectors.insert(namespace.clone(), selectors);
        }
    }

    fn follow_slices(&mut self, objects: &Objects, changes: &Changes) {
        if changes.all_services {
            let slices = objects.all::<EndpointSlice>();
            let led =
                slices.filter_map(|(key, slice)| Some((key.clone(), service_of(key, slice)?)));
            self.slice_of = led.collect();
            return;
        }
        for key in &changes.slices {
            let slice = objects.get::<EndpointSlice>(key);
            match slice.and_then(|slice| service_of(key, slice)) {
                Some(service) => _ = self.slice_of.insert(key.clone(), service),
                None => _ = self.slice_of.remove(key),
            }
        }
    }
}

/// Where the pods that moved were, or are.
struct Places<'a> {
    pods: HashSet<&'a ObjectKey>,
    addresses: HashSet<IpAddr>,
}

impl<'a> Places<'a> {
    fn of(moved: &'a [Moved]) -> Self {
        let versions = moved.iter().flat_map(|moved| [&moved.before, &moved.after]).flatten();
        let addresses = versions.flat_map(|member: &Member| &member.workload.addresses).copied();
        Self {
            pods: moved.iter().map(|moved| &moved.key).collect(),
            addresses: addresses.collect(),
        }
    }

    fn has(&self, address: &str) -> bool {
        address.parse().is_ok_and(|address| self.addresses.contains(&address))
    }

    /// An endpoint of the slice is one of them, by name or by address.
    fn are_led_to(&self, key: &ObjectKey, slice: &EndpointSlice) -> bool {
        slice.endpoints.iter().flatten().any(|endpoint| {
            let target = endpoint.target_ref.as_ref();
            let named = target.is_some_and(|target| {
                let namespace = target.namespace.as_deref().unwrap_or(&key.namespace);
                let name = target.name.as_deref().unwrap_or_default();
                self.pods.contains(&ObjectKey::new(namespace, name))
            });
            named || endpoint.addresses.first().is_some_and(|address| self.has(address))
        })
    }
}

fn is_same_but_for_endpoints(
    before: Option<&Arc<model::Service>>,
    after: Option<&model::Service>,
) -> bool {
    match (before, after) {
        (None, None) => true,
        (Some(before), Some(after)) => {
            let bare = |service: &model::Service| model::Service {
                endpoints: Vec::new(),
                ..service.clone()
            };
            before.endpoints != after.endpoints && bare(before) == bare(after)
        }
        _ => false,
    }
}
