//! Why an authority cannot be created, read or used.

use super::parts::{CA_CERTIFICATE, CA_KEY};

/// In the words that an operator reads after the authority's place. The causes are texts: this error is compared, so that what
/// is looked at again and again is reported once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    #[error("{0} holds no certificate")]
    NoCertificate(&'static str),
    #[error("{part} is not PEM: {cause}")]
    NotPem { part: String, cause: String },
    #[error("a certificate in {CA_CERTIFICATE} cannot be read: {0}")]
    Unreadable(String),
    #[error("{CA_KEY} holds no private key in PEM: {0}")]
    NoKey(String),
    #[error("the key in {CA_KEY} is of no kind that can sign: {0}")]
    KeyCannotSign(String),
    #[error("{CA_CERTIFICATE} cannot be signed with: {0}")]
    CannotSignWith(String),
    #[error(
        "{CA_KEY} does not belong to the first certificate in {CA_CERTIFICATE}; put the pair that was made together"
    )]
    OtherKey,
    #[error(
        "the first certificate in {CA_CERTIFICATE} is not a certificate authority's (CA:TRUE and keyCertSign)"
    )]
    NotAnAuthority,
    #[error(
        "{CA_CERTIFICATE} expired at {0}; replace it, or remove {CA_CERTIFICATE} and {CA_KEY} for a new authority"
    )]
    Expired(String),
    #[error("{CA_CERTIFICATE} is not valid before {0}; check this machine's clock")]
    NotYetValid(String),
    /// While it was in use.
    #[error("its own certificate has expired; replace {CA_CERTIFICATE} and {CA_KEY}")]
    Ended,
    #[error("signing failed: {0}")]
    Signing(String),
    #[error("a key cannot be made: {0}")]
    NoNewKey(String),
    #[error("the server's name cannot be used: {0}")]
    ServerName(String),
    #[error("the system gives no random numbers")]
    NoRandomness,
    #[error("a new authority cannot be made: {0}")]
    NotCreated(String),
    /// A library refused what the authority made.
    #[error("{0}")]
    Refused(String),
    #[error(
        "what it signs is not trusted by those who trust its roots: {0}; check that the chain is complete and leads to one of \
         the roots"
    )]
    Untrusted(String),
}
