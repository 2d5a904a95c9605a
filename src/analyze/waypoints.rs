//! Waypoints that nothing uses, and services whose workloads stand outside of the mesh.

use std::collections::BTreeSet;

use super::code::Code;
use super::finding::Finding;
use super::snapshot::Snapshot;
use crate::base::ObjectKey;
use crate::source::objects::{Gateway, Service};

pub(super) fn find(cx: &Snapshot<'_>, found: &mut Vec<Finding>) {
    unused(cx, found);
    outside(cx, found);
}

fn unused(cx: &Snapshot<'_>, found: &mut Vec<Finding>) {
    let of_services = cx.mesh.services.iter().flat_map(|it| {
        it.waypoint.waypoint().into_iter().chain(it.canary.as_ref().map(|canary| &canary.waypoint))
    });
    let of_workloads = cx.mesh.workloads.iter().filter_map(|it| it.waypoint.waypoint());
    let used: BTreeSet<&ObjectKey> = of_services.chain(of_workloads).collect();
    for waypoint in cx.mesh.waypoints.iter().filter(|it| !used.contains(&it.key)) {
        let message = match (waypoint.for_services, waypoint.for_workloads) {
            (false, false) => "istio.io/waypoint-for is none, so nothing can use the waypoint",
            (true, false) => "no Service and no ServiceEntry is bound to the waypoint",
            (false, true) => "no workload is bound to the waypoint",
            (true, true) => "no Service, ServiceEntry or workload is bound to the waypoint",
        };
        let code = Code::WaypointUnused;
        found.push(Finding::of::<Gateway>(cx.objects, &waypoint.key, code, "", message));
    }
}

fn outside(cx: &Snapshot<'_>, found: &mut Vec<Finding>) {
    for service in cx.mesh.services.iter().filter(|it| it.entry.is_none()) {
        let Some(waypoint) = service.waypoint.waypoint() else { continue };
        let (inside, outside): (Vec<_>, Vec<_>) =
            cx.behind(service).partition(|it| it.is_captured() || it.unsure);
        if !inside.is_empty() || outside.is_empty() {
            continue;
        }
        let message = format!(
            "is bound to the waypoint {waypoint}, and none of the {} workloads behind it is in the mesh",
            outside.len()
        );
        let code = Code::ServiceOutside;
        found.push(Finding::of::<Service>(cx.objects, &service.key, code, "", message));
    }
}
