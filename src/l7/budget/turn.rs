//! How many fields of HTTP/2 heads may be read before somebody looks at them.
//!
//! h2 decodes whatever one read brought before the streams' own tasks get to look at it and reserve what their heads take.
//! So a connection that has read many fields lets others run before it reads on, and a worker's connections together
//! read no more than [`UNSEEN_FIELDS`] of them ahead. Nearly all turns read fewer than [`FREE`], and cost a subtraction.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::base::UNSEEN_FIELDS;

/// What every connection may read in a turn without being counted: four or five requests of a browser's.
const FREE: usize = 64;

/// What one connection may read in a turn: as many heads as there are streams, of usual size.
const CONNECTION: usize = 2 * 1024;

/// Fields that the connections of a worker have read and whose streams may not have run yet.
#[derive(Default)]
pub(in crate::l7) struct Unseen {
    fields: AtomicUsize,
    came: Notify,
}

/// The reading of one connection.
pub(in crate::l7) struct Turn {
    unseen: Arc<Unseen>,
    /// Fields that had come when the turn began.
    began_at: usize,
    /// Of those since, how many are counted for all.
    counted: usize,
}

impl Unseen {
    fn add(&self, fields: usize) {
        if self.fields.fetch_add(fields, Ordering::Relaxed) == 0 {
            self.came.notify_one();
        }
    }

    fn is_full(&self) -> bool {
        self.fields.load(Ordering::Relaxed) >= UNSEEN_FIELDS
    }

    /// Forgets them as soon as whoever was ready to run has run: a task of the worker, behind all others. No connection does it,
    /// since one that waits to write would never come to it.
    pub(in crate::l7) async fn forget(&self) {
        loop {
            self.came.notified().await;
            tokio::task::yield_now().await;
            self.fields.store(0, Ordering::Relaxed);
        }
    }
}

impl Turn {
    pub(in crate::l7) fn new(unseen: Arc<Unseen>) -> Self {
        Self { unseen, began_at: 0, counted: 0 }
    }

    /// Whether to read on, where so many fields have come so far. If not, the turn has ended, and another must be asked for.
    pub(in crate::l7) fn may_read(&mut self, fields: usize) -> bool {
        let may = self.count(fields) < CONNECTION && !self.unseen.is_full();
        if !may {
            self.end(fields);
        }
        may
    }

    /// There is nothing more to read for now.
    pub(in crate::l7) fn end(&mut self, fields: usize) {
        self.count(fields);
        (self.began_at, self.counted) = (fields, 0);
    }

    /// How many fields this turn has read.
    fn count(&mut self, fields: usize) -> usize {
        let read = fields.wrapping_sub(self.began_at);
        if read > FREE && read > self.counted {
            self.unseen.add(read - self.counted);
            self.counted = read;
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_ends_where_it_has_read_enough_or_others_have() {
        let unseen = Arc::<Unseen>::default();
        let counted = || unseen.fields.load(Ordering::Relaxed);
        let mut turns: Vec<_> = (0..8).map(|_| Turn::new(unseen.clone())).collect();
        let first = &mut turns[0];
        assert!(first.may_read(0) && first.may_read(FREE));
        first.end(FREE);
        assert_eq!(counted(), 0, "a few fields cost nothing");
        assert!(first.may_read(FREE) && first.may_read(FREE + CONNECTION - 1));
        assert!(!first.may_read(FREE + CONNECTION));
        assert_eq!(counted(), CONNECTION);
        assert!(first.may_read(FREE + CONNECTION), "another turn");
        for turn in &mut turns[1..] {
            assert!(turn.may_read(0));
            turn.end(CONNECTION);
        }
        assert_eq!(counted(), UNSEEN_FIELDS);
        assert!(!turns[0].may_read(FREE + CONNECTION), "others come first");
        let worker = unseen.clone();
        tokio::spawn(async move { worker.forget().await });
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(counted(), 0);
        assert!(turns[0].may_read(FREE + CONNECTION));
    }
}
