//! Tests on a real two-node Kubernetes with Isthmus installed. `scripts/cluster-tests` starts the cluster and runs them;
//! without one they fail, and say how to have one. They share it, so they run one after the other, in the order of their
//! names, and each leaves the cluster as it found it.

#[path = "../support/ca_client.rs"]
mod ca_client;
#[path = "../support/cluster.rs"]
mod cluster;
#[path = "../support/issuer.rs"]
mod issuer;
#[path = "../support/profile.rs"]
mod profile;
#[path = "../support/spans.rs"]
mod spans;
#[allow(dead_code, reason = "the cluster has its own timeouts")]
#[path = "../support/lab/wait.rs"]
mod wait;

mod controller;
mod failures;
mod faults;
mod guide;
mod identity;
mod listener;
mod load;
mod observability;
mod outliers;
mod pods;
mod registry;
mod rotation;
mod routes;
mod services;
mod shared_limits;
mod source;
mod statuses;
mod storm;
mod traffic;
mod unserved;
mod users;
mod z_uninstall;
