//! The Services of Kubernetes, translated one by one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::Context;
use super::changes::Changes;
use super::frame::Frame;
use super::roster::{Moved, Roster};
use super::selectors::{Selectors, selector};
use super::service::endpoints::Endpoints;
use super::service::{self, Allotted};
use super::service_ports::{Pairs, pairs};
use super::slices::{SERVICE_NAME, Slices, addresses, service_of};
use super::waypoint::label_field;
use crate::base::{ObjectKey, Str, work};
use crate::model;
use crate::source::objects::{EndpointSlice, Kind, Labelled, Service, WorkloadEntry};
use crate::source::{Complaint, Objects, Severity};

/// Kept from translation to translation.
#[derive(Default)]
pub(super) struct Services {
    known: BTreeMap<ObjectKey, Known>,
    /// By namespace: which services select a pod.
    selectors: BTreeMap<Str, Selectors<ObjectKey>>,
    slices: Slices,
    /// Of slices that name a service which is not there, by that.
    orphans: BTreeMap<ObjectKey, Vec<Complaint>>,
    /// Of slices that name no service.
    loose: Vec<Complaint>,
    /// The namespaces of WorkloadEntries, by address.
    entries_at: HashMap<IpAddr, BTreeSet<Str>>,
    /// Ports of some service or its endpoints are not what they were.
    retargeted: bool,
}

/// A service of which more than the endpoints changed.
pub(super) struct Reshaped {
    pub(super) key: ObjectKey,
    pub(super) before: Option<Arc<model::Service>>,
    pub(super) after: Option<Arc<model::Service>>,
}

struct Known {
    /// `None` for one that takes no traffic.
    model: Option<Arc<model::Service>>,
    complaints: Vec<Complaint>,
    /// Its ports, and what they are at its endpoints.
    pairs: Pairs,
}

impl Services {
    /// In the order of their keys.
    pub(super) fn models(&self) -> Vec<Arc<model::Service>> {
        self.known.values().filter_map(|known| known.model.clone()).collect()
    }

    pub(super) fn complaints(&self) -> impl Iterator<Item = &Complaint> {
        let services = self.known.values().flat_map(|known| &known.complaints);
        services.chain(self.orphans.values().flatten()).chain(&self.loose)
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&Arc<model::Service>> {
        self.known.get(key)?.model.as_ref()
    }

    /// Ports of each Service, and what they are at its endpoints.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&ObjectKey, &Pairs)> {
        self.known.iter().map(|(key, known)| (key, &known.pairs))
    }

    /// Whether ports of some service or its endpoints are not what they were when this was asked last.
    pub(super) fn take_retargeted(&mut self) -> bool {
        std::mem::take(&mut self.retargeted)
    }

    /// Translates what `changes` and the pods that `moved` concern. Returns what is not as it was, endpoints aside.
    pub(super) fn update(
        &mut self,
        cx: &mut Context<'_>,
        frame: &Frame,
        roster: &Roster,
        changes: &Changes,
        moved: &[Moved],
    ) -> Vec<Reshaped> {
        let objects = cx.objects;
        self.follow_selectors(objects, changes);
        self.follow_entries(objects, changes);
        let mut concerned = self.concerned(objects, changes, moved);
        self.slices.follow(objects, changes);
        concerned.extend(self.slices.leading_to(moved));
        if changes.all_services {
            self.orphans.clear();
            concerned.extend(self.slices.services().cloned());
        }
        if changes.all_services || !changes.slices.is_empty() {
            self.slices.loose().for_each(|slice| complain_of_loose(cx, slice));
            self.loose = std::mem::take(&mut cx.complaints);
        }
        let mut reshaped = Vec::new();
        let wanted = concerned.iter().filter_map(|key| Some((key, objects.get::<Service>(key)?)));
        let endpoints = Endpoints::index(objects, (roster, &frame.rules), &self.slices, wanted);
        let allotted = Allotted::of(objects, &cx.settings.cluster_domain, concerned.iter());
        for key in &concerned {
            self.orphans.remove(key);
            let Some(service) = objects.get::<Service>(key) else {
                if let Some(gone) = self.known.remove(key) {
                    reshaped.push(Reshaped { key: key.clone(), before: gone.model, after: None });
                }
                self.slices.of(key).for_each(|slice| complain_of_orphan(cx, slice, key));
                if !cx.complaints.is_empty() {
                    self.orphans.insert(key.clone(), std::mem::take(&mut cx.complaints));
                }
                continue;
            };
            work::did("services translated");
            let mut model =
                service::translate(cx, &frame.waypoints, (&endpoints, &allotted), key, service);
            let before = self.known.get(key).and_then(|known| known.model.as_ref());
            model.iter_mut().for_each(|model| add_rules(model, frame, before));
            let same = before.filter(|before| model.as_ref() == Some(&***before)).cloned();
            let is_reshaped = same.is_none() && !is_same_but_for_endpoints(before, model.as_ref());
            let before = before.cloned();
            let model = same.or_else(|| model.map(Arc::new));
            if is_reshaped {
                reshaped.push(Reshaped { key: key.clone(), before, after: model.clone() });
            }
            let complaints = std::mem::take(&mut cx.complaints);
            let pairs = model.iter().flat_map(|it| pairs(it)).collect();
            let before = self.known.get(key).map(|known| &known.pairs);
            self.retargeted |= changes.services.contains(key) || before != Some(&pairs);
            self.known.insert(key.clone(), Known { model, complaints, pairs });
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
            concerned.extend(self.slices.service_of(key).cloned());
            concerned.extend(objects.get(key).and_then(|slice| service_of(key, slice)));
        }
        let mut namespaces = changes.services_of.clone();
        for moved in moved {
            concerned.extend(self.selecting(moved));
        }
        let there = addresses(moved).filter_map(|address| self.entries_at.get(&address));
        namespaces.extend(there.flatten().cloned());
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

    fn follow_entries(&mut self, objects: &Objects, changes: &Changes) {
        if !(changes.all_services || changes.workload_entries) {
            return;
        }
        self.entries_at.clear();
        for (key, entry) in objects.all::<WorkloadEntry>() {
            if let Ok(address) = entry.spec.address.parse() {
                self.entries_at.entry(address).or_default().insert(key.namespace.clone());
            }
        }
    }
}

/// Adds what rules of other kinds say of the service.
fn add_rules(model: &mut model::Service, frame: &Frame, before: Option<&Arc<model::Service>>) {
    model.encryption = frame.encryptions.of(model, &[]);
    frame.rules.apply(model);
    if let Some(before) = before {
        model.traffic.inherit(&before.traffic);
    }
    model.note_endpoints();
}

/// A slice that belongs to nothing.
fn complain_of_loose(cx: &mut Context<'_>, slice: &ObjectKey) {
    let reason = format!(
        "is missing, so the slice belongs to no Service and has no effect; give it the label {SERVICE_NAME} with the \
         Service's name"
    );
    cx.warn::<EndpointSlice>(slice, label_field(SERVICE_NAME), reason);
}

/// For information: where a Service is deleted, its slices follow a moment later.
fn complain_of_orphan(cx: &mut Context<'_>, slice: &ObjectKey, service: &ObjectKey) {
    let reason = format!(
        "there is no Service {service}, so the slice has no effect; check the name, and that both are in one namespace"
    );
    let field = label_field(SERVICE_NAME);
    cx.complain(Severity::Note, Kind::EndpointSlice, slice, field, reason);
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
