//! Signing for agents: `istio.v1.auth.IstioCertificateService`, as istiod serves it.
//!
//! An agent may have certificates for the service accounts of the pods that run on its own node, and for nothing else: a
//! node that is taken over can act as the workloads that it runs anyway. What an agent is, the API server says
//! (TokenReview), and where a pod runs, too; whatever it does not say clearly is a refusal. Pods get nothing by
//! themselves, their own identity included: keys are the agents' to hold.
//!
//! Before anything is asked for a caller, its address must have a place: connections, requests and sizes are bounded.

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
mod throttle;

pub(super) use server::Server;
