//! Routing: the next hop of a connection (TCPRoute, TLSRoute), and the rule of a request (HTTPRoute, GRPCRoute). The rule's
//! filters then process the request (`filter`).
//!
//! Pure functions over one snapshot, so that both nodes of a connection come to the same answer. The only state is the
//! turn of a weighted split. This room knows no sockets and selects no endpoints (`balance` does).

mod decide;
mod named;
mod select;
mod split;
mod streams;

pub use decide::{Decision, decide, drawn, waypoint_of};
pub use named::{NotNamed, named};
pub use select::{Selection, candidates, leading_to, select, serves};
pub use split::{next_backend, next_backend_of_stream};
pub use streams::Streams;

pub use crate::rules::{Candidate, Client, Head, Who};

#[cfg(test)]
mod tests;
