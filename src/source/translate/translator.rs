//! Translation after translation: what did not change is kept, and shared with the mesh before.
//!
//! A translator gives what a new one would give over the same objects; it only spares the work. It is told which
//! objects changed, and works out what else has to be looked at: the services that select a pod, the workloads that a
//! policy selects, and so on. What was looked at and says the same stays the same allocation, so that whoever compares
//! two meshes can compare pointers.
//!
//! For one changed pod that is the pod and the services that select it, now or before; for a service, the routes that look at it.
//! ServiceEntries are translated together, when anything changes that one of them looks at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::changes::Changes;
use super::entries::Entries;
use super::frame::Frame;
use super::roster::{Member, Moved, Roster};
use super::route::Routes;
use super::selected::Selected;
use super::service_ports::Ports;
use super::services::Services;
use super::sources::Sources;
use super::virtual_service::VirtualServices;
use super::{
    Attach, Context, TranslateSettings, Translation, attachments, authorization_policy, encryption,
    labels, peer_authentication, service, unserved, workload,
};
use crate::base::{ObjectKey, Str};
use crate::model::{self, Mesh};
use crate::source::objects::{Kind, Pod, Typed};
use crate::source::{Complaint, Objects};

/// Pods of one namespace of which the same is said.
const ALIKE: usize = 5;

/// Translates, and remembers.
pub struct Translator {
    settings: TranslateSettings,
    frame: Option<Frame>,
    roster: Roster,
    /// Of pods that there is something to say of.
    pod_complaints: BTreeMap<ObjectKey, Vec<Complaint>>,
    services: Services,
    entries: Entries,
    routes: Routes,
    sources: Sources,
    virtual_services: VirtualServices,
    target_complaints: Vec<Complaint>,
    /// Of addresses that several services have.
    address_complaints: Vec<Complaint>,
    /// Of addresses that several pods have.
    contested: Vec<Complaint>,
    selected: Selected,
    /// Of policies that select no pod.
    selecting_nothing: Vec<Complaint>,
    unserved_complaints: Vec<Complaint>,
    label_complaints: Vec<Complaint>,
    attachments: Vec<Box<dyn Attach>>,
    /// Of policies that are attached.
    attached_complaints: Vec<Complaint>,
}

impl Translator {
    pub fn new(settings: TranslateSettings) -> Self {
        Self {
            settings,
            frame: None,
            roster: Roster::default(),
            pod_complaints: BTreeMap::new(),
            services: Services::default(),
            entries: Entries::default(),
            routes: Routes::default(),
            sources: Sources::default(),
            virtual_services: VirtualServices::default(),
            target_complaints: Vec::new(),
            address_complaints: Vec::new(),
            contested: Vec::new(),
            selected: Selected::default(),
            selecting_nothing: Vec::new(),
            unserved_complaints: Vec::new(),
            label_complaints: Vec::new(),
            attachments: attachments(),
            attached_complaints: Vec::new(),
        }
    }

