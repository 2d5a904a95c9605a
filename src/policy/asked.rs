//! What is asked, and how it is refused.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::base::{Identity, PolicyNote};
use crate::jwt::{Fault, KeySource};

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// Proven by mutual TLS.
    pub client: Option<&'a Identity>,
    pub source: IpAddr,
    /// The workload's own address and port.
    pub destination: SocketAddr,
}

/// What is known of a request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub method: &'a Method,
    /// With the query.
    pub path: &'a str,
    /// `Host` or `:authority`, as sent.
    pub host: &'a str,
    pub headers: &'a HeaderMap,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// For the log: which policy and why.
    pub why: String,
    /// What policies that decide nothing have to say (AUDIT, dry-run).
    pub notes: Vec<PolicyNote>,
    /// Who asks is not known, rather than not permitted: what is wrong with the request's token.
    pub token: Option<Fault>,
    /// Keys that may be newer than those that are known, and that the token may be of.
    pub keys: Vec<Arc<KeySource>>,
}

impl Denial {
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), notes: Vec::new(), token: None, keys: Vec::new() }
    }
}
