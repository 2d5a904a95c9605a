//! Which arrivals at one workload are judged alike.

use crate::base::{Identity, Str};
use crate::world::Classed;

/// What tells apart how arrivals at one workload are judged, besides who the client is: [`addressed`](super::addressed) and
/// [`Gate::new`](super::Gate::new) read nothing else of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArrivalClass {
    /// The workload's own.
    port: u16,
    /// The service that the tunnel's request named.
    forwarded_host: Option<Str>,
    /// Of the client.
    namespace: Option<Str>,
}

impl ArrivalClass {
    pub fn of(port: u16, forwarded_host: Option<&Str>, client: Option<&Identity>) -> Self {
        let namespace = client.map(|client| client.namespace.clone());
        Self { port, forwarded_host: forwarded_host.cloned(), namespace }
    }
}

impl Classed for ArrivalClass {
    /// Services of any namespace may be named, so the client's namespace has the places; those in the clear have theirs.
    fn tenant(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }
}
