//! HTTP/1.1 on a connection's two halves: heads, bodies, the server's and the client's side.
//!
//! Both sides are one engine, because names of fields pass as they were written ([`names`]), and because what one side hears (an
//! informational response, an end) is told to the other ([`downstream`]). A connection at rest holds no buffer and has no task of
//! its own: a server's is its connection's task, a client's exchange runs in the future of its request.
//!
//! What it takes for a message is never more than what hyper takes for one; tests compare the two.

pub(in crate::l7) mod body;
pub(in crate::l7) mod client;
pub(in crate::l7) mod decode;
pub(in crate::l7) mod downstream;
pub(in crate::l7) mod encode;
pub(in crate::l7) mod error;
pub(in crate::l7) mod head;
pub(in crate::l7) mod names;
pub(in crate::l7) mod outgoing;
pub(in crate::l7) mod reader;
mod respond;
pub(in crate::l7) mod server;
mod slot;
#[cfg(test)]
mod tests;
pub(in crate::l7) mod writer;

use http::{HeaderMap, HeaderValue};

/// Whether a field that is a list names this, in any case.
fn says(headers: &HeaderMap, field: http::HeaderName, token: &str) -> bool {
    headers.get_all(field).iter().any(|value| has_token(value, token))
}

fn has_token(value: &HeaderValue, token: &str) -> bool {
    let text = value.to_str().unwrap_or_default();
    text.split(',').any(|part| part.trim().eq_ignore_ascii_case(token))
}
