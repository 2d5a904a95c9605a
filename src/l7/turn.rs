//! How many fields of HTTP/2 heads one turn of a connection may read.
//!
//! h2 decodes whatever one read brought before the streams' own tasks get to look at it and reserve what their heads take.
//! So a connection that has read many fields lets others run before it reads on, and a worker's connections together
//! read no more than [`UNSEEN_FIELDS`] of them ahead. Nearly all turns read fewer than [`FREE`], and cost a subtraction.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::budget::Pool;
use crate::base::UNSEEN_FIELDS;

/// What every connection may read in a turn without being counted: four or five requests of a browser's.
const FREE: usize = 64;

/// What one connection may read in a turn: as many heads as there are streams, of usual size.
const CONNECTION: usize = 2 * 1024;

/// The reading of one connection.
pub(super) struct Turn {
    pool: Arc<Pool>,
    /// Fields that had come when the turn began.
    began_at: usize,
    /// Of those since, how many are counted in the pool.
    counted: usize,
    has_ended: bool,
}

impl Turn {
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        Self { pool, began_at: 0, counted: 0, has_ended: false }
    }

    /// Whether to read on, where so many fields have come so far. If not, the turn has ended, and another must be asked for.
    pub(super) fn may_read(&mut self, fields: usize) -> bool {
        if std::mem::take(&mut self.has_ended) {
            self.give_back();
            self.began_at = fields;
        }
        let read = self.count(fields);
        let goes_on = read <= FREE && self.counted == 0 || read < CONNECTION;
        let may = goes_on && self.pool.heads().load(Ordering::Relaxed) < UNSEEN_FIELDS;
        self.has_ended = !may;
        may
    }

    /// There is nothing to read. Whether another turn must be asked for, to give back what this one counts.
    pub(super) fn end(&mut self, fields: usize) -> bool {
        self.count(fields);
        self.has_ended = true;
        self.counted > 0
    }

    /// How many fields this turn has read.
    fn count(&mut self, fields: usize) -> usize {
        let read = fields.wrapping_sub(self.began_at);
        if read > FREE && read > self.counted {
            self.pool.heads().fetch_add(read - self.counted, Ordering::Relaxed);
            self.counted = read;
        }
        read
    }

    fn give_back(&mut self) {
        if self.counted > 0 {
            self.pool.heads().fetch_sub(self.counted, Ordering::Relaxed);
            self.counted = 0;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::super::WorkerSettings;
    use super::*;
    use crate::telemetry::Telemetry;

    #[test]
    fn a_turn_ends_where_it_has_read_enough_or_others_have() {
        let pool = Pool::new(&WorkerSettings::for_tests(), Telemetry::without_log());
        let counted = || pool.heads().load(Ordering::Relaxed);
        let mut turns: Vec<_> = (0..9).map(|_| Turn::new(pool.clone())).collect();
        let first = &mut turns[0];
        assert!(first.may_read(0) && first.may_read(FREE));
        assert!(!first.end(FREE), "a few fields cost nothing");
        assert!(first.may_read(FREE) && first.may_read(FREE + CONNECTION - 1));
        assert!(!first.may_read(FREE + CONNECTION));
        assert_eq!(counted(), CONNECTION);
        assert!(first.may_read(FREE + CONNECTION), "another turn");
        assert_eq!(counted(), 0);
        for turn in &mut turns[1..] {
            assert!(turn.may_read(0));
            assert!(turn.end(CONNECTION), "it comes back to give back");
        }
        assert_eq!(counted(), UNSEEN_FIELDS);
        assert!(!turns[0].may_read(FREE + CONNECTION), "the others come first");
        turns.truncate(1);
        assert_eq!(counted(), 0);
        assert!(turns[0].may_read(FREE + CONNECTION));
    }
}
