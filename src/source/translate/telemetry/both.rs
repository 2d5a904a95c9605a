//! A value for each of the two sides of a call.

/// One value for the client and one for the server.
#[derive(Clone, Default)]
pub(super) struct Both<T> {
    pub(super) client: T,
    pub(super) server: T,
}
