//! A value for each of the two sides of a call.

use crate::source::objects::WorkloadMode;

/// One value for the client and one for the server.
#[derive(Clone, Default)]
pub(super) struct Both<T> {
    pub(super) client: T,
    pub(super) server: T,
}

impl<T> Both<T> {
    /// Changes the sides that the mode means.
    pub(super) fn change(&mut self, mode: WorkloadMode, change: impl Fn(&T) -> T) {
        if mode.is_client() {
            self.client = change(&self.client);
        }
        if mode.is_server() {
            self.server = change(&self.server);
        }
    }
}
