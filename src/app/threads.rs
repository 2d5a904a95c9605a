//! The threads of layer 4: each runs a runtime of its own, whose tasks stay where they are.
//!
//! A runtime of one thread runs what is woken in the order in which it was woken. So a tunnel whose streams have something to send
//! is written once, after all of them had their turn. A runtime that shares tasks among threads runs the one that was woken last
//! first, which is the tunnel, for every message: with 32 connections that was two system calls more for each request.

use std::thread;

use anyhow::Context;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// Stops the threads when it is dropped; what they run then is dropped on them.
pub(super) struct Threads {
    runtimes: Vec<Handle>,
    stop: CancellationToken,
}

impl Threads {
    /// Starts so many, and at least one.
    pub(super) fn start(number: usize) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let mut threads = Self { runtimes: Vec::new(), stop };
        for number in 0..number.max(1) {
            let started = start(name(number), threads.stop.clone());
            threads.runtimes.push(started.context("start a thread of layer 4")?);
        }
        Ok(threads)
    }

    /// Their runtimes, of which there is one at least.
    pub(super) fn runtimes(&self) -> &[Handle] {
        &self.runtimes
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The name of a thread, and of its runtime in metrics.
pub(super) fn name(number: usize) -> String {
    match number {
        0 => "layer4".to_owned(),
        more => format!("layer4-{more}"),
    }
}

fn start(name: String, stop: CancellationToken) -> std::io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().name(name).spawn(move || {
        runtime.block_on(stop.cancelled());
        runtime.shutdown_background();
    })?;
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_run_on_the_thread_that_they_were_given_to_until_it_is_stopped() {
        let threads = Threads::start(2).unwrap();
        let name = || thread::current().name().map(str::to_owned);
        for (runtime, expected) in threads.runtimes().iter().zip(["layer4", "layer4-1"]) {
            let task = runtime.spawn(async move { name() });
            assert_eq!(task.await.unwrap().as_deref(), Some(expected));
        }
        let lasting = threads.runtimes()[1].spawn(std::future::pending::<()>());
        drop(threads);
        assert!(lasting.await.unwrap_err().is_cancelled());
    }

    #[test]
    fn there_is_one_at_least() {
        assert_eq!(Threads::start(0).unwrap().runtimes().len(), 1);
    }
}
