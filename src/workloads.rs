//! What runs on this node: where the network namespaces of its pods are.
//!
//! A manifest in a directory names its namespace; a pod of a cluster does not. Whose a namespace is decides who gets which
//! certificate, so only those are asked whom no pod can influence, in this order: the container runtime at the start of
//! the sandbox (`cni`), what it said then ([`Ledger`], for an agent that starts again), the runtime asked now
//! ([`ContainerRuntime`], for pods that ran before the first agent did), and, where no runtime answers, whoever named the namespace
//! on this machine after the pod. An address may confirm a name; it never decides, since whoever has CAP_NET_ADMIN in a pod
//! sets the addresses there. [`Registry`] keeps the answers; `node` asks it, and nobody else writes to it.
//!
//! Invariants: an entry belongs to one generation of a pod (its UID), so that a pod that was made anew under the same name
//! is another one; it belongs to one namespace, not to its path; a namespace that two claim belongs to neither
//! ([`refused`]); without a proof a pod is not captured. This room enters namespaces only to look, and changes nothing there.

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
