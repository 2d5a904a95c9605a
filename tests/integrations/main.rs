//! Isthmus with the programs that people use beside it, as they are: an OpenTelemetry Collector, Jaeger, Prometheus, OPA,
//! oauth2-proxy, Keycloak, Envoy's rate limit service with Redis.
//! `scripts/integrations` builds or installs them and runs this; it takes too long for every change. Without them the tests fail.

#[path = "../support/support.rs"]
mod support;

#[path = "../support/bookinfo.rs"]
mod bookinfo_lab;

#[path = "../support/issuer.rs"]
mod issuer;

#[path = "../support/apiserver.rs"]
mod apiserver;

#[path = "../support/ca_client.rs"]
mod ca_client;

#[path = "../support/controlled.rs"]
mod controlled;

#[path = "../support/monitoring/monitoring.rs"]
mod monitoring_files;

#[path = "../support/upstream.rs"]
mod upstream;

mod keycloak;
mod logs;
mod monitoring;
mod oauth2_proxy;
mod opa;
mod programs;
mod prometheus;
mod ratelimit;
mod tracing;

pub use bookinfo_lab::{WAYPOINT, application, bookinfo, captured_in, enrol, meshed, settle};
