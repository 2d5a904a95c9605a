//! The listeners of requests.

use super::door::Caller;

/// The pages of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    /// The socket: everything.
    Admin(Caller),
    /// The read-only subset, if a setting enables it.
    Pages,
    Metrics,
    Readiness,
}
