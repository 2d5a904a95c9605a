//! The part of netlink that the rules need: attributes, requests, acknowledgements. The crate
//! `netlink-packet-netfilter` supports neither `ct` nor `redir` nor `nat` nor batches, so this module encodes nf_tables
//! messages; rules and routes use the types of `netlink-packet-route` for the content of a request.
//!
//! The encoder writes well-formed messages or returns an error; the parser does not trust the lengths in the kernel's
//! answers.

mod attributes;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod message;
mod socket;

pub use attributes::{Attributes, parse};
pub use message::Request;
pub use socket::{ANSWER_TIMEOUT, Answer, Socket, Subsystem};
