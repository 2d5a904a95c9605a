//! Following a kind or an object: list, then watch, for as long as it takes. What fails is tried again with growing
//! pauses. That a connection ends which has lived for a while is no failure, if the next one can be made.
//!
//! All watches of the program go through here, the agent's and the controller's, so that none waits longer than another
//! after the API server was away.

use std::io;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt};
use kube::runtime::watcher::{self, Event};
use tokio::time::{Instant, sleep, timeout};

use super::answer::PATIENCE;
use crate::base::Backoff;

pub(super) const PAUSE_AT_MOST: Duration = Duration::from_secs(5);
/// Between attempts that fail. Agents of a whole cluster try at once, so each takes between half and all of it.
pub(crate) const RETRY: Backoff =
    Backoff::new(Duration::from_millis(200), PAUSE_AT_MOST).spread(0.5..=1.0);
/// A watch that breaks after this time had been well: servers restart, load balancers and our own limit cut what is silent,
/// and of a kind that never changed a server sends no bookmarks.
pub(super) const LIVED: Duration = Duration::from_secs(10);

type Events<K> = BoxStream<'static, watcher::Result<Event<K>>>;

/// A watch that begins again by itself.
pub struct Followed<K> {
    begin: Box<dyn Fn() -> Events<K> + Send + Sync>,
    events: Events<K>,
    /// In a row.
    failures: u32,
    /// The next attempt follows after a pause.
    pausing: bool,
    /// When the server was last asked, or said something.
    well: Instant,
    /// A list is being read.
    listing: bool,
    /// A whole list has been read, if not of this attempt.
    listed: bool,
}

impl<K> Followed<K> {
    /// Follows what `begin` starts to watch.
    pub fn new(begin: impl Fn() -> Events<K> + Send + Sync + 'static) -> Self {
        let (events, well) = (begin(), Instant::now());
        let begin = Box::new(begin);
        Self { begin, events, failures: 0, pausing: false, well, listing: false, listed: false }
    }

    /// Whether a whole list has been read at any time.
    pub(super) fn listed(&self) -> bool {
        self.listed
    }

    /// What the server says next, or why it does not; the next call tries again.
    ///
    /// # Errors
    /// The server cannot be asked, refuses, or leaves a list unfinished.
    pub async fn next(&mut self) -> watcher::Result<Event<K>> {
        loop {
            if self.pausing {
                sleep(RETRY.after(self.failures)).await;
                self.pausing = false;
                self.well = Instant::now();
            }
            match self.hear().await {
                Some(Ok(event)) => {
                    // Said before anything was asked.
                    if !matches!(event, Event::Init) {
                        self.failures = 0;
                        self.well = Instant::now();
                    }
                    self.listing = match event {
                        Event::Init => true,
                        Event::InitDone => false,
                        _ => self.listing,
                    };
                    self.listed |= matches!(event, Event::InitDone);
                    return Ok(event);
                }
                Some(Err(error)) if self.listed && is_end(&error, self.well.elapsed()) => {
                    tracing::debug!(%error, "a watch ended and goes on");
                    self.failures = 1;
                    self.pausing = true;
                }
                Some(Err(error)) => {
                    self.failures = self.failures.saturating_add(1);
                    self.pausing = true;
                    return Err(error);
                }
                // Watchers do not end; should one, another takes over.
                None => self.begin_again(),
            }
        }
    }

    /// A server may accept to list and then never finish, for example while its own store does not answer. What has been
    /// listed may be silent for long.
    async fn hear(&mut self) -> Option<watcher::Result<Event<K>>> {
        if !self.listing {
            return self.events.next().await;
        }
        match timeout(PATIENCE, self.events.next()).await {
            Ok(event) => event,
            Err(_) => {
                self.begin_again();
                let waited = format!("the list did not go on for {} s", PATIENCE.as_secs());
                let error = io::Error::new(io::ErrorKind::TimedOut, waited);
                let error = kube::Error::Service(Box::new(error));
                Some(Err(watcher::Error::InitialListFailed(error)))
            }
        }
    }

    fn begin_again(&mut self) {
        self.events = (self.begin)();
        self.failures = self.failures.max(1);
        self.pausing = true;
        self.listing = false;
    }
}

/// Whether a watch that was well for so long has merely come to its end. Should the next one not be made, that is told.
fn is_end(error: &watcher::Error, well: Duration) -> bool {
    match error {
        watcher::Error::WatchFailed(kube::Error::Api(_)) => false,
        watcher::Error::WatchFailed(_) => well >= LIVED,
        // It asks for more than the server still knows: begun anew.
        watcher::Error::WatchError(status) => status.code == 410 && well >= LIVED,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    type Said = watcher::Result<Event<()>>;

    fn refused() -> Said {
        let error = kube::Error::Service(Box::new(io::Error::other("refused")));
        Err(watcher::Error::InitialListFailed(error))
    }

    /// Follows a server that says this each time that it is asked, and then nothing more. Returns when each failure came.
    async fn failures(said: fn() -> Vec<Said>, count: usize) -> Vec<Duration> {
        let begin = move || stream::iter(said()).chain(stream::pending()).boxed();
        let mut followed = Followed::new(begin);
        let begun = Instant::now();
        let mut failures = Vec::new();
        while failures.len() < count {
            if followed.next().await.is_err() {
                failures.push(begun.elapsed());
            }
        }
        failures
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_does_not_go_on_is_begun_again() {
        for said in [|| vec![Ok(Event::Init)], || vec![Ok(Event::Init), Ok(Event::InitApply(()))]] {
            let failures = failures(said, 3).await;
            let expected = [PATIENCE, 2 * PATIENCE, 3 * PATIENCE];
            for (failure, expected) in failures.iter().zip(expected) {
                let late = failure.saturating_sub(expected);
                assert!(*failure >= expected && late < Duration::from_secs(3), "{failures:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_been_listed_may_be_silent() {
        let begin = || {
            let said = [Ok(Event::Init), Ok(Event::InitDone)];
            stream::iter(said).chain(stream::pending()).boxed()
        };
        let mut followed = Followed::<()>::new(begin);
        assert!(matches!(followed.next().await, Ok(Event::Init)));
        assert!(matches!(followed.next().await, Ok(Event::InitDone)));
        let silent = timeout(Duration::from_secs(3600), followed.next()).await;
        assert!(silent.is_err(), "{silent:?}");
    }

    /// `Init` comes before each attempt to list, and is no answer.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_refuses_is_asked_ever_more_slowly() {
        let said = || (0..40).flat_map(|_| [Ok(Event::Init), refused()]).collect();
        let failures = failures(said, 20).await;
        let pauses: Vec<_> = failures.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let bound = PAUSE_AT_MOST + Duration::from_millis(1);
        assert!(pauses[0] < Duration::from_millis(250), "{pauses:?}");
        assert!(pauses[10..].iter().all(|it| *it >= PAUSE_AT_MOST / 2 && *it <= bound));
    }

    #[test]
    fn a_watch_that_breaks_at_once_or_is_refused_is_a_failure() {
        let broken =
            || watcher::Error::WatchFailed(kube::Error::ReadEvents(io::Error::other("cut")));
        assert!(!is_end(&broken(), Duration::from_secs(1)) && is_end(&broken(), LIVED));
        let refused = kube::core::Status::failure("no", "Forbidden").with_code(403);
        let refused = watcher::Error::WatchFailed(kube::Error::Api(Box::new(refused)));
        assert!(!is_end(&refused, LIVED));
    }
}
