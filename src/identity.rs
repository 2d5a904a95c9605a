//! Certificates: issuers, the certificate store, and TLS.
//!
//! A certificate belongs to an identity (a service account), not to a connection: everything that acts for one service
//! account shares it, and rotation replaces it without touching existing connections.
//!
//! Invariants: workload keys live in memory only and never leave the store (issuers see signing requests); an expired
//! certificate is never used; a peer is accepted only with exactly one SPIFFE identity, which a server checks against
//! its trust domain and a client against the identities that it expects, and with a chain without revoked certificates;
//! sessions are never resumed, because a resumed session would skip those checks.
//!
//! Callers: `app` builds the issuer and the store and runs it, `node` prefetches and retains, `tunnel`, `l4` and `l7`
//! request certificates, `admin` prints the status. `policy` decides what a peer may do; this room does not.

mod authority;
mod certificate;
mod clock;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod issuer;
mod istio;
mod local;
mod pem;
mod provider;
mod request;
mod revocation;
mod store;
#[cfg(test)]
mod tests;
mod tls;
mod trust;
mod verify;
mod watch;

pub use authority::{
    Authority, AuthorityError, CA_CERTIFICATE, CA_CHAIN, CA_KEY, CA_ROOTS, CLOCK_SKEW, Pair,
    certificates, create as create_authority, verify_authority,
};
pub use certificate::WorkloadCertificate;
pub use clock::{Clock, SystemClock};
pub use error::IdentityError;
pub use issuer::{IssueFuture, Issued, Issuer};
pub use istio::messages as ca_messages;
pub use istio::{
    CONNECT_TIMEOUT as ISTIO_CONNECT_TIMEOUT, CaServer, ControllerLink, IstioIssuer,
    IstioIssuerSettings, REQUEST_TIMEOUT as ISTIO_REQUEST_TIMEOUT,
};
pub use local::{DEFAULT_LIFETIME, LocalIssuer, LocalIssuerSettings};
pub use pem::to_pem;
pub use revocation::{Revocations, Role};
pub use store::{
    CertificateDump, CertificateState, CertificateStatus, CertificateStore, ShownCertificate,
    StoreSettings,
};
pub use tls::{
    ALPN_H2, certified_key, count_agreed, is_alert, negotiated_h2, reason_of, serving_config,
};
pub use trust::{ProvenPeer, Trust};
pub use verify::peer_identity;
