//! How requests and connections are observed.

use std::sync::Arc;

use super::World;
use crate::base::ObjectKey;
use crate::model::{Observed, Workload};
use crate::telemetry::Rules;
use crate::trace::{Kind, Tracing};

impl World {
    /// How a workload's side of a call is observed, to a service where one was addressed; `None` if no object and no setting differs from the default.
    pub fn observed(
        &self,
        side: Kind,
        workload: &Workload,
        service: Option<&ObjectKey>,
    ) -> Option<&Observed> {
        let observation = &self.mesh.observation;
        if !observation.speaks {
            return None;
        }
        let service = service.and_then(|service| self.service(service));
        Some(observation.of(side, workload, service.map(|service| &**service)))
    }

    /// The rules for its access log and its metrics; `None` where nothing differs from the default.
    pub fn rules(
        &self,
        side: Kind,
        workload: &Workload,
        service: Option<&ObjectKey>,
    ) -> Option<Arc<Rules>> {
        self.observed(side, workload, service)?.rules.clone()
    }

    /// How it is traced; `None` when it is not.
    pub fn tracing(
        &self,
        side: Kind,
        workload: &Workload,
        service: Option<&ObjectKey>,
    ) -> Option<&Arc<Tracing>> {
        self.observed(side, workload, service)?.tracing.as_ref()
    }
}
