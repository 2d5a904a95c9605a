//! Tests with real network namespaces, each in private namespaces. They need root (or the root of a
//! user namespace) and the tools that `scripts/setup` installs; `scripts/test` runs them so. Without either
//! they fail: a test that is skipped has shown nothing.

#[path = "../support/support.rs"]
mod support;

/// Included here and not in `support`, which the demo shares.
#[path = "../support/istioctl.rs"]
mod istioctl;

/// Shared with the adversary suite.
#[path = "../support/bookinfo.rs"]
mod bookinfo_lab;

#[path = "../support/profile.rs"]
mod profile;

#[path = "../support/apiserver.rs"]
mod apiserver;
mod certificates;
mod check;
mod clock;
mod cni;
#[path = "../support/collector.rs"]
mod collector;
#[path = "../support/controlled.rs"]
mod controlled;
mod destination_rules;
mod dns;
mod egress;
mod endurance;
mod entries;
mod explain;
mod faults;
mod floods;
#[path = "../support/frames.rs"]
mod frames;
mod interop;
#[path = "../support/issued.rs"]
mod issued;
mod istiod;
mod lifecycle;
mod limits;
mod manifests;
mod mesh;
mod node;
mod observability;
mod observe;
mod overload;
mod plain;
mod policies;
mod redirect;
mod same_node;
mod samples;
mod server_names;
mod shared_limits;
mod soak;
mod sock;
mod stream_routes;
mod streaming;
mod takeover;
mod tracing;
mod traffic;
#[path = "../support/upstream.rs"]
mod upstream;
mod virtual_services;
mod wildcards;

pub use bookinfo_lab::{WAYPOINT, application, bookinfo, captured_in, enrol, meshed, settle};
