//! Where traffic goes: the next hop of a connection, and the HTTPRoute rule of a request.
//!
//! Pure functions over one snapshot, so that both nodes of a connection can come to the same answer. The only thing
//! that changes is the turn of a weighted split. It knows no sockets and does not choose endpoints (`balance` does).

mod decide;
mod filters;
mod matching;
mod select;
mod split;

pub use decide::{Decision, decide};
pub use filters::{filter_request, filter_response};
pub use select::{Head, Selection, leads_to, select};
pub use split::next_backend;

#[cfg(test)]
mod tests;
