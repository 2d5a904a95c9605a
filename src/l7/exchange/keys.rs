//! Requests whose tokens may be of keys that are not known yet: they wait until these have been fetched, for as long as their rules
//! say.

use std::sync::Arc;

use crate::jwt::{KeySource, KeyWait};
use crate::l7::Dependencies;

/// Has a request judged again whenever keys have been fetched. `judge` says whether newer ones may
/// change its judgement again.
pub(in crate::l7) async fn await_newer(
    dependencies: &Dependencies,
    lacking: &[Arc<KeySource>],
    mut judge: impl FnMut() -> bool,
) {
    let ring = dependencies.world.load().keys.clone();
    let mut wait = KeyWait::new(&ring, lacking);
    dependencies.telemetry.jwks().limited.inc_by(wait.refused as u64);
    while wait.next().await {
        if !judge() {
            return;
        }
    }
}
