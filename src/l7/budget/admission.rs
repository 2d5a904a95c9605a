//! What a request holds of the budgets from its arrival until the last frame of its response has been sent.

use super::seat::{RequestPermit, Seat};
use super::{Full, Reserved};
use crate::l7::version::Version;

/// What a request holds of the budgets.
pub(in crate::l7) enum Admission {
    Granted(RequestPermit),
    /// Of the answer, to one that was refused.
    Refused {
        _answer: Reserved,
    },
}

impl Admission {
    /// The place of one that was let in, or of the answer to one that was not. Over HTTP/1 a connection has one answer, which
    /// counts with it.
    pub(in crate::l7) fn of(
        admitted: Result<RequestPermit, Full>,
        seat: &Seat,
        version: Version,
    ) -> Option<Self> {
        match (admitted, version) {
            (Ok(permit), _) => Some(Self::Granted(permit)),
            (Err(_), Version::Http1) => None,
            (Err(_), Version::Http2) => {
                seat.refuse().map(|answer| Self::Refused { _answer: answer })
            }
        }
    }

    pub(in crate::l7) fn waits_in_frames(&self) -> bool {
        match self {
            Self::Granted(permit) => permit.waits_in_frames(),
            Self::Refused { .. } => true,
        }
    }
}
