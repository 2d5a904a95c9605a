//! What is asked, and how it is refused.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::base::{Identity, ObjectKey, PolicyNote};
use crate::jwt::{Fault, KeySource};

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// Proven by mutual TLS.
    pub client: Option<&'a Identity>,
    pub source: IpAddr,
    /// The workload's own address and port.
    pub destination: SocketAddr,
    /// The server that the client asks for in TLS, in lower case; empty where it asks for none, as with requests that are parsed.
    /// `None`: what it sends first was not read.
    pub server_name: Option<&'a str>,
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

/// Why a connection is refused whose client does not say which server it asks for: it might ask for any. `why`: what it sent.
pub fn unjudged(why: impl fmt::Display) -> String {
    let unread = Denial::unread().why;
    format!(
        "{unread}: {why}. Where servers speak first, leave their ports out by `ports` of the policy's rules"
    )
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// For the log: which policy and why.
    pub why: String,
    /// The policy that refuses, where it is one and one alone.
    pub policy: Option<ObjectKey>,
    /// What policies that decide nothing have to say (AUDIT, dry-run).
    pub notes: Vec<PolicyNote>,
    /// Who asks is not known, rather than not permitted: what is wrong with the request's token.
    pub token: Option<Fault>,
    /// Keys that may be newer than those that are known, and that the token may be of.
    pub keys: Vec<Arc<KeySource>>,
    /// Policies need the server's name ([`Connection::server_name`]). Whoever can read it does so, and asks again.
    pub unread: bool,
}

impl Denial {
    pub fn new(why: impl Into<String>) -> Self {
        let (notes, keys) = (Vec::new(), Vec::new());
        Self { why: why.into(), policy: None, notes, token: None, keys, unread: false }
    }

    /// It is this policy that refuses.
    pub fn by(self, policy: &ObjectKey) -> Self {
        Self { policy: Some(policy.clone()), ..self }
    }

    /// Nothing is permitted before the server's name is known.
    pub fn unread() -> Self {
        let why = "a policy has the condition connection.sni, and it is not known which server the client asks for";
        Self { unread: true, ..Self::new(why) }
    }
}
