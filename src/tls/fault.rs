//! Why there is no TLS.

use std::io;

/// Why a connection cannot be encrypted as demanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    /// A certificate, key or list that the object names cannot be used.
    #[error("{what}: {why}")]
    Material { what: String, why: String },
    /// The name that the server must prove is no name.
    #[error("{0:?} is neither a DNS name nor an address, so that no server can prove it")]
    Name(String),
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
    /// It agreed on no protocol, or on another one.
    #[error("the server does not speak {0} over TLS (ALPN)")]
    Protocol(&'static str),
    #[error("no TLS handshake within {0:?}")]
    Late(std::time::Duration),
}

impl TlsFault {
    pub(super) fn material(what: impl ToString, why: impl ToString) -> Self {
        Self::Material { what: what.to_string(), why: why.to_string() }
    }

    /// It says something about the server: another endpoint may do better.
    pub fn is_of_server(&self) -> bool {
        matches!(self, Self::Handshake(_) | Self::Protocol(_) | Self::Late(_))
    }
}

impl From<io::Error> for TlsFault {
    fn from(error: io::Error) -> Self {
        Self::Handshake(error.to_string())
    }
}
