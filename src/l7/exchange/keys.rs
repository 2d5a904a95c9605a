//! Requests whose tokens may be of keys that are not known yet: they wait until these have been fetched, for as long as their rules
//! say.

use std::sync::Arc;

use crate::jwt::{KeySource, KeyWait};
use crate::l7::Dependencies;

/// Keys that a request waits for.
pub(in crate::l7) struct Newer {
    wait: KeyWait,
    is_over: bool,
}

impl Newer {
    pub(in crate::l7) fn new(dependencies: &Dependencies, lacking: &[Arc<KeySource>]) -> Self {
        let wait = KeyWait::new(&dependencies.world.load().keys, lacking);
        dependencies.telemetry.jwks().limited.inc_by(wait.refused as u64);
        Self { wait, is_over: false }
    }

    /// Until the request should be judged again, or no newer keys come in time.
    pub(in crate::l7) async fn next(&mut self) {
        self.is_over = !self.wait.next().await;
    }

    /// Nothing more comes: the judgement stands.
    pub(in crate::l7) fn is_over(&self) -> bool {
        self.is_over
    }
}

/// Until the request should be judged again, if it waits for keys at all.
pub(in crate::l7) async fn wait(newer: &mut Option<Box<Newer>>) {
    if let Some(newer) = newer {
        newer.next().await;
    }
}

/// Has a request judged again whenever keys have been fetched. `judge` says whether newer ones may change its judgement again.
pub(in crate::l7) async fn await_newer(
    dependencies: &Dependencies,
    lacking: &[Arc<KeySource>],
    mut judge: impl FnMut() -> bool,
) {
    let mut newer = Newer::new(dependencies, lacking);
    loop {
        newer.next().await;
        if newer.is_over() || !judge() {
            return;
        }
    }
}
