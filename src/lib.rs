//! Isthmus: the ambient service mesh in one binary. `ARCHITECTURE.md` follows a connection through these rooms;
//! `tests/it/layers.rs` enforces their order.

pub mod admin;
pub mod app;
pub mod balance;
pub mod base;
pub mod cli;
pub mod cni;
pub mod config;
pub mod controller;
pub mod dns;
pub mod ext_authz;
pub mod filter;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod gate;
pub mod identity;
pub mod jwks;
pub mod jwt;
pub mod l4;
pub mod l7;
pub mod model;
pub mod node;
pub mod otlp;
pub mod policy;
pub mod pool;
pub mod reach;
pub mod redirect;
pub mod resolver;
pub mod route;
pub mod sock;
pub mod source;
pub mod takeover;
pub mod telemetry;
pub mod trace;
pub mod tunnel;
pub mod workloads;
pub mod world;
