//! Where the CA is, who serves it, and how it is asked.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::Str;

/// How long a connection to the CA may take, TLS included: longer than two retransmissions of a SYN (1 + 2 s).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one request may take, its connection included. Below the store's own limit, so that the reason is told.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Who serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaServer {
    Istiod,
    /// `isthmus controller`
    Controller,
}

/// Where the CA is and how it is asked.
#[derive(Debug, Clone)]
pub struct IstioIssuerSettings {
    pub server: CaServer,
    /// `https://host:port`; `http://` only with a loopback address.
    pub address: Str,
    /// PEM: whom to trust as the CA's server.
    pub ca_root: PathBuf,
    /// The agent's own token, with the audience that istiod wants (`istio-ca`).
    pub token_file: PathBuf,
    /// The cluster that the token is of.
    pub cluster: Str,
    /// Of the certificates that are asked for; istiod may shorten it.
    pub lifetime: Duration,
    /// [`CONNECT_TIMEOUT`]
    pub connect_timeout: Duration,
    /// [`REQUEST_TIMEOUT`]
    pub request_timeout: Duration,
}
