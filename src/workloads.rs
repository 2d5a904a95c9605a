//! The workloads of this node: where the network namespaces of its pods are.
//!
//! A manifest in a directory names its namespace; a pod of a cluster does not. The owner of a namespace gets the
//! certificate, so this room uses only sources that no pod can influence, in this order: the container runtime at the
//! start of the sandbox (`cni`); the record of that ([`Ledger`], for an agent that restarts); the runtime, queried now
//! ([`ContainerRuntime`], for pods older than the first agent); and, if no runtime answers, a namespace on this machine
//! that root named after the pod. An address may confirm a name but never decides, because a process with CAP_NET_ADMIN
//! in a pod sets the addresses there. [`Registry`] keeps the answers; `node` queries it, and nothing else writes to it.
//!
//! Invariants: an entry belongs to one generation of a pod (its UID), so a pod that was recreated under the same name
//! is another one; it belongs to one namespace, not to its path; a namespace that two workloads claim belongs to
//! neither ([`refused`]); without proof a pod is not captured. This room enters namespaces only to inspect them, and
//! changes nothing there.

mod claims;
mod ledger;
mod names;
mod record;
mod registry;
mod runtime;
mod scan;

pub use claims::{Claim, Refusal, refused};
pub use ledger::Ledger;
pub use names::Sought;
pub use record::{Record, RecordError, Sandbox};
pub use registry::Registry;
pub use runtime::{ContainerRuntime, RuntimeError, Said};
pub use scan::{Candidate, addresses_in, path_here, scan};
