//! Messages of HTTP: heads in one canonical form, how long they are, bodies of requests, and what a connection speaks.
//!
//! Nothing here knows a worker, an endpoint or a record; bodies and connections hold their parts of the budgets.

pub(in crate::l7) mod asked;
pub(in crate::l7) mod body;
pub(in crate::l7) mod connection_error;
pub(in crate::l7) mod copy;
pub(in crate::l7) mod deadline;
pub(in crate::l7) mod detect;
pub(in crate::l7) mod framing;
pub(in crate::l7) mod head_copy;
pub(in crate::l7) mod head_text;
pub(in crate::l7) mod headers;
pub(in crate::l7) mod held;
pub(in crate::l7) mod host;
pub(in crate::l7) mod lasting;
pub(in crate::l7) mod library_answers;
pub(in crate::l7) mod messages;
pub(in crate::l7) mod original;
pub(in crate::l7) mod refused;
pub(in crate::l7) mod sent;
pub(in crate::l7) mod watched;
