//! Authorization: may this connection, or this request, reach this workload?
//!
//! Pure over one snapshot. What applies to an inbound connection is a [`Gate`]; asking it gives a [`Permit`] or a
//! [`Denial`]. Called by `l4` for connections and by `l7` for requests. It reads no socket, trusts nothing that an
//! application sent, and where something cannot be known or read in one way only, it refuses.

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
pub use asked::{Connection, Denial, Permit, Request, Views, Way};
pub use authority::speaks_for;
pub use class::ArrivalClass;
pub use encrypted::refused_in_the_clear;
pub use gate::Gate;

#[cfg(test)]
mod tests;
