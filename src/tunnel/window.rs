//! Flow control: how much a tunnel's peer may send before our consumers take it.
//!
//! A tunnel starts with small windows, because most are idle. With its first stream, and again whenever its consumers
//! keep up with a fast peer, its windows grow, as far as the budget of its workload allows: the agent may have to hold
//! everything that a window admits, so it is reserved in advance. A granted window cannot be revoked (RFC 9113, 6.9),
//! so the bytes are released with the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use h2::{client, server};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::waiting::Part;
use crate::base::{Held, Need, Room};

/// Windows of a stream and of a connection, in bytes. The connection's is eight times the stream's: h2 charges small
/// frames that wait half of it besides their payload (256 bytes each). So a stalled consumer that is sent messages of
/// 52 bytes or more stops its own stream when its window is full, and not the tunnel of its siblings.
struct Stage {
    stream: u32,
    connection: u32,
    need: Need,
}

/// From an idle tunnel to one that fills a fast link over 30 ms (ztunnel's 4 MiB per stream).
const STAGES: [Stage; 4] = [
    // HTTP/2 allows no smaller one for a connection.
    Stage { stream: 8 * 1024, connection: 64 * 1024 - 1, need: Need::Place },
    Stage { stream: 128 * 1024, connection: 1024 * 1024, need: Need::Growth },
    Stage { stream: 512 * 1024, connection: 4 * 1024 * 1024, need: Need::More },
    Stage { stream: 4 * 1024 * 1024, connection: 32 * 1024 * 1024, need: Need::Most },
];

/// The initial windows of a stream and a connection.
pub(super) const FIRST_STREAM: u32 = STAGES[0].stream;
pub(super) const FIRST_CONNECTION: u32 = STAGES[0].connection;

/// The memory of a tunnel whatever its windows, in bytes: its state and TLS's (50 KiB), the initial windows, a partial
/// frame, and a head.
pub const TUNNEL_BYTES: usize = 256 * 1024;

/// A peer is fast if it sends a connection's window within this time.
const FAST: Duration = Duration::from_secs(1);
/// The backoff after there was no budget.
const RETRY: Duration = Duration::from_millis(100);

/// The windows of one tunnel, owned by the driver of its connection.
pub(super) struct Windows {
    room: Room,
    held: Vec<Held>,
    consumed: Consumed,
    stage: usize,
    /// A stream window that could not be announced yet, because the previous one was not acknowledged.
    unsaid: Option<u32>,
    /// The bytes consumed when the measurement began, and its time.
    seen: usize,
    since: Instant,
    not_before: Option<Instant>,
}

/// Counts what the consumers of a tunnel took.
#[derive(Clone, Default)]
pub(super) struct Consumed(Arc<AtomicUsize>);

/// A connection of either side whose windows can be changed.
pub(super) trait Resize {
    fn connection_window(&mut self, size: u32);
    /// `false`: not now.
    fn stream_window(&mut self, size: u32) -> bool;
}

impl Stage {
    /// The memory that it may need, including the overhead of small frames.
    const fn bytes(&self) -> usize {
        self.connection as usize / 2 * 3
    }
}

