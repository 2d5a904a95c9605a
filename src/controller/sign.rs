//! Signing for agents: `istio.v1.auth.IstioCertificateService`, as istiod serves it.
//!
//! An agent may have certificates for the service accounts of the pods that run on its own node, and for nothing else: a
//! node that is taken over can act as the workloads that it runs anyway. What an agent is, the API server says
//! (TokenReview), and where a pod runs, too; whatever it does not say clearly is a refusal. Pods get nothing by
//! themselves, their own identity included: keys are the agents' to hold.
//!
//! Who asks is a visitor until the API server says that it is an agent ([`standing`]): visitors have few places and little
//! time, and share nothing with agents. Each node's agents have their own share of connections and requests, so that
//! neither a visitor nor a node that is taken over keeps another node from its certificates. Sizes are bounded for all.

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
#[cfg(test)]
mod tests;
mod throttle;

pub(super) use server::Server;
