//! Which thread serves a connection. The threads share nothing: a connection stays on the one that it was given to, with the tunnels
//! that carry it.

use std::io;

use tokio::net::TcpStream;
use tokio::runtime::Handle;

use crate::pool::Pool;

/// The threads of layer 4.
pub struct Threads {
    first: Thread,
    others: Vec<Thread>,
}

/// One thread: its runtime, and the pool of the tunnels that it drives.
pub(super) struct Thread {
    pub(super) runtime: Handle,
    pub(super) pool: Pool,
}

/// A thread, by its place among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ThreadId(usize);

impl Threads {
    /// `first` drives the tunnels of `pool`; `others` get tunnels of their own.
    pub fn new(pool: &Pool, first: Handle, others: &[Handle]) -> Self {
        let of =
            |runtime: &Handle| Thread { runtime: runtime.clone(), pool: pool.on(runtime.clone()) };
        let others = others.iter().map(of).collect();
        Self { first: Thread { runtime: first, pool: pool.clone() }, others }
    }

    /// The runtime of the first.
    pub fn first(&self) -> &Handle {
        &self.first.runtime
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Thread> {
        std::iter::once(&self.first).chain(&self.others)
    }

    pub(super) fn get(&self, id: ThreadId) -> &Thread {
        // There is nobody else who makes these.
        self.all().nth(id.0).unwrap_or(&self.first)
    }

    /// The thread that accepts the connections of the workload with this number.
    pub(super) fn accepting(&self, number: usize) -> ThreadId {
        ThreadId(number % (1 + self.others.len()))
    }

    /// The thread that has the least to do, by its tasks: connections, streams and tunnels.
    fn idlest(&self) -> ThreadId {
        let tasks = |(_, thread): &(usize, &Thread)| thread.runtime.metrics().num_alive_tasks();
        ThreadId(self.all().enumerate().min_by_key(tasks).map_or(0, |(at, _)| at))
    }

    /// Gives a connection that was accepted on one of them to the thread that has the least to do, which gets its events from here on.
    pub(super) fn place(
        &self,
        stream: TcpStream,
        on: ThreadId,
    ) -> io::Result<(TcpStream, ThreadId)> {
        let idlest = if self.others.is_empty() { on } else { self.idlest() };
        if idlest == on {
            return Ok((stream, on));
        }
        let _entered = self.get(idlest).runtime.enter();
        Ok((TcpStream::from_std(stream.into_std()?)?, idlest))
    }
}

impl ThreadId {
    pub(super) fn index(self) -> usize {
        self.0
    }
}
