//! JSON web tokens (RFC 7519, 7515, 7517): what a token says, and whether one of an issuer's keys has signed it.
//!
//! Verification is pure: keys and the time are given. Keys that must be fetched are in a [`KeyRing`], which says who wants
//! them; `jwks` fetches them. Everything in a token comes from the client, so that nothing in it chooses how it is
//! verified: the type of the issuer's key decides which algorithms may be used, a token that asks for `none` or for a
//! shared secret is refused, and keys that a token brings or names by address are not looked at. Signatures are checked by
//! `jsonwebtoken` over aws-lc-rs, and by that alone for ES512, which the crate lacks. No message of this room has a part of a token in it.

mod address;
mod algorithm;
mod fault;
#[cfg(test)]
pub mod fixture;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod json;
mod keys;
mod redact;
mod ring;
#[cfg(test)]
mod tests;
mod token;
mod verify;

pub use address::KeysUri;
pub use fault::Fault;
pub use keys::{Keys, MAX_FETCHED_BYTES, MAX_KEYS_BYTES};
pub use redact::redacted;
pub use ring::{KeyRing, KeySet, KeySource, KeyWait, Known};
pub use token::{Claims, Token};
pub use verify::{Expected, verify};