impl Consumed {
    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Windows {
    pub(super) fn new(room: Room) -> Self {
        Self {
            room,
            held: Vec::new(),
            consumed: Consumed::default(),
            stage: 0,
            unsaid: None,
            seen: 0,
            since: Instant::now(),
            not_before: None,
        }
    }

    pub(super) fn consumed(&self) -> Consumed {
        self.consumed.clone()
    }

    /// They are the initial windows.
    pub(super) fn are_first(&self) -> bool {
        self.stage == 0
    }

    /// Grows the windows if that is due and the budget allows. It is called whenever the connection is driven, so it
    /// usually compares only two numbers. `active`: there is a stream; it matters for the first windows only.
    pub(super) fn adjust(&mut self, active: bool, connection: &mut impl Resize) {
        if let Some(size) = self.unsaid {
            self.unsaid = (!connection.stream_window(size)).then_some(size);
        }
        let (Some(now), Some(next)) = (STAGES.get(self.stage), STAGES.get(self.stage + 1)) else {
            return;
        };
        let consumed = self.consumed.0.load(Ordering::Relaxed).wrapping_sub(self.seen);
        let due = if self.stage == 0 { active } else { consumed >= now.connection as usize };
        if due && self.unsaid.is_none() && self.is_time(consumed) {
            self.grow(next, next.bytes() - now.bytes(), connection);
        }
    }

    /// Whether the consumers were fast, and there was budget lately.
    fn is_time(&mut self, consumed: usize) -> bool {
        let now = Instant::now();
        if self.not_before.is_some_and(|time| now < time) {
            return false;
        }
        let fast = self.stage == 0 || now - self.since <= FAST;
        self.seen = self.seen.wrapping_add(consumed);
        self.since = now;
        fast
    }

    fn grow(&mut self, to: &Stage, bytes: usize, connection: &mut impl Resize) {
        let Some(held) = self.room.take(bytes, to.need) else {
            self.not_before = Some(Instant::now() + RETRY);
            return;
        };
        self.held.push(held);
        self.stage += 1;
        self.not_before = None;
        connection.connection_window(to.connection);
        self.unsaid = (!connection.stream_window(to.stream)).then_some(to.stream);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Resize for server::Connection<S, Part> {
    fn connection_window(&mut self, size: u32) {
        self.set_target_window_size(size);
    }

    fn stream_window(&mut self, size: u32) -> bool {
        self.set_initial_window_size(size).is_ok()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Resize for client::Connection<S, Part> {
    fn connection_window(&mut self, size: u32) {
        self.set_target_window_size(size);
    }

    fn stream_window(&mut self, size: u32) -> bool {
        self.set_initial_window_size(size).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    /// What was said last.
    #[derive(Default)]
    struct Said {
        connection: u32,
        stream: u32,
        busy: bool,
    }

    impl Resize for Said {
        fn connection_window(&mut self, size: u32) {
            self.connection = size;
        }
        fn stream_window(&mut self, size: u32) -> bool {
            if !self.busy {
                self.stream = size;
            }
            !self.busy
        }
    }

    #[test]
    fn a_stream_is_full_before_small_frames_cost_too_much() {
        for stage in &STAGES {
            let frames = stage.stream / 52;
            assert!(frames * (256 - 52) <= stage.connection / 2, "{}", stage.stream);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn windows_grow_with_use_while_there_is_room() {
        let room = Room::new(400 * MIB);
        let (mut windows, mut said) = (Windows::new(room.clone()), Said::default());
        windows.adjust(false, &mut said);
        assert_eq!((said.connection, room.taken()), (0, 0), "idle tunnels hold nothing more");
        windows.adjust(true, &mut said);
        assert_eq!((said.connection, said.stream), (MIB as u32, 128 * 1024));
        windows.consumed().add(MIB - 1);
        windows.adjust(true, &mut said);
        assert_eq!(said.connection, MIB as u32);
        windows.consumed().add(1);
        said.busy = true;
        windows.adjust(true, &mut said);
        assert_eq!((said.connection, said.stream), (4 * MIB as u32, 128 * 1024));
        said.busy = false;
        windows.adjust(true, &mut said);
        assert_eq!(said.stream, 512 * 1024, "said as soon as it can be");
        tokio::time::advance(2 * FAST).await;
        windows.consumed().add(4 * MIB);
        windows.adjust(true, &mut said);
        assert_eq!(said.connection, 4 * MIB as u32, "that was slow");
        windows.consumed().add(4 * MIB);
        windows.adjust(true, &mut said);
        assert_eq!((said.connection, said.stream), (32 * MIB as u32, 4 * MIB as u32));
        assert_eq!(room.taken(), 48 * MIB - FIRST_CONNECTION as usize / 2 * 3);
        drop(windows);
        assert_eq!(room.taken(), 0, "given back with the connection");
    }

    #[tokio::test(start_paused = true)]
    async fn without_room_windows_stay_and_grow_later() {
        let room = Room::new(4 * MIB);
        let others = room.take(3 * MIB, Need::Place);
        let (mut windows, mut said) = (Windows::new(room.clone()), Said::default());
        windows.adjust(true, &mut said);
        assert_eq!(said.connection, 0);
        drop(others);
        windows.adjust(true, &mut said);
        assert_eq!(said.connection, 0, "it is not asked for without end");
        tokio::time::advance(RETRY).await;
        windows.adjust(true, &mut said);
        assert_eq!(said.connection, MIB as u32);
    }
}
