//! The steps of the demo, in order.

use anyhow::Result;

use crate::stage::Stage;
use crate::{
    authentication, authorization, bypass, cleanup, enrolment, explained, layer4, plaintext,
    routing, trace, users, waypoints,
};

/// One step.
pub struct Step {
    /// Its field in the JSON object.
    pub field: &'static str,
    pub title: &'static str,
    pub run: fn(&mut Stage) -> Result<()>,
}

const fn step(field: &'static str, title: &'static str, run: fn(&mut Stage) -> Result<()>) -> Step {
    Step { field, title, run }
}

pub const STEPS: &[Step] = &[
    step("plaintext", "Without the mesh: plaintext between the nodes", plaintext::run),
    step("enrolled", "Enrolled by a label: mutual TLS between the nodes", enrolment::run),
    step("layer4_policy", "Authorization at layer 4", layer4::run),
    step("waypoint_namespace", "A waypoint for a namespace", waypoints::namespace),
    step("waypoint_service", "A waypoint for one service, and opting out", waypoints::service),
    step("waypoint_pod", "A waypoint for one pod", waypoints::pod),
    step("waypoint_cross_namespace", "A waypoint of another namespace", waypoints::across),
    step("traffic_split", "90% to reviews v1, 10% to v2", routing::split),
    step("authorization", "GET allowed, DELETE and others denied", authorization::run),
    step("explained", "Why it was denied, and what would lift it", explained::run),
    step("waypoint_identity", "The destination sees the waypoint's identity", authorization::seen),
    step("no_way_around_pod", "No way around: the pod's own address", bypass::pod_address),
    step("no_way_around_plaintext", "No way around: plaintext", bypass::plaintext),
    step("no_way_around_tunnel", "No way around: a hand-made tunnel", bypass::tunnel),
    step("strict", "STRICT refuses plaintext", authentication::strict),
    step("disable_ignored", "DISABLE is ignored", authentication::disable),
    step("token", "Who the user is: a token", users::token),
    step("authorizer", "Who the user is: an external authorizer", users::authorizer),
    step("trace", "A request as a trace", trace::run),
    step("cleanup", "Cleaned up: plaintext again, no rule left", cleanup::run),
];
