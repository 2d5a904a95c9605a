//! The keys of issuers that were fetched, or could not be.

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::jwt::{KeyRing, KeySet};

pub(super) fn show(ring: &KeyRing) -> Vec<Value> {
    ring.sets().iter().map(|set| one(set)).collect()
}

fn one(set: &KeySet) -> Value {
    let known = set.known();
    let fetched = known.begun.map(|begun| Instant::now().saturating_duration_since(begun));
    json!({
        "uri": &*set.uri,
        "keys": known.keys,
        "skipped": known.keys.as_ref().map(|keys| keys.skipped()),
        "secondsSinceFetch": fetched.map(|since| since.as_secs()),
        "failure": known.failure,
    })
}
