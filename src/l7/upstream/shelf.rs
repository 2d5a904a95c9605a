//! The connections to one place for one client.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Sender, UpstreamError};
use crate::l7::version::Version;

/// How long a connection may rest. Go and hyper choose 90 s; many applications close after 60 s (nginx 75 s, Apache
/// 5 s, Node 5 s), and the shorter this is, the rarer a request meets a connection that is just being closed.
const REST: Duration = Duration::from_secs(60);

/// Connections that may rest on one shelf: a burst does not leave more than this behind.
const MOST_RESTING: usize = 64;

/// Connections to one place.
pub(in crate::l7) struct Shelf {
    version: Version,
    resting: Mutex<Vec<Resting>>,
    /// One dial at a time for HTTP/2, whose connections take many requests.
    dialling: Semaphore,
}

struct Resting {
    sender: Sender,
    since: Instant,
}

/// A connection in use by one request.
pub(in crate::l7) struct Lease {
    pub(in crate::l7) sender: Sender,
    shelf: Arc<Shelf>,
    /// It served a request before, so the application may be closing it.
    pub(in crate::l7) reused: bool,
}

impl Resting {
    /// It rested for as long as the policy of its destination lets it.
    fn is_over(&self) -> bool {
        let rest = self.sender.rest();
        rest.is_some_and(|rest| self.sender.streams() == 0 && self.since.elapsed() >= rest)
    }
}

impl Shelf {
    pub(in crate::l7) fn new(version: Version) -> Self {
        Self { version, resting: Mutex::default(), dialling: Semaphore::new(1) }
    }

    /// A connection that takes a request now: one from the shelf, or what `dial` makes.
    pub(in crate::l7) async fn lease<F>(
        self: &Arc<Self>,
        dial: impl FnOnce() -> F,
    ) -> Result<Lease, UpstreamError>
    where
        F: Future<Output = Result<Sender, UpstreamError>>,
    {
        if let Some(sender) = self.take() {
            return Ok(self.leased(sender, true));
        }
        // Boxed: dialling is rare and large, and would make every request in flight as large.
        Box::pin(self.lease_new(dial)).await
    }

    async fn lease_new<F>(
        self: &Arc<Self>,
        dial: impl FnOnce() -> F,
    ) -> Result<Lease, UpstreamError>
    where
        F: Future<Output = Result<Sender, UpstreamError>>,
    {
        match self.version {
            Version::Http1 => Ok(self.leased(dial().await?, false)),
            Version::Http2 => {
                // The semaphore is never closed; without a permit there would only be one more connection.
                let _turn = self.dialling.acquire().await.ok();
                if let Some(sender) = self.take_or_hear().await {
                    return Ok(self.leased(sender, true));
                }
                let first = dial().await?;
                let shared = first.share();
                self.put(first);
                Ok(self.leased(shared?, false))
            }
        }
    }

    /// The connection that was used last is the likeliest to be open still.
    fn take(&self) -> Option<Sender> {
        let mut resting = self.resting.lock();
        if self.version == Version::Http1 {
            // The others are looked through when it is their turn, and by the sweep.
            let usable =
                |it: &Resting| !it.is_over() && it.sender.is_ready() && it.sender.is_quiet();
            return std::iter::from_fn(|| resting.pop()).find(usable).map(|it| it.sender);
        }
        resting.retain(|resting| !resting.sender.is_finished() && !resting.is_over());
        let found = resting.iter().rposition(|resting| resting.sender.is_ready())?;
        resting[found].since = Instant::now();
        resting[found].sender.share().ok()
    }

    /// A burst of requests to an application that nobody is connected to would make a connection for each of them while the
    /// first is not told how many streams the application takes.
    async fn take_or_hear(&self) -> Option<Sender> {
        if let Some(sender) = self.take() {
            return Some(sender);
        }
        let newest = self.resting.lock().last().and_then(|newest| newest.sender.untold());
        newest?.heard().await;
        self.take()
    }

    fn put(&self, sender: Sender) {
        let mut resting = self.resting.lock();
        if resting.len() < MOST_RESTING && !sender.is_retired() {
            resting.push(Resting { sender, since: Instant::now() });
        }
    }

    fn leased(self: &Arc<Self>, sender: Sender, reused: bool) -> Lease {
        // Those of HTTP/2 are counted when they are shared out.
        if self.version == Version::Http1 {
            sender.count();
        }
        Lease { sender, shelf: self.clone(), reused }
    }

    pub(super) fn sweep(&self) {
        self.resting.lock().retain(|Resting { sender, since }| {
            let rest = sender.rest().unwrap_or(REST);
            !sender.is_finished()
                && sender.is_quiet()
                && (sender.streams() > 0 || since.elapsed() < rest)
        });
    }

    /// Closes what rests, and says how much that was.
    pub(super) fn clear(&self) -> usize {
        let mut resting = self.resting.lock();
        let before = resting.len();
        resting.retain(|resting| resting.sender.streams() > 0);
        before - resting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.resting.lock().is_empty()
    }
}

impl Lease {
    /// The response has ended cleanly: the connection may serve others.
    pub(in crate::l7) fn give_back(self) {
        // The senders of an HTTP/2 connection were shared out by one that stays on the shelf.
        if self.shelf.version == Version::Http1 {
            self.shelf.put(self.sender);
        }
    }
}