    /// Translates `objects`, of which `changed` are not as they were at the last call; `None` stands for all.
    pub fn translate(
        &mut self,
        objects: &Objects,
        changed: Option<&BTreeSet<(Kind, ObjectKey)>>,
    ) -> Translation {
        let settings = self.settings.clone();
        let mut cx = Context { objects, settings: &settings, complaints: Vec::new() };
        let mut changes = match changed.filter(|_| self.frame.is_some()) {
            Some(changed) => Changes::of(changed),
            None => Changes::everything(),
        };
        let frame = self.reframe(&mut cx, &mut changes);
        let pods = self.pods_to_translate(objects, &changes);
        let without_pods = self.roster.is_empty();
        let moved = self.translate_pods(&mut cx, &frame, pods);
        if self.roster.is_empty() != without_pods {
            // What selects none of them says so only where there are any.
            changes.all_services = true;
            changes.entries = true;
        }
        self.complain_of_pods(&mut cx, &changes, &moved);
        let reshaped = self.services.update(&mut cx, &frame, &self.roster, &changes, &moved);
        let mut services = self.services.models();
        if !reshaped.is_empty() {
            service::complain_of_shared_addresses(&mut cx, &services);
            self.address_complaints = std::mem::take(&mut cx.complaints);
        }
        let place = (&frame, &self.roster);
        let entries = self.entries.update(&mut cx, place, &changes, &moved, &reshaped, &services);
        services.extend_from_slice(&self.entries.models);
        let of_entries = (&self.entries.models[..], !entries.is_empty());
        self.routes.update(&mut cx, &changes, &reshaped, &self.services, of_entries);
        let (sources, services_of) = (&self.sources, &services[..]);
        let what = (&changes, &reshaped[..], !entries.is_empty());
        self.virtual_services.update(&mut cx, sources, what, services_of, &self.routes);
        let retargeted = self.services.take_retargeted();
        if changes.frame || retargeted || !reshaped.is_empty() || !entries.is_empty() {
            let (policies, waypoints) = (&frame.policies, &frame.waypoints);
            let ports = Ports::new(&cx, self.services.pairs(), &services);
            authorization_policy::check_targets(&mut cx, policies, waypoints, &ports);
            peer_authentication::check_ports(&mut cx, &ports);
            encryption::check_targets(&mut cx, &ports);
            self.target_complaints = std::mem::take(&mut cx.complaints);
        }
        self.complain_of_kinds(&mut cx, &changes);
        let mut mesh = self.mesh(&frame, services);
        for kind in &mut self.attachments {
            kind.attach(&mut cx, &mut mesh);
        }
        self.attached_complaints = std::mem::take(&mut cx.complaints);
        let complaints = self.complaints(objects, &frame);
        self.frame = Some(frame);
        Translation { mesh, complaints }
    }

    /// What was translated, without what policies attach to it.
    fn mesh(&self, frame: &Frame, services: Vec<Arc<model::Service>>) -> Mesh {
        let virtual_services = &self.virtual_services;
        Mesh {
            workloads: self.roster.workloads().cloned().collect(),
            services,
            waypoints: frame.waypoints.usable().cloned().collect(),
            routes: [&self.routes.models()[..], virtual_services.models()].concat(),
            stream_routes: [&self.routes.streams()[..], virtual_services.streams()].concat(),
            policies: frame.policies.models().to_vec(),
            access_log: frame.access_log.clone(),
            observation: Arc::default(),
            retry: frame.retry.clone(),
        }
    }

    fn reframe(&mut self, cx: &mut Context<'_>, changes: &mut Changes) -> Frame {
        if changes.virtual_services {
            let sources = Sources::collect(cx);
            changes.all_pods |= sources != self.sources;
            self.sources = sources;
        }
        let sources = self.sources.clone();
        let mut frame = match self.frame.take() {
            Some(frame) if !changes.frame => frame,
            before => {
                let mut frame = Frame::collect(cx);
                if let Some(before) = before {
                    changes.reframe(frame.replace(&before), &self.settings.root_namespace);
                }
                frame
            }
        };
        frame.sources = sources;
        frame
    }

    fn pods_to_translate(&self, objects: &Objects, changes: &Changes) -> BTreeSet<ObjectKey> {
        let mut pods = changes.pods.clone();
        if changes.all_pods {
            pods.extend(objects.all::<Pod>().map(|(key, _)| key.clone()));
            pods.extend(self.roster.workloads().map(|workload| workload.key.clone()));
            return pods;
        }
        for namespace in &changes.pods_of {
            pods.extend(objects.all_in::<Pod>(namespace).map(|(key, _)| key.clone()));
        }
        if !changes.nodes.is_empty() {
            let there = |workload: &&Arc<model::Workload>| changes.nodes.contains(&workload.node);
            pods.extend(self.roster.workloads().filter(there).map(|it| it.key.clone()));
        }
        pods
    }

