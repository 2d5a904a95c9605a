//! A body that its client holds back until it is asked for it (`Expect: 100-continue`; RFC 9110, 10.1.1).
//!
//! The server asks for it, by a 100, when the body is read for the first time. So it is not read before the
//! application asks; whoever refuses the request first is heard before the client has sent anything. An application that says
//! nothing may not know the expectation: then the client is asked all the same, after as long as clients wait themselves.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::{Sleep, sleep};

/// How long an application may say nothing to an expectation: curl and Go wait as long.
const SILENCE: Duration = Duration::from_secs(1);

const WAITING: u8 = 0;
const WANTED: u8 = 1;
/// The response has begun, and nobody has asked.
const ANSWERED: u8 = 2;
const UNWANTED: u8 = 3;

/// Whether the body is asked for yet: known to whoever reads it and to whoever hears the application.
#[derive(Clone, Debug, Default)]
pub(in crate::l7) struct Expectation(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: AtomicU8,
    reader: AtomicWaker,
}

/// A body that was not asked for. When nobody needs the connection to the application any more it is told that no body
/// comes, so that it ends.
#[derive(Debug)]
pub(in crate::l7) struct Withheld(Expectation);

/// The reader's side.
pub(super) struct Waiting {
    expectation: Expectation,
    silence: Option<Pin<Box<Sleep>>>,
}

impl Expectation {
    /// Another application is to be heard.
    pub(in crate::l7) fn begin(&self) {
        _ = self.set(ANSWERED, WAITING) || self.set(UNWANTED, WAITING);
    }

    /// The application asks for the body, or the client has been asked on its behalf.
    pub(in crate::l7) fn is_met(&self) {
        _ = self.set(WAITING, WANTED);
    }

    /// Nobody has asked for the body.
    pub(in crate::l7) fn is_open(&self) -> bool {
        self.0.state.load(Ordering::Acquire) != WANTED
    }

    /// The application has answered. What it has not asked for by now does not come.
    pub(in crate::l7) fn withheld(&self) -> Option<Withheld> {
        self.set(WAITING, ANSWERED).then(|| Withheld(self.clone()))
    }

    /// Whether it was in the state `from`, and now is in `to`.
    fn set(&self, from: u8, to: u8) -> bool {
        let swapped = self.0.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed);
        if swapped.is_ok() {
            self.0.reader.wake();
        }
        swapped.is_ok()
    }
}

impl Drop for Withheld {
    fn drop(&mut self) {
        _ = self.0.set(ANSWERED, UNWANTED);
    }
}

impl Waiting {
    pub(super) fn new(expectation: Expectation) -> Self {
        Self { expectation, silence: None }
    }

    pub(super) fn expectation(&self) -> &Expectation {
        &self.expectation
    }

    /// Whether the body is wanted, once that is known.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let shared = &self.expectation.0;
        shared.reader.register(cx.waker());
        let silence = self.silence.get_or_insert_with(|| Box::pin(sleep(SILENCE)));
        match shared.state.load(Ordering::Acquire) {
            WANTED => Poll::Ready(true),
            UNWANTED => Poll::Ready(false),
            ANSWERED => Poll::Pending,
            _ if silence.as_mut().poll(cx).is_ready() => {
                self.expectation.is_met();
                // It may have been answered just now.
                Poll::Ready(shared.state.load(Ordering::Acquire) == WANTED)
            }
            _ => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_body_is_read_when_it_is_asked_for() {
        let expectation = Expectation::default();
        let mut waiting = Waiting::new(expectation.clone());
        let task = tokio::spawn(async move { poll_fn(|cx| waiting.poll(cx)).await });
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        expectation.is_met();
        assert!(task.await.unwrap());
        assert!(expectation.withheld().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn or_after_a_while() {
        let (mut waiting, start) = (Waiting::new(Expectation::default()), Instant::now());
        assert!(poll_fn(|cx| waiting.poll(cx)).await);
        assert_eq!(start.elapsed(), SILENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn or_never() {
        let expectation = Expectation::default();
        let mut waiting = Waiting::new(expectation.clone());
        let withheld = expectation.withheld().unwrap();
        let task = tokio::spawn(async move { poll_fn(|cx| waiting.poll(cx)).await });
        tokio::time::sleep(2 * SILENCE).await;
        assert!(!task.is_finished(), "the response is not at its end yet");
        drop(withheld);
        assert!(!task.await.unwrap());
        // Another attempt asks anew.
        expectation.begin();
        assert!(expectation.withheld().is_some());
    }
}
