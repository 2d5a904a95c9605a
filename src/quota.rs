//! Shared rate limits (`rateLimit.shared` of a TrafficPolicy): how the nodes that hold pods of a service keep one limit
//! together.
//!
//! # The idea
//!
//! Of a limit with rate `R` and burst `B`, a node with `p` of the service's `P` pods has a *part*: a token bucket with rate
//! `R·p/P` and burst `B·p/P` (`filter::Part`). A request takes a token from the part of its node, without asking anybody.
//! That alone keeps the limit, and wastes what idle nodes do not use. So the exchange *moves* tokens: a node that lacks
//! some says so (a *want*), the broker asks other nodes for theirs, they take them out of their own buckets (a *gift*), and
//! the broker passes them on (a *grant*). Only keys whose node's part is not enough are talked about: a limit that is not
//! reached costs no message, whatever is consumed.
//!
//! # The bound
//!
//! A token is in a bucket, on its way, or used; only a bucket makes tokens, at the rate of its part. A lost message loses
//! tokens, and no message arrives twice (TLS), so nothing on the network adds any.
//! Hence all that passes in a window of length `t` left buckets within `t + L`, where `L` bounds a token's way from its
//! bucket to its use, and
//!
//! > passed(t) ≤ B + R·(t + L) + 2·nodes.
//!
//! `L` is [`LIFETIME`], one second: a gift counts while the ask that it answers is not older than [`TRANSIT`] (by the
//! broker's clock), a grant while the report that it answers is not older than that (by the receiver's clock; the grant was
//! made after the report was sent), and what was granted is used within [`USE`] ([`rounds`]). Each interval is measured on
//! one clock from before the event that it bounds, so clocks need not agree. Two requests for each node are what whole
//! requests cost: a part admits at least one at a time, so where `B·p/P` is below one, the bursts of the parts add up to
//! more than `B`, by less than one for each node (no node gives away what was rounded up); and a node may keep one
//! request's worth of moved tokens for longer than `L`, because in a slow limit the next request comes later than that.
//!
//! The shares add up to one if all nodes count the same pods. While nodes learn of a change, the sum of their shares may
//! differ from one by what changed; a node that gets its first pod of a service begins with a full bucket.
//!
//! # What may happen
//!
//! - *No exchange* (no broker can be reached): each node has its part. The limit holds, without any error but
//!   the first of those two requests a node; demand that the balancing spreads unevenly gets less than the limit.
//! - *The broker restarts, or another replica leads:* it knows nothing and needs to know nothing; wants repeat every
//!   [`ROUND`]. Two brokers at a time move tokens among their own nodes. Neither makes any.
//! - *A node lies:* it may speak only for limits of Services that have a pod on it, which the broker learns from the API
//!   server. It enforces the limits of its own pods, so it can let through them what it likes. Of other nodes it can take
//!   what they do not use; they keep their parts. Gifts that it does not take out of a bucket are bounded by a model of the
//!   bucket that it should have: so other nodes together never pass more than the bound above.
//! - *A workload* has no way in: nodes talk to the broker over the controller's port, with an agent's token; or, without a controller,
//!   in the tunnels of the mesh, by an authority that no application can name ([`peers`]).
//! - *The broker lies*, where it is a node with a pod of the Service: it can grant what nobody gave. So without a controller, nodes
//!   trust each other as far as they have pods of the same Service.
//! - *Many keys:* a node has places for 512 lacking keys of a limit and reports [`messages::MAX_WANTS`] of them at a time;
//!   the broker has bounds per limit and per namespace ([`broker`]). A key beyond them has the parts, and no more.
//!
//! [`broker`] is the half of the controller, or of one of the nodes where there is none; [`rounds`] is the agent's. Both are pure, over
//! the time that they are told. [`client`] is the agent's connection, [`session`] the broker's end of it.

pub mod broker;
pub mod client;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod messages;
pub mod peers;
pub mod rounds;
pub mod session;
#[cfg(test)]
mod tests;

use std::time::Duration;

/// Between two reports of a node that lacks tokens.
pub const ROUND: Duration = Duration::from_millis(100);
/// Messages that are older than this count for nothing: a round trip between zones, many times over.
pub const TRANSIT: Duration = Duration::from_millis(250);
/// A node that has not looked at what was moved to it for so long throws it away.
pub const LATE: Duration = Duration::from_millis(250);
/// How long what was moved may wait to be used: it is thrown away with the second look.
pub const USE: Duration = Duration::from_millis(500);
/// How long a token's way from its bucket to its use may be.
pub const LIFETIME: Duration = Duration::from_millis(1000);

const _: () =
    assert!(USE.as_millis() == 2 * LATE.as_millis() && ROUND.as_millis() < LATE.as_millis());
const _: () = assert!(LIFETIME.as_millis() == 2 * TRANSIT.as_millis() + USE.as_millis());
