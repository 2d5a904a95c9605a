//! Signs certificates for agents: `istio.v1.auth.IstioCertificateService`, as istiod serves it.
//!
//! An agent may have certificates for the service accounts of the pods that run on its own node, and for nothing else:
//! a compromised node can act as its workloads anyway. The API server identifies agents (TokenReview) and says where a
//! pod runs; any unclear answer means rejection. Pods get no certificate, not even for their own identity: agents hold
//! the keys.
//!
//! A caller is a visitor until the API server says that it is an agent ([`standing`]). Visitors have few slots and
//! little time, and share nothing with agents. Each node's agents have their own share of connections and requests, so
//! that neither a visitor nor a compromised node keeps another node from its certificates. Sizes are bounded for all
//! callers.

mod authorize;
mod caller;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod pods;
mod refusal;
mod request;
mod server;
mod service;
mod serving;
mod standing;
mod talk;
#[cfg(test)]
mod tests;
pub(super) mod throttle;

pub(super) use server::Server;
