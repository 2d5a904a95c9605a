//! The DNS stub of a captured workload: names of the mesh are answered here, everything else is asked of the resolvers
//! that the workload itself would ask, from inside of its network namespace.
//!
//! `resolve` decides, a pure function over one snapshot; `server` listens on port 15053 of the workload's loopback, where
//! the capture's rules send what goes to port 53; the room `resolver` asks upstream. Bounded: so many questions at a time per
//! workload, so long per question. `node` starts and stops stubs. What is answered here needs no DNS server in the
//! cluster at all, and a name that exists always has an answer for both families (NODATA, never NXDOMAIN).

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod resolve;
mod server;
#[cfg(test)]
mod tests;

pub use server::{Dns, DnsError, DnsSettings, Stub};
