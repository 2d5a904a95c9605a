//! Memory budgets: bytes that the whole agent may hold, and each workload's share of them.
//!
//! A holder reserves its worst case in advance, so the sum never exceeds the limit, whatever peers do. Reservations
//! that a connection needs always count; those that only improve throughput are granted while enough is left.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Str;

/// A budget of bytes, shared by all of its clones.
#[derive(Clone, Debug)]
pub struct Room(Arc<Space>);

#[derive(Debug)]
struct Space {
    limit: usize,
    taken: AtomicUsize,
    whole: Option<Room>,
}

/// A reservation of bytes; released when dropped.
#[derive(Debug)]
pub struct Held {
    room: Room,
    bytes: usize,
}

/// The purpose of a reservation. It determines how full the budget may become by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A connection cannot exist without it.
    Place,
    /// The connection would be slow without it.
    Growth,
    /// The connection would be a little slower without it.
    More,
    /// Only very distant peers need it.
    Most,
}

/// The agent's budget, and each workload's share of it.
#[derive(Clone, Debug)]
pub struct Rooms {
    whole: Room,
    part: usize,
    parts: Arc<Mutex<HashMap<Str, Weak<Space>>>>,
}

impl Need {
    /// The part of a budget, in quarters, that reservations of this purpose may use.
    fn quarters(self) -> usize {
        match self {
            Need::Place => 4,
            Need::Growth => 3,
            Need::More => 2,
            Need::Most => 1,
        }
    }
}

impl Room {
    pub fn new(limit: usize) -> Self {
        Self::within(limit, None)
    }

    /// Without a limit: for tests, and where something else sets the bound.
    pub fn boundless() -> Self {
        Self::new(usize::MAX)
    }

    fn within(limit: usize, whole: Option<Room>) -> Self {
        Self(Arc::new(Space { limit, taken: AtomicUsize::new(0), whole }))
    }

    /// Reserves `bytes`, if this budget and the whole have room for them.
    pub fn take(&self, bytes: usize, need: Need) -> Option<Held> {
        self.add(bytes, need).then(|| Held { room: self.clone(), bytes })
    }

    /// Bytes reserved now.
    pub fn taken(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }

    pub fn limit(&self) -> usize {
        self.0.limit
    }

    fn add(&self, bytes: usize, need: Need) -> bool {
        let limit = self.0.limit / 4 * need.quarters();
        let more = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= limit);
        let added = self.0.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        if added && self.0.whole.as_ref().is_some_and(|whole| !whole.add(bytes, need)) {
            self.0.taken.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        added
    }
}

impl Held {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The budget of the reservation.
    pub fn room(&self) -> &Room {
        &self.room
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut room = Some(&self.room);
        while let Some(Room(space)) = room {
            space.taken.fetch_sub(self.bytes, Ordering::Relaxed);
            room = space.whole.as_ref();
        }
    }
}

impl Rooms {
    /// `part`: what one workload may reserve of the whole.
    pub fn new(whole: usize, part: usize) -> Self {
        Self { whole: Room::new(whole), part, parts: Arc::default() }
    }

    /// Without limits: for tests.
    pub fn boundless() -> Self {
        Self::new(usize::MAX, usize::MAX)
    }

    pub fn whole(&self) -> &Room {
        &self.whole
    }

    /// The budget of one workload, by its UID: shared by all callers while one of them holds it.
    pub fn of(&self, workload: &Str) -> Room {
        let mut parts = self.parts.lock();
        if let Some(space) = parts.get(workload).and_then(Weak::upgrade) {
            return Room(space);
        }
        parts.retain(|_, space| space.strong_count() > 0);
        let room = Room::within(self.part, Some(self.whole.clone()));
        parts.insert(workload.clone(), Arc::downgrade(&room.0));
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_a_part_and_all_together_no_more_than_the_whole() {
        let rooms = Rooms::new(1_000, 400);
        let [a, b, c] = ["a", "b", "c"].map(|uid| rooms.of(&uid.into()));
        let first = a.take(400, Need::Place);
        assert!(first.is_some() && a.take(1, Need::Place).is_none());
        assert!(rooms.of(&"a".into()).take(1, Need::Place).is_none(), "it is one room");
        let _second = b.take(400, Need::Place).expect("room");
        assert!(c.take(201, Need::Place).is_none(), "the whole has no more");
        assert_eq!((c.taken(), rooms.whole().taken()), (0, 800), "nothing is lost by that");
        let _third = c.take(200, Need::Place).expect("room");
        drop(first);
        assert_eq!((a.taken(), rooms.whole().taken()), (0, 600));
    }

    #[test]
    fn what_is_needed_less_leaves_more() {
        let room = Room::new(400);
        let taken = [Need::Most, Need::More, Need::Growth, Need::Place].map(|need| {
            let held = room.take(100, need);
            assert!(room.take(1, need).is_none(), "{need:?}");
            held
        });
        assert!(taken.iter().all(Option::is_some));
        assert_eq!(room.taken(), 400);
    }

    #[test]
    fn rooms_of_workloads_that_left_are_forgotten() {
        let rooms = Rooms::new(1_000, 400);
        for number in 0..10 {
            drop(rooms.of(&format!("{number}").into()));
        }
        assert_eq!(rooms.parts.lock().len(), 1);
    }
}
