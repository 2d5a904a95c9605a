//! Capture rules: what the kernel must do so that a workload's connections reach the agent.
//!
//! Purpose: [`plan_workload`] and [`plan_node`] are pure and say *what* the rules are, as a [`Program`] that prints
//! itself in the words of `nft`; [`apply`], [`remove`] and [`is_applied`] carry a program to the kernel over netlink,
//! so that no `nft` or `ip` program is needed. `node` calls them when a workload comes and goes.
//!
//! Invariants:
//! - All functions act on the network namespace of the **calling thread**; entering it is the caller's business.
//!   They are synchronous (a few milliseconds, [`ANSWER_TIMEOUT`] at worst), so call them
//!   from a thread that may block.
//! - One nftables table of our own per namespace, replaced as a whole in one transaction: a packet meets the old
//!   rules or the new ones, never none. Applying twice leaves what applying once leaves. Tables of others are not touched.
//! - A captured namespace has TCP timestamps without random offsets (`timestamps`), so that no connection stalls at the
//!   agent's sockets; what was there before comes back.
//! - Conntrack is attached by the table itself (it has `ct` expressions), nothing else need be loaded.
//!
//! What the rules expect of the agent: its sockets in the workload's namespace carry `SO_MARK`
//! [`SOCKET_MARK`](crate::base::ports::SOCKET_MARK), the listeners on 15001 and 15006 are bound to the wildcard
//! address (a redirected packet is delivered to loopback when it left, to some address of its interface when it
//! arrived), and a connection whose original destination is one of [`ILLEGAL`](crate::base::ports::ILLEGAL), which is
//! what somebody sees who dials `podIP:15006` directly, is refused there.
//!
//! What it refuses to do: connections that exist when the rules come are left alone, they live on uncaptured until
//! they end (only a SYN is translated, and judged by `check`). Connections that were captured lose their translation when the rules go,
//! so drain before [`remove`]. UDP other than DNS, SCTP and ICMP are not captured, as in Istio. The rules do not
//! contain a workload that may mark its own sockets or send frames (`CAP_NET_ADMIN`, `CAP_NET_RAW`): it can leave
//! uncaptured, but what it reaches is guarded at the destination, and a mark counts nowhere but on its own loopback.

mod caught;
mod check;
mod error;
mod listing;
mod marks;
mod netlink;
mod nftables;
mod node;
mod program;
mod routing;
mod timestamps;
mod workload;

use nix::errno::Errno;

use timestamps::Timestamps;

pub use caught::{Catches, Caught};
pub use error::Error;
pub use netlink::ANSWER_TIMEOUT;
#[cfg(any(test, feature = "fuzzing"))]
pub use netlink::fuzz;
pub use node::{NodePlan, plan_node};
pub use program::{
    Action, Chain, ChainKind, Equality, Family, Hook, Mark, Match, PolicyRoute, Program, Protocol,
    Rule, Set, Table,
};
pub use workload::{CapturePlan, plan_workload};

/// Whose namespace the calling thread is in: it decides which table and routes are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A workload's namespace: capture.
    Workload,
    /// The node's namespace: the exemption of probes.
    Node,
}

impl Place {
    /// The name of our table there, family `inet`.
    pub const fn table(self) -> &'static str {
        match self {
            Place::Workload => workload::TABLE,
            Place::Node => node::TABLE,
        }
    }
}

/// What [`apply`] could not do without the program being useless for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Families of which this namespace knows nothing (no IPv6 in the kernel, or disabled on `lo`): no route for
    /// replies to borrowed addresses exists there, so the agent must connect with the workload's own address.
    pub without_routes: Vec<Family>,
    /// The kernel lacks `nft_objref`, `nft_reject_inet` or `nft_socket`: what the rules catch is neither counted nor answered,
    /// and SYN cookies of strangers are not refused.
    pub plain: bool,
    /// Why timestamps keep their random offsets: new connections may stall for a second where ports are used again
    /// within a minute.
    pub misaligned: Option<String>,
}

/// Puts `program` in force in the calling thread's namespace, in place of what an earlier call left there.
///
/// The routes come first and the table after them, because capture without the routes would lose replies. When it fails,
/// an earlier table is still in force, and routes are harmless without one. Timestamps come last, when the table
/// remembers that they are changed.
///
/// # Errors
/// [`Error`] names the object that the kernel refused, the errno and the likely cause.
pub fn apply(program: &Program) -> Result<Applied, Error> {
    let without_routes = routing::apply(&program.routing)?;
    if !program.aligned_timestamps {
        let plain = replace(&program.table)?;
        return Ok(Applied { without_routes, plain, misaligned: None });
    }
    let found = timestamps::read();
    let mut table = program.table.clone();
    let is_ours = match &found {
        Ok(Timestamps::Random) => true,
        Ok(Timestamps::Aligned) => nftables::has_counter(table.name, timestamps::CHANGED)?,
        Ok(Timestamps::Off) | Err(_) => false,
    };
    if is_ours {
        table.counters.push(timestamps::CHANGED);
    }
    let plain = replace(&table)?;
    let aligned = match found {
        Ok(Timestamps::Random) => timestamps::align(),
        found => found.map(drop),
    };
    let misaligned = aligned.err().map(|error| error.to_string());
    Ok(Applied { without_routes, plain, misaligned })
}

/// Returns whether the kernel takes the table only in its plain form.
fn replace(table: &Table) -> Result<bool, Error> {
    match nftables::replace(table) {
        Err(error) if matches!(error.refusal(), Some(Errno::ENOENT | Errno::EOPNOTSUPP)) => {
            nftables::replace(&table.plain()).map(|()| true)
        }
        result => result.map(|()| false),
    }
}

/// Takes everything away that [`apply`] may have left in the calling thread's namespace; nothing there is no error.
///
/// # Errors
/// As [`apply`]. The routes are tried even when the table could not be removed. Timestamps that cannot be put back are no
/// error: the pod works with them.
pub fn remove(place: Place) -> Result<(), Error> {
    if place == Place::Node {
        return nftables::remove(place.table());
    }
    let were_changed = nftables::has_counter(place.table(), timestamps::CHANGED);
    let table = nftables::remove(place.table());
    let routes = routing::remove(&workload::routing(Family::ALL));
    if matches!(were_changed, Ok(true))
        && table.is_ok()
        && let Err(error) = timestamps::release()
    {
        tracing::debug!(%error, "TCP timestamps stay without offsets in a namespace that is no longer captured");
    }
    table.and(routes)
}

/// Whether our table is in the calling thread's namespace, which is how a restarted agent recognises what it
/// captured before. It does not compare the rules: [`apply`] again is as cheap and leaves no doubt.
///
/// # Errors
/// As [`apply`].
pub fn is_applied(place: Place) -> Result<bool, Error> {
    nftables::exists(place.table())
}
