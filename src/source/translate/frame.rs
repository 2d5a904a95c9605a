//! What every workload and service is translated under: waypoints, policies, and levels of PeerAuthentication.

use std::sync::Arc;

use super::authorization_policy::{self, Policies};
use super::changes::Affected;
use super::destination_rule::Rules;
use super::egress::Egress;
use super::encryption::Encryptions;
use super::peer_authentication::Levels;
use super::sources::Sources;
use super::waypoint::Waypoints;
use super::{Context, mesh_config, namespace, service_entry};
use crate::model::DefaultRetry;
use crate::source::Complaint;
use crate::source::objects::ServiceEntryVisibility;
use crate::telemetry::AccessFormat;

/// Collected anew, whole, when an object that it comes from changes: there are few of these.
pub(super) struct Frame {
    pub(super) waypoints: Waypoints,
    pub(super) policies: Policies,
    pub(super) levels: Levels,
    pub(super) egress: Egress,
    pub(super) encryptions: Encryptions,
    pub(super) rules: Rules,
    pub(super) access_log: Option<Arc<AccessFormat>>,
    pub(super) retry: Option<Arc<DefaultRetry>>,
    /// What VirtualServices look at of clients.
    pub(super) sources: Sources,
    /// Whose clients see the ServiceEntries of a namespace.
    visibility: Option<ServiceEntryVisibility>,
    /// `exportTo` of those that have none.
    default_export: Vec<String>,
    pub(super) complaints: Vec<Complaint>,
}

impl Frame {
    pub(super) fn collect(cx: &mut Context<'_>) -> Self {
        let outer = std::mem::take(&mut cx.complaints);
        let mut waypoints = Waypoints::collect(cx);
        let policies = authorization_policy::translate(cx, &waypoints);
        waypoints.heed(cx, policies.models());
        let levels = Levels::collect(cx);
        let egress = Egress::collect(cx);
        let encryptions = Encryptions::collect(cx);
        let rules = Rules::collect(cx);
        namespace::check_all(cx);
        mesh_config::check(cx);
        let access_log = mesh_config::access_log(cx);
        let retry = mesh_config::retries(cx);
        let visibility = cx.mesh_config().and_then(|mesh| mesh.service_entry_visibility.clone());
        let default_export = service_entry::default_export(cx);
        let complaints = std::mem::replace(&mut cx.complaints, outer);
        Self {
            waypoints,
            policies,
            levels,
            egress,
            encryptions,
            rules,
            access_log,
            retry,
            sources: Sources::default(),
            visibility,
            default_export,
            complaints,
        }
    }

    /// Shares with `before` what says the same, and tells what does not.
    pub(super) fn replace(&mut self, before: &Frame) -> Affected {
        self.policies.share(&before.policies);
        let mut workloads_of = self.policies.differing(&before.policies);
        workloads_of.extend(self.levels.differing(&before.levels));
        let by_rules = self.rules.differing(&before.rules);
        let all_by_rules = by_rules.is_none();
        workloads_of.extend(by_rules.unwrap_or_default());
        workloads_of.extend(self.egress.differing(&before.egress));
        Affected {
            all: self.waypoints != before.waypoints || all_by_rules,
            workloads_of,
            services: self.encryptions != before.encryptions || self.rules != before.rules,
            entries: self.visibility != before.visibility
                || self.default_export != before.default_export,
        }
    }
}
