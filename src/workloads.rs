//! What runs on this node: where the network namespaces of its pods are.
//!
//! A manifest in a directory names its namespace; a pod of a cluster does not. [`Registry`] knows the place of a pod
//! from the container runtime itself (`cni`, at the start of its sandbox) or from a search ([`scan`]) through the
//! namespaces of this machine, for pods that ran before the agent did. `node` asks it; nobody else writes to it.
//!
//! Invariants: what the runtime said wins over what was found; an entry belongs to one generation of a pod (its UID),
//! so that a pod that was made anew under the same name is another one; a namespace that could belong to two pods
//! belongs to neither. This room enters namespaces only to read their addresses, and changes nothing there.

mod matching;
mod registry;
mod scan;

pub use matching::{Candidate, Sought};
pub use registry::{Registry, Sandbox};
pub use scan::{addresses_in, scan};
