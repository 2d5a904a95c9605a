//! Why a connection to an application, or an exchange on it, broke off, whichever library has found it.

use super::refused;
use crate::l7::http1;

/// What its source is decides how a client's stream is reset over HTTP/2, as hyper does it.
#[derive(Debug, thiserror::Error)]
pub(in crate::l7) enum ConnectionError {
    #[error(transparent)]
    Http1(#[from] http1::error::Error),
    #[error("{0}")]
    Http2(#[from] h2::Error),
    #[error("the client's request broke off: {0}")]
    Request(String),
}

impl ConnectionError {
    /// The client's body ended before its length, or it broke the rules.
    pub(in crate::l7) fn is_clients(&self) -> bool {
        matches!(self, Self::Request(_))
    }

    /// Whether the application says that it has not looked at the request, which is then safe to send again whatever its method
    /// (RFC 9113, 8.7): it refused the stream, or left and named an earlier one as the last that it may have processed.
    pub(in crate::l7) fn is_refused(&self) -> bool {
        let Self::Http2(error) = self else { return false };
        // h2 ends with a GOAWAY of its peer only the streams above the last one that this names.
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (refused || error.is_go_away())
    }

    /// Whether what the application sent breaks the rules of HTTP, rather than that it left.
    pub(in crate::l7) fn breaks_rules(&self) -> bool {
        match self {
            Self::Http1(error) => error.breaks_rules(),
            Self::Http2(error) => error.is_library(),
            Self::Request(_) => false,
        }
    }

    /// What was found, with what operators can do about it.
    pub(in crate::l7) fn told(&self, most_fields: usize) -> String {
        match self {
            Self::Http1(error) => refused::told(error, most_fields),
            Self::Http2(_) | Self::Request(_) => self.to_string(),
        }
    }
}
