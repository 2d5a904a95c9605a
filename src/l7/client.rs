//! The client's half of a waypoint: routes the requests of local clients to endpoints of services.

pub(in crate::l7) mod bytes;
pub(in crate::l7) mod connection;
pub(in crate::l7) mod forward;
pub(in crate::l7) mod judge;
pub(in crate::l7) mod labels;
pub(in crate::l7) mod mirror;
pub(in crate::l7) mod plan;
pub(in crate::l7) mod request;
pub(in crate::l7) mod retry;
pub(in crate::l7) mod session;
