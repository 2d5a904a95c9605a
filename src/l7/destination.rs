//! The destination's half of a waypoint: authorizes each request for a local workload on its own facts, and passes it on.

pub(in crate::l7) mod connection;
pub(in crate::l7) mod gates;
pub(in crate::l7) mod kept;
pub(in crate::l7) mod labels;
pub(in crate::l7) mod request;
pub(in crate::l7) mod session;
