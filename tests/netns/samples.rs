//! Istio's samples as they are, in real traffic: the manifests are read from Istio's Go module, whose version and checksum
//! `scripts/cluster/programs/echo` pins, and nothing of them is changed but the namespace, as `kubectl apply -n` does. What their
//! images hold is built from Go modules as well, or is the lab's Bookinfo. `tests/support/istio_tasks.rs` lists which of
//! Istio's task pages are followed here.
//!
//! [`files`] fetches and builds, [`stage`] applies to a lab, [`table`] holds what the translation says of every sample, and the
//! others follow tasks.

mod bookinfo;
mod files;
mod helloworld;
mod httpbin;
mod stage;
mod table;
mod tcp_echo;
