//! Isthmus with the programs that people use beside it, as they are: an OpenTelemetry Collector, Jaeger, Prometheus.
//! `scripts/integrations` builds or installs them and runs this; it takes too long for every change. Without them the tests fail.

#[path = "../support/support.rs"]
mod support;

#[path = "../support/bookinfo.rs"]
mod bookinfo_lab;

mod logs;
mod programs;
mod prometheus;
mod tracing;

pub use bookinfo_lab::{WAYPOINT, bookinfo, enrol, meshed, settle};
