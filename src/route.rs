//! Where traffic goes: the next hop of a connection, the rule of a request (HTTPRoute, GRPCRoute), and what that rule
//! makes of the request.
//!
//! Pure functions over one snapshot, so that both nodes of a connection can come to the same answer. The only thing
//! that changes is the turn of a weighted split. It knows no sockets and does not choose endpoints (`balance` does).

mod cors;
mod decide;
mod filters;
mod matching;
mod redirect;
mod rewrite;
mod select;
mod split;

pub use decide::{Decision, decide};
pub use filters::{
    OwnAnswer, asks_for_origin, changes_request, filter_request, filter_response, own_answer,
};
pub use select::{Head, Selection, leading_to, select, serves};
pub use split::{is_mirrored, next_backend};

#[cfg(test)]
mod tests;
