//! All workloads with the pods that they come from, by namespace and by address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::Context;
use crate::base::{ObjectKey, Str};
use crate::model::Workload;
use crate::source::objects::{NEAR, Object, Pod, Typed};

/// So many pods of one address are complained of.
const MOST: usize = 3;

/// Everything that services look their endpoints up in. Kept from translation to translation.
#[derive(Default)]
pub(super) struct Roster {
    namespaces: BTreeMap<Str, BTreeMap<Str, Member>>,
    /// Not those of the node's own network, whose addresses are their node's.
    by_address: HashMap<IpAddr, Vec<Arc<Workload>>>,
    /// Addresses that several claim.
    contested: BTreeSet<IpAddr>,
}

#[derive(Clone)]
pub(super) struct Member {
    pub(super) workload: Arc<Workload>,
    object: Arc<Object>,
}

/// What happened to a pod in one update.
pub(super) struct Moved {
    pub(super) key: ObjectKey,
    pub(super) before: Option<Member>,
    pub(super) after: Option<Member>,
}

impl Member {
    pub(super) fn new(workload: Arc<Workload>, object: Arc<Object>) -> Self {
        Self { workload, object }
    }

    /// The pod is there whenever the member was made of one.
    pub(super) fn pod(&self) -> Option<&Pod> {
        Pod::of(&self.object)
    }

    /// Both come from the same version of the pod, and say the same.
    pub(super) fn is_same(&self, other: &Member) -> bool {
        Arc::ptr_eq(&self.object, &other.object) && Arc::ptr_eq(&self.workload, &other.workload)
    }
}

impl Roster {
    pub(super) fn get(&self, key: &ObjectKey) -> Option<&Member> {
        self.namespaces.get(&key.namespace)?.get(&key.name)
    }

    /// The pod itself as it was, or a neighbour by name, where it holds the same template.
    pub(super) fn sibling(&self, key: &ObjectKey, pod: &Pod) -> Option<&Workload> {
        let members = self.namespaces.get(&key.namespace)?;
        let after = members.range::<Str, _>(&key.name..).take(NEAR);
        let before = members.range::<Str, _>(..&key.name).rev().take(NEAR);
        let same = |member: &&Member| {
            member.pod().is_some_and(|other| Arc::ptr_eq(&other.template, &pod.template))
        };
        let found = after.chain(before).map(|(_, member)| member).find(same);
        found.map(|member| &*member.workload)
    }

    /// In the order of their names.
    pub(super) fn namespace(&self, namespace: &str) -> impl Iterator<Item = &Member> {
        self.namespaces.get(namespace).into_iter().flat_map(BTreeMap::values)
    }

    /// Without any pod, nothing is known of what selects pods: the controller reads none, and a directory may leave them to
    /// others.
    pub(super) fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }

    /// In the order of their keys.
    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.namespaces.values().flat_map(BTreeMap::values)
    }

    /// In the order of their keys.
    pub(super) fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.members().map(|member| &member.workload)
    }

    /// Complains of addresses that several pods have which are there to stay: what is addressed to one may be taken to be
    /// for another. A pod that is being deleted may see its address in another's hands.
    pub(super) fn complain_of_contested(&self, cx: &mut Context<'_>) {
        for address in &self.contested {
            let all = self.by_address.get(address).into_iter().flatten();
            let mut keys: Vec<&ObjectKey> =
                all.map(|it| &it.key).filter(|key| self.is_to_stay(key)).collect();
            keys.sort_unstable();
            let Some((first, others)) = keys.split_first() else { continue };
            for key in others.iter().take(MOST) {
                let reason = format!(
                    "{address} is the address of Pod {first} as well, and what is addressed to it is taken to be for one of \
                     them; find out which of the two is stale, or wrong"
                );
                cx.warn::<Pod>(key, "status.podIP", reason);
            }
        }
    }

    fn is_to_stay(&self, key: &ObjectKey) -> bool {
        let pod = self.get(key).and_then(Member::pod);
        pod.is_some_and(|pod| !pod.metadata.deleting)
    }

    /// Of several that claim an address the first by key.
    pub(super) fn at(&self, address: &IpAddr) -> Option<&Workload> {
        let claimants = self.by_address.get(address)?;
        claimants.iter().min_by_key(|workload| &workload.key).map(|workload| &**workload)
    }

    /// Puts a member in, in place of the one with the same key; returns that one.
    pub(super) fn insert(&mut self, member: Member) -> Option<Member> {
        let key = member.workload.key.clone();
        let before = self.remove(&key);
        if !member.workload.host_network {
            for address in &member.workload.addresses {
                let claimants = self.by_address.entry(*address).or_default();
                claimants.push(member.workload.clone());
                if claimants.len() > 1 {
                    self.contested.insert(*address);
                }
            }
        }
        self.namespaces.entry(key.namespace).or_default().insert(key.name, member);
        before
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) -> Option<Member> {
        let of_namespace = self.namespaces.get_mut(&key.namespace)?;
        let member = of_namespace.remove(&key.name)?;
        if of_namespace.is_empty() {
            self.namespaces.remove(&key.namespace);
        }
        for address in &member.workload.addresses {
            let Some(claimants) = self.by_address.get_mut(address) else { continue };
            claimants.retain(|claimant| !Arc::ptr_eq(claimant, &member.workload));
            if claimants.len() < 2 {
                self.contested.remove(address);
            }
            if claimants.is_empty() {
                self.by_address.remove(address);
            }
        }
        Some(member)
    }
}
