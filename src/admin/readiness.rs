//! Readiness: everything that was registered is done (`/healthz/ready`).

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// What the agent still waits for.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeSet<&'static str>>>);

/// One condition of readiness.
pub struct Task {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Not ready until the task reports it.
    pub fn register(&self, name: &'static str) -> Task {
        self.0.lock().insert(name);
        Task { name, readiness: self.clone() }
    }

    /// What is missing; empty when ready.
    pub fn missing(&self) -> Vec<&'static str> {
        self.0.lock().iter().copied().collect()
    }
}

impl Task {
    /// May be called repeatedly: a condition that was met can fail later.
    pub fn set(&self, done: bool) {
        let mut missing = self.readiness.0.lock();
        if done {
            missing.remove(self.name);
        } else {
            missing.insert(self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_nothing_is_missing() {
        let readiness = Readiness::default();
        let (source, node) = (readiness.register("source"), readiness.register("node"));
        assert_eq!(readiness.missing(), ["node", "source"]);
        source.set(true);
        node.set(true);
        assert!(readiness.missing().is_empty());
        node.set(false);
        assert_eq!(readiness.missing(), ["node"]);
    }
}
