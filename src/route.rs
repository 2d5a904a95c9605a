//! Where traffic goes: the next hop of a connection, and the rule of a request (HTTPRoute, GRPCRoute). What that rule makes of
//! the request is its filters' (`filter`).
//!
//! Pure functions over one snapshot, so that both nodes of a connection can come to the same answer. The only thing
//! that changes is the turn of a weighted split. It knows no sockets and does not choose endpoints (`balance` does).

mod decide;
mod matching;
mod select;
mod split;

pub use decide::{Decision, decide};
pub use select::{Head, Selection, leading_to, select, serves};
pub use split::next_backend;

#[cfg(test)]
mod tests;
