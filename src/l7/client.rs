//! The client's half of a waypoint: routes the requests of local clients to endpoints of services.
//!
//! Begin with [`request`]: it is a request's way on one page, and says why the steps come in this order. A connection is taken by
//! [`connection`], and its requests share a [`session`].

pub(in crate::l7) mod again;
pub(in crate::l7) mod attempt;
pub(in crate::l7) mod bytes;
pub(in crate::l7) mod connection;
pub(in crate::l7) mod hedge;
pub(in crate::l7) mod judge;
pub(in crate::l7) mod labels;
pub(in crate::l7) mod mirror;
pub(in crate::l7) mod plan;
pub(in crate::l7) mod request;
pub(in crate::l7) mod retry;
mod secure;
pub(in crate::l7) mod session;
