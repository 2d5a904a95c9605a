//! (room being built)

/// (being built)
pub struct Workers;
impl Workers {
    pub fn retain(&self, _keep: &dyn Fn(&str) -> bool) {}
}
