//! What the findings look at: the objects, the mesh that they make, and indexes of it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::Str;
use crate::model::{Mesh, Service, Workload};
use crate::source::{Objects, TranslateSettings};

/// How much of the mesh the objects are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it: what is not among them does not exist.
    Whole,
    /// Perhaps a part: namespaces of which there is no workload may be described elsewhere.
    Part,
}

pub(super) struct Snapshot<'a> {
    pub(super) objects: &'a Objects,
    pub(super) settings: &'a TranslateSettings,
    pub(super) mesh: &'a Mesh,
    pub(super) extent: Extent,
    workloads: HashMap<&'a str, &'a Workload>,
}

impl<'a> Snapshot<'a> {
    pub(super) fn new(
        objects: &'a Objects,
        settings: &'a TranslateSettings,
        mesh: &'a Mesh,
        extent: Extent,
    ) -> Self {
        let by_uid = |it: &'a Arc<Workload>| (it.uid.as_str(), &**it);
        let workloads = mesh.workloads.iter().map(by_uid).collect();
        Self { objects, settings, mesh, extent, workloads }
    }

    /// The workloads behind a service, as far as they are known.
    pub(super) fn behind<'s>(
        &'s self,
        service: &'s Service,
    ) -> impl Iterator<Item = &'a Workload> + use<'a, 's> {
        let uids = service.endpoints.iter().filter_map(|it| it.workload.as_ref());
        uids.filter_map(|uid| self.workloads.get(uid.as_str()).copied())
    }

    /// The services that an object of the namespace means by a host, which may begin with a star.
    pub(super) fn with_host(&self, namespace: &Str, host: &str) -> Vec<&'a Service> {
        let host = self.settings.full_host(namespace, host);
        let is_it = |it: &&'a Arc<Service>| match host.strip_prefix('*') {
            Some(end) => it.hostname.ends_with(end),
            None => it.hostname == host.as_str(),
        };
        self.mesh.services.iter().filter(is_it).map(|it| &**it).collect()
    }
}
