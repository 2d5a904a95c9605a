//! What HTTPRoutes, GRPCRoutes and VirtualServices mean: whether a request fulfils a match, and which of several matches takes precedence.
//! Compiled when the world is built, so that a request costs about the same whether a service has one route or a thousand.
//!
//! Pure over the model. An index leaves out matches that cannot hold, by the path and by what else they demand exactly; what
//! holds is still decided by [`matching`] alone, and a test of both over random routes and requests holds them together.
//! [`crate::route`] decides which routes hold for a client at all.

mod bucket;
mod compiled;
mod covers;
mod explained;
mod group;
mod matching;
mod paths;
mod precedence;
mod service;
#[cfg(test)]
mod tests;

pub use compiled::Compilations;
pub use covers::covers;
pub use explained::Candidate;
pub use group::{Group, Rules};
pub use matching::{Client, Head, Who};
pub use precedence::{Matched, by_precedence};
pub use service::ServiceRules;
