//! Authorization: may this connection, or this request, reach this workload?
//!
//! Pure over one snapshot. The policies of an inbound connection form a [`Gate`]; evaluating it returns a [`Permit`] or
//! a [`Denial`]. `l4` calls it for connections and `l7` for requests. This room reads no socket, trusts nothing that an
//! application sent, and denies whatever is unknown or ambiguous.

mod addressed;
mod asked;
mod authority;
mod class;
mod dialled;
mod encrypted;
mod evaluate;
mod facts;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod gate;
mod host;
mod identity;
mod path;
mod rule;
mod text;
mod token;

pub use addressed::{Addressed, addressed};
pub use asked::{Connection, Denial, Filtered, Permit, Request, Views, Way};
pub use authority::speaks_for;
pub use class::ArrivalClass;
pub use encrypted::refused_in_the_clear;
pub use gate::Gate;

#[cfg(test)]
mod tests;
