//! The destination's half of a waypoint: authorizes each request for a local workload on its own facts, and passes it on.
//!
//! Begin with [`request`]: it is a request's way on one page. A connection is taken by [`connection`], its requests share a
//! [`session`], and [`gates`] decide over one snapshot.

pub(in crate::l7) mod connection;
pub(in crate::l7) mod gates;
pub(in crate::l7) mod kept;
pub(in crate::l7) mod labels;
pub(in crate::l7) mod request;
pub(in crate::l7) mod session;
