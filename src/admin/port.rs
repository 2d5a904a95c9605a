//! The ways by which requests come in.

use super::door::Caller;

/// Which pages a listener has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    /// The socket: everything.
    Admin(Caller),
    /// What can be read of that, where a setting asks for it.
    Pages,
    Metrics,
    Readiness,
}