    /// Returns what is not as it was.
    fn translate_pods(
        &mut self,
        cx: &mut Context<'_>,
        frame: &Frame,
        pods: BTreeSet<ObjectKey>,
    ) -> Vec<Moved> {
        let mut moved = Vec::new();
        for key in pods {
            let object = cx.objects.shared::<Pod>(&key).cloned();
            let pod = object.as_ref().and_then(|object| Pod::of(object));
            let translated = pod.and_then(|pod| {
                let sibling = self.roster.sibling(&key, pod);
                workload::translate(cx, frame, (&key, pod), sibling)
            });
            match std::mem::take(&mut cx.complaints) {
                none if none.is_empty() => _ = self.pod_complaints.remove(&key),
                some => _ = self.pod_complaints.insert(key.clone(), some),
            }
            let before = self.roster.get(&key);
            let after = translated.zip(object).map(|(translated, object)| {
                let same = before.map(|it| &it.workload).filter(|it| ***it == translated);
                Member::new(same.cloned().unwrap_or_else(|| Arc::new(translated)), object)
            });
            let before = match &after {
                Some(after) if before.is_some_and(|before| before.is_same(after)) => continue,
                Some(after) => self.roster.insert(after.clone()),
                None => self.roster.remove(&key),
            };
            if before.is_some() || after.is_some() {
                moved.push(Moved { key, before, after });
            }
        }
        moved
    }

    /// What is said of all pods together: addresses of several, and selectors that select none.
    fn complain_of_pods(&mut self, cx: &mut Context<'_>, changes: &Changes, moved: &[Moved]) {
        if !moved.is_empty() {
            self.roster.complain_of_contested(cx);
            self.contested = std::mem::take(&mut cx.complaints);
        }
        if changes.frame || !moved.is_empty() {
            self.selected.update(cx, &self.roster, moved, changes.frame);
            self.selected.complain(cx, &self.roster);
            self.selecting_nothing = std::mem::take(&mut cx.complaints);
        }
    }

    /// What is said of kinds as a whole.
    fn complain_of_kinds(&mut self, cx: &mut Context<'_>, changes: &Changes) {
        if changes.unserved {
            unserved::complain(cx);
            self.unserved_complaints = std::mem::take(&mut cx.complaints);
        }
        if changes.labels {
            labels::check_all(cx);
            self.label_complaints = std::mem::take(&mut cx.complaints);
        }
    }

    fn complaints(&self, objects: &Objects, frame: &Frame) -> Vec<Complaint> {
        let mut all = objects.complaints().to_vec();
        all.extend_from_slice(&frame.complaints);
        all.extend(bounded(self.pod_complaints.values().flatten()));
        all.extend_from_slice(&self.contested);
        all.extend_from_slice(&self.selecting_nothing);
        all.extend_from_slice(&self.address_complaints);
        all.extend(self.services.complaints().cloned());
        all.extend_from_slice(&self.entries.complaints);
        all.extend(self.routes.complaints().cloned());
        all.extend_from_slice(self.virtual_services.complaints());
        all.extend_from_slice(&self.target_complaints);
        all.extend_from_slice(&self.unserved_complaints);
        all.extend_from_slice(&self.label_complaints);
        all.extend_from_slice(&self.attached_complaints);
        all.sort();
        all.dedup();
        all
    }
}

/// What is said of pods, of those that are alike (mostly of one template) only the first few.
fn bounded<'a>(complaints: impl Iterator<Item = &'a Complaint>) -> Vec<Complaint> {
    let mut alike: BTreeMap<(&Str, &str, &str), (Vec<Complaint>, usize)> = BTreeMap::new();
    let mut all = Vec::new();
    for complaint in complaints {
        let Some(object) = &complaint.object else {
            all.push(complaint.clone());
            continue;
        };
        let id = (&object.namespace, complaint.field.as_str(), complaint.reason.as_str());
        let (told, more) = alike.entry(id).or_default();
        if told.len() < ALIKE {
            told.push(complaint.clone());
        } else {
            *more += 1;
        }
    }
    for (mut told, more) in alike.into_values() {
        if let Some(last) = told.last_mut().filter(|_| more > 0) {
            last.reason += &format!(" (so it is with {more} more pods of the namespace)");
        }
        all.append(&mut told);
    }
    all
}

#[cfg(test)]
mod tests;
