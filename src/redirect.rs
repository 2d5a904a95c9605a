//! Capture rules: what the kernel must do so that a workload's connections reach the agent.
//!
//! [`plan_workload`] and [`plan_node`] are pure. They return *what* the rules are, as a [`Program`] that prints itself
//! in the syntax of `nft`. [`apply`], [`remove`] and [`is_applied`] carry a program to the kernel over netlink, so that
//! no `nft` or `ip` program is needed. `node` calls them when a workload comes and goes.
//!
//! Invariants:
//! - All functions act on the network namespace of the **calling thread**; the caller enters it. They block (a few
//!   milliseconds, [`ANSWER_TIMEOUT`] at worst), so call them from a thread that may block.
//! - One nftables table per namespace belongs to Isthmus. It is replaced as a whole in one transaction: a packet meets
//!   the old rules or the new ones, never none. Applying is idempotent. Other tables are not touched.
//! - A captured namespace has TCP timestamps without random offsets (`timestamps`), so that no connection stalls at the
//!   agent's sockets; the original value is restored.
//! - The table itself attaches conntrack (it has `ct` expressions); nothing else needs to be loaded.
//!
//! Requirements on the agent: its sockets in the workload's namespace carry `SO_MARK`
//! [`SOCKET_MARK`](crate::base::ports::SOCKET_MARK). The listeners on 15001 and 15006 are bound to the wildcard
//! address: the kernel delivers a redirected packet to loopback if it was outbound, and to some address of its
//! interface if it was inbound. The agent rejects a connection whose original destination is in
//! [`ILLEGAL`](crate::base::ports::ILLEGAL), as of a client that dials `podIP:15006` directly.
//!
//! Limits: connections that exist when the rules are applied stay uncaptured until they end (only a SYN is translated,
//! and checked by `check`). Captured connections lose their translation when the rules are removed, so drain before
//! [`remove`]. UDP other than DNS, SCTP and ICMP are not captured, as in Istio. The rules do not confine a workload
//! that may mark its own sockets or send frames (`CAP_NET_ADMIN`, `CAP_NET_RAW`): it can leave uncaptured. Its
//! destinations are still guarded, and a mark counts nowhere but on its own loopback.

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

/// The owner of the calling thread's namespace: it decides which table and routes are ours.
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

/// What [`apply`] could not do, although the program is still useful without it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Families that this namespace lacks (no IPv6 in the kernel, or disabled on `lo`): there is no route for replies
    /// to borrowed addresses, so the agent must connect with the workload's own address.
    pub without_routes: Vec<Family>,
    /// The kernel lacks `nft_objref`, `nft_reject_inet` or `nft_socket`: dropped packets are neither counted nor
    /// answered, and foreign SYN cookies are not rejected.
    pub plain: bool,
    /// Why timestamps keep their random offsets: new connections may stall for a second if ports are reused within a
    /// minute.
    pub misaligned: Option<String>,
}

/// Applies `program` in the calling thread's namespace, in place of the result of an earlier call.
///
/// The routes come first and the table after them, because capture without the routes would lose replies. If it fails,
/// an earlier table is still in force, and routes are harmless without one. Timestamps come last, once the table
/// records that they are changed.
///
/// # Errors
/// [`Error`] names the object that the kernel rejected, the errno and the likely cause.
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

/// Brings up the loopback interface of the calling thread's namespace, which a new one has down: rules are refused without it.
///
/// # Errors
/// As [`apply`].
pub fn raise_loopback() -> Result<(), Error> {
    routing::raise_loopback()
}

/// Returns whether the kernel accepts the table only in its plain form.
fn replace(table: &Table) -> Result<bool, Error> {
    match nftables::replace(table) {
        Err(error) if matches!(error.refusal(), Some(Errno::ENOENT | Errno::EOPNOTSUPP)) => {
            nftables::replace(&table.plain()).map(|()| true)
        }
        result => result.map(|()| false),
    }
}

/// Removes everything that [`apply`] may have left in the calling thread's namespace; a namespace without rules is not
/// an error.
///
/// # Errors
/// As [`apply`]. The routes are removed even if the table could not be. Failure to restore timestamps is not an error:
/// the pod works with them.
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
        tracing::debug!(%error, "cannot restore the offsets of TCP timestamps in a namespace that is no longer captured");
    }
    table.and(routes)
}

/// Whether our table is in the calling thread's namespace: how a restarted agent recognizes what it captured before. It
/// does not compare the rules: [`apply`] is as cheap and leaves no doubt.
///
/// # Errors
/// As [`apply`].
pub fn is_applied(place: Place) -> Result<bool, Error> {
    nftables::exists(place.table())
}
