//! What is said of the two sides of a call.

/// Something about each side.
#[derive(Clone, Default)]
pub(super) struct Both<T> {
    pub(super) client: T,
    pub(super) server: T,
}
