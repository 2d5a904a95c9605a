//! ServiceEntries from translation to translation. They are translated together, since a host and an address that one of them
//! has are not another's; but only when something changed that one of them looks at.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::changes::Changes;
use super::frame::Frame;
use super::roster::{Member, Moved, Roster};
use super::selectors::Selectors;
use super::services::Reshaped;
use super::slices::addresses;
use super::{Context, service_entry};
use crate::base::{ObjectKey, Str};
use crate::model;
use crate::source::objects::{Labelled, ServiceEntry, WorkloadEntry};
use crate::source::{Complaint, Objects};

/// Kept from translation to translation.
#[derive(Default)]
pub(super) struct Entries {
    pub(super) models: Vec<Arc<model::Service>>,
    pub(super) complaints: Vec<Complaint>,
    looked_at: LookedAt,
}

/// What the entries look at besides each other.
#[derive(Default)]
struct LookedAt {
    /// By namespace: which pods are endpoints.
    selectors: BTreeMap<Str, Selectors<()>>,
    /// Which may be a pod's, or a Service's virtual one.
    addresses: HashSet<IpAddr>,
    /// With their namespaces; a Service of the same name comes first.
    hosts: HashSet<(Str, Str)>,
}

impl Entries {
    /// Translates them if need be, and returns those that are not as they were.
    pub(super) fn update(
        &mut self,
        cx: &mut Context<'_>,
        (frame, roster): (&Frame, &Roster),
        changes: &Changes,
        moved: &[Moved],
        reshaped: &[Reshaped],
        kubernetes: &[Arc<model::Service>],
    ) -> BTreeSet<ObjectKey> {
        let is_concerned = changes.entries || self.looked_at.concern(moved, reshaped);
        let any = cx.objects.all::<ServiceEntry>().next().is_some()
            || cx.objects.all::<WorkloadEntry>().next().is_some();
        let empty = self.models.is_empty() && self.complaints.is_empty();
        if !is_concerned || !any && empty {
            return BTreeSet::new();
        }
        let models = service_entry::translate(cx, frame, roster, kubernetes);
        let before = std::mem::take(&mut self.models);
        let known: BTreeMap<&ObjectKey, _> = before.iter().map(|it| (&it.key, it)).collect();
        let shared = models.into_iter().map(|model| match known.get(&model.key) {
            Some(same) if **same == model => Arc::clone(same),
            Some(before) => {
                let mut model = model;
                if let Some(model) = Arc::get_mut(&mut model) {
                    model.traffic.inherit(&before.traffic);
                }
                model.note_endpoints();
                model
            }
            None => {
                model.note_endpoints();
                model
            }
        });
        self.models = shared.collect();
        self.complaints = std::mem::take(&mut cx.complaints);
        self.looked_at = LookedAt::by(cx.objects);
        differing(&before, &self.models)
    }
}

/// What came, went, changed, or stands elsewhere in the order.
fn differing(before: &[Arc<model::Service>], after: &[Arc<model::Service>]) -> BTreeSet<ObjectKey> {
    let same = before.iter().zip(after).take_while(|(one, two)| Arc::ptr_eq(one, two)).count();
    let rest = before.iter().skip(same).chain(after.iter().skip(same));
    rest.map(|service| service.key.clone()).collect()
}

impl LookedAt {
    fn by(objects: &Objects) -> Self {
        let mut looked_at = Self::default();
        let mut selectors: BTreeMap<Str, Vec<_>> = BTreeMap::new();
        for (key, entry) in objects.all::<ServiceEntry>() {
            let spec = &entry.spec;
            if let Some(selector) = &spec.workload_selector {
                let of_namespace = selectors.entry(key.namespace.clone()).or_default();
                of_namespace.push((selector.labels.clone(), ()));
            }
            let listed = spec.endpoints.iter().map(|endpoint| &endpoint.address);
            looked_at
                .addresses
                .extend(spec.addresses.iter().chain(listed).filter_map(|text| single(text)));
            let host = |text: &String| text.trim_end_matches('.').to_ascii_lowercase().into();
            let hosts = spec.hosts.iter().map(|text| (key.namespace.clone(), host(text)));
            looked_at.hosts.extend(hosts);
        }
        let workloads = objects.all::<WorkloadEntry>();
        looked_at.addresses.extend(workloads.filter_map(|(_, entry)| single(&entry.spec.address)));
        let selectors = selectors.into_iter().map(|(key, list)| (key, list.into_iter().collect()));
        looked_at.selectors = selectors.collect();
        looked_at
    }

    fn concern(&self, moved: &[Moved], reshaped: &[Reshaped]) -> bool {
        let at = |address: IpAddr| self.addresses.contains(&address);
        let selected = |moved: &Moved| {
            let selectors = self.selectors.get(&moved.key.namespace);
            let selects = |member: &Member| {
                let labels = member.pod().and_then(|pod| pod.labels());
                selectors.is_some_and(|selectors| !selectors.selecting(labels).is_empty())
            };
            [&moved.before, &moved.after].into_iter().flatten().any(selects)
        };
        let claimed = |service: &model::Service| {
            let host = (service.key.namespace.clone(), service.hostname.clone());
            self.hosts.contains(&host) || service.vips.iter().any(|vip| at(*vip))
        };
        let mut services = reshaped.iter().flat_map(|it| [&it.before, &it.after]).flatten();
        addresses(moved).any(at)
            || moved.iter().any(selected)
            || services.any(|service| claimed(service))
    }
}

/// A single address, also one that is written as a network.
fn single(text: &str) -> Option<IpAddr> {
    let network = text.parse::<IpNet>().ok();
    let network = network.filter(|network| network.prefix_len() == network.max_prefix_len());
    text.parse().ok().or_else(|| network.map(|network| network.addr()))
}
