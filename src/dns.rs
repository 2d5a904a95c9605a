//! The DNS stub of a captured workload. It answers names of the mesh itself, and forwards everything else to the
//! workload's own resolvers, from inside its network namespace.
//!
//! `resolve` decides, as a pure function over one snapshot. `server` listens on port 15053 of the workload's loopback,
//! to which the capture rules redirect port 53. The room `resolver` queries upstream. Queries in flight per workload
//! and the time per query are bounded. `node` starts and stops stubs. Names of the mesh need no DNS server in the
//! cluster, and a name that exists always has an answer for both families (NODATA, never NXDOMAIN).

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod resolve;
mod server;
#[cfg(test)]
mod tests;

pub use server::{Dns, DnsError, Stub};
