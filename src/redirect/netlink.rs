//! The little of netlink that the rules need: attributes, requests, acknowledgements. The crate
//! `netlink-packet-netfilter` knows neither `ct` nor `redir` nor `nat` nor batches, so nf_tables messages are written
//! with this; rules and routes use the types of `netlink-packet-route` for what is inside a request.
//!
//! What is written is well-formed or an error, and what the kernel answers is parsed without trust in its lengths.

mod attributes;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod message;
mod socket;

pub use attributes::{Attributes, parse};
pub use message::Request;
pub use socket::{ANSWER_TIMEOUT, Answer, Socket, Subsystem};
