//! How requests and connections are traced.

use std::sync::Arc;

use super::World;
use crate::trace::Tracing;

impl World {
    /// How what a workload sends or gets is traced; `None` when it is not.
    pub fn tracing(&self) -> Option<&Arc<Tracing>> {
        self.names.tracing.as_ref()
    }
}
