//! Fuzz target of the kernel's answers: the kernel is trusted, but other kernels' answers are longer and newer.

use super::{attributes, message};

/// A datagram.
pub fn answer(bytes: &[u8]) {
    let heads = bytes.len() / 16;
    assert!(message::parse(bytes).map_or(0, |replies| replies.len()) <= heads);
    assert!(attributes::parse(bytes).count() <= bytes.len() / 4);
}
