//! What policies mean: how their rules match, and the order in which they decide.
//!
//! Pure over the model: this room knows no snapshot, reads no socket, trusts nothing that an application sent, and denies
//! whatever is unknown or ambiguous. All knowledge of the insides of a rule is here (which account it names, whether it looks
//! at HTTP, which ports it means); others ask. [`crate::gate`] gathers what applies to a connection.

pub mod aliases;
mod asked;
mod authority;
mod bearer;
mod decide;
mod dialled;
mod explained;
mod facts;
#[cfg(test)]
pub mod fixture;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod host;
mod identity;
mod index;
mod list;
mod looks;
mod named;
pub mod never;
mod path;
mod probe;
mod rule;
mod set;
mod text;
mod token;
mod tokens;
mod told;
pub mod values;

pub use asked::{Connection, Denial, Request, unjudged};
pub use authority::{lends_the_clients_name, speaks_for};
pub use bearer::{Bearer, Checked, Verified, check, rules as token_rules};
pub use dialled::{Destination, Guard, Ways};
pub use explained::Explained;
pub use facts::{Facts, Principals};
pub use list::PolicyList;
pub use looks::{looks_at_destination, looks_at_http, operation_looks_at_http};
pub use named::{names, names_somebody};
pub use set::PolicySet;
pub use tokens::TokenPolicies;
pub use told::Told;
