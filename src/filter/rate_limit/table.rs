//! The memory of buckets: how many a limit has room for, and what the limits of one namespace have together.
//!
//! Whoever may write a TrafficPolicy may write thousands, and each of its limits has a table once a request is counted. So a
//! namespace has a bound, and what is beyond has small tables: its own keys then share buckets, and the limits hold.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use crate::base::Str;

/// Keys of one limit: as many as a few thousand clients of a hundred pods have, in 128 KiB.
pub(super) const KEYS: usize = 8192;
/// Of a limit without keys: as many as a node has pods.
const PODS: usize = 512;
/// Of a limit whose namespace has used up its part.
const FEW: usize = 64;
/// Of all limits of one namespace, in 16 MiB.
const MOST: usize = 128 * KEYS;

/// Places in the tables of each namespace.
static USED: Mutex<Option<HashMap<Str, usize>>> = Mutex::new(None);

/// One bucket.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// The key's hash; 0 while the bucket is free. Without the seed, an attacker cannot choose keys of one group.
    pub(super) tag: AtomicU64,
    /// When the bucket is full again, in nanoseconds after the epoch.
    pub(super) full_at: AtomicU64,
}

/// Places for the buckets of one limit.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) slots: Box<[Slot]>,
    namespace: Str,
    counted: usize,
}

impl Table {
    /// For a limit of this namespace, with keys or without.
    pub(super) fn new(namespace: &Str, has_keys: bool) -> Self {
        let wanted = if has_keys { KEYS } else { PODS };
        let counted = take(namespace, wanted);
        let places = if counted == 0 { FEW } else { counted };
        let slots = (0..places).map(|_| Slot::default()).collect();
        Self { slots, namespace: namespace.clone(), counted }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let mut used = USED.lock();
        let all = used.get_or_insert_default();
        if let Some(count) = all.get_mut(&self.namespace) {
            *count = count.saturating_sub(self.counted);
            if *count == 0 {
                all.remove(&self.namespace);
            }
        }
    }
}

/// Takes so many places of the namespace's part, or none.
fn take(namespace: &Str, wanted: usize) -> usize {
    let mut used = USED.lock();
    let count = used.get_or_insert_default().entry(namespace.clone()).or_default();
    if *count + wanted > MOST {
        return 0;
    }
    *count += wanted;
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_its_part_and_what_is_beyond_is_small() {
        let (greedy, modest) = (Str::from("greedy"), Str::from("modest"));
        let mut tables: Vec<Table> = (0..200).map(|_| Table::new(&greedy, true)).collect();
        let places = |tables: &[Table]| tables.iter().map(|it| it.slots.len()).collect::<Vec<_>>();
        assert_eq!(places(&tables), [[KEYS; 128].as_slice(), &[FEW; 72]].concat());
        assert_eq!(Table::new(&modest, true).slots.len(), KEYS, "another namespace's part");
        assert_eq!(Table::new(&modest, false).slots.len(), PODS);
        tables.drain(..10);
        assert_eq!(Table::new(&greedy, true).slots.len(), KEYS, "what was given back");
        drop(tables);
        assert!(USED.lock().as_ref().is_none_or(|it| !it.contains_key(&greedy)));
    }
}
