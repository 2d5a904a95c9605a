//! The tables that endpoints of one service are selected from, kept with the service: its copy, which may be changed, has none.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{Locality, Workload};
use crate::base::{LabelMap, Str};
use crate::traffic::{Destination, Table};

/// So many are kept. A node has one locality, and clients of few kinds of labels that rules compare; others build theirs each time.
const MOST_TABLES: usize = 64;

/// Built when they are first wanted.
#[derive(Default)]
pub struct Tables(ArcSwap<Vec<Arc<Kept>>>);

/// Who has the same table.
#[derive(Clone, Copy)]
pub struct Viewer<'a> {
    pub port: u16,
    /// The family of the address that was dialled.
    pub is_ipv4: bool,
    pub destination: &'a Arc<Destination>,
    /// The subset whose endpoints are in it; `None`: all are.
    pub labels: Option<u32>,
    pub client: &'a Workload,
}

struct Kept {
    port: u16,
    is_ipv4: bool,
    destination: Arc<Destination>,
    of_labels: Option<u32>,
    node: Str,
    locality: Locality,
    labels: LabelMap,
    table: Arc<Table>,
}

impl Tables {
    /// The table for this client, built by `build` where there is none yet.
    pub fn get(&self, viewer: Viewer<'_>, build: impl FnOnce() -> Table) -> Arc<Table> {
        if let Some(kept) = self.0.load().iter().find(|kept| kept.is_for(viewer)) {
            return kept.table.clone();
        }
        let table = Arc::new(build());
        let kept = Arc::new(Kept::of(viewer, table.clone()));
        self.0.rcu(|all| match all.len() {
            MOST_TABLES.. => all.clone(),
            _ => Arc::new(all.iter().chain([&kept]).cloned().collect()),
        });
        table
    }
}

impl Kept {
    fn of(viewer: Viewer<'_>, table: Arc<Table>) -> Self {
        let Viewer { port, is_ipv4, destination, labels, client } = viewer;
        Self {
            port,
            is_ipv4,
            destination: destination.clone(),
            of_labels: labels,
            node: client.node.clone(),
            locality: client.locality.clone(),
            labels: client.labels.clone(),
            table,
        }
    }

    fn is_for(&self, viewer: Viewer<'_>) -> bool {
        let Viewer { port, is_ipv4, destination, labels, client } = viewer;
        self.port == port
            && self.is_ipv4 == is_ipv4
            && Arc::ptr_eq(&self.destination, destination)
            && self.of_labels == labels
            && self.node == client.node
            && self.locality == client.locality
            && self.labels == client.labels
    }
}

impl Clone for Tables {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// They follow from the rest.
impl PartialEq for Tables {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Tables {}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tables")
    }
}
