//! Why a message of HTTP/1 does not come to its end.

use std::borrow::Cow;
use std::io;

use http::StatusCode;

/// The longest target of a request, in bytes: as long as the `http` crate takes one.
pub(super) const LONGEST_TARGET: usize = u16::MAX as usize - 1;

#[derive(Debug, thiserror::Error)]
pub(in crate::l7) enum Error {
    /// A head that breaks the rules.
    #[error("{0}")]
    Malformed(Cow<'static, str>),
    /// A head of too many fields, or too many bytes.
    #[error("the head is too large")]
    TooLarge,
    #[error("the target is longer than {LONGEST_TARGET} bytes")]
    TargetTooLong,
    /// A body whose chunks break the rules (RFC 9112, 7.1).
    #[error("the body is not framed by the rules: {0}")]
    Framing(&'static str),
    #[error("the peer ended the connection within a message")]
    Cut,
    #[error("the peer closed the connection")]
    Closed,
    #[error("the body is not as long as the head says")]
    Length,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Error {
    pub(super) fn malformed(why: &'static str) -> Self {
        Self::Malformed(Cow::Borrowed(why))
    }

    /// Whether a head breaks the rules of HTTP, rather than that its peer left.
    pub(in crate::l7) fn breaks_rules(&self) -> bool {
        matches!(self, Self::Malformed(_) | Self::TooLarge | Self::TargetTooLong)
    }

    /// What a server answers to such a head.
    pub(in crate::l7) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Malformed(_) => Some(StatusCode::BAD_REQUEST),
            Self::TooLarge => Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Self::TargetTooLong => Some(StatusCode::URI_TOO_LONG),
            _ => None,
        }
    }
}

impl From<httparse::Error> for Error {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooLarge,
            error => Self::Malformed(Cow::Owned(error.to_string())),
        }
    }
}
