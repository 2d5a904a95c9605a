//! Processor time of a worker, shared between its clients.
//!
//! A worker runs its tasks in the order in which they are woken. A client with hundreds of connections, or streams, that all
//! want something at the same time would have every one of them served before another client's next request. So a worker
//! counts the connections and requests that each client begins in a round: the time in which every task that is ready runs
//! once. Who has begun as many as a client, or its tenant, may waits for the next round, behind the others. A client that is
//! alone does not wait, and one that asks for little pays a few atomic operations a connection and a request.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

/// Requests that one client may begin in a round: more than a browser's connections ask for at the same time, and in all less
/// than half a millisecond of a processor.
const CLIENT: u32 = 8;
/// And all clients of one tenant.
const TENANT: u32 = 32;
/// How long a worker remembers that more than one client asked for something, in its clock's seconds.
const REMEMBERED: u32 = 2;

/// The rounds of one worker.
#[derive(Default)]
pub(in crate::l7) struct Rounds {
    number: AtomicU32,
    /// Which client asked last, by the address of its [`Turns`].
    last: AtomicUsize,
    /// Until when clients share the worker, in its clock's seconds: more than one has asked.
    shared_until: AtomicU32,
    /// The clients of which requests wait.
    queue: Mutex<VecDeque<Arc<Turns>>>,
    came: Notify,
}

/// How many requests somebody has begun in the round in which it began the last: the round, then the count.
#[derive(Default)]
pub(in crate::l7) struct Begun(AtomicU64);

/// What one client has begun, and which of its requests wait.
pub(in crate::l7) struct Turns {
    begun: Begun,
    tenant: Arc<Begun>,
    /// Requests that wait, or may go on and have not noticed yet.
    waiting: AtomicUsize,
    /// It is in the queue; changes under the queue's lock.
    queued: AtomicBool,
    may_go: Semaphore,
}

/// A request that waits.
struct Waiting<'a>(&'a Turns);

impl Begun {
    /// Counts as many as there may be in this round, of those that want to; how many these are.
    fn begin(&self, round: u32, wanted: u32, most: u32) -> u32 {
        let before = self.0.load(Ordering::Relaxed);
        let count = if (before >> 32) as u32 == round { before as u32 } else { 0 };
        let may = wanted.min(most.saturating_sub(count));
        if may > 0 {
            // Two threads may count one less here, which does no harm.
            self.0.store(u64::from(round) << 32 | u64::from(count + may), Ordering::Relaxed);
        }
        may
    }
}

impl Turns {
    pub(in crate::l7) fn new(tenant: Arc<Begun>) -> Arc<Self> {
        let (begun, waiting) = (Begun::default(), AtomicUsize::new(0));
        let (queued, may_go) = (AtomicBool::new(false), Semaphore::new(0));
        Arc::new(Self { begun, tenant, waiting, queued, may_go })
    }

    /// How many of those that `wanted` to may begin in this round.
    fn begin(&self, round: u32, wanted: u32) -> u32 {
        let may = self.begun.begin(round, wanted, CLIENT);
        if may > 0 { self.tenant.begin(round, may, TENANT) } else { 0 }
    }
}

impl Rounds {
    /// Waits until the client may begin another request. `clock`: the worker's, in seconds.
    pub(in crate::l7) async fn begin(&self, client: &Arc<Turns>, clock: u32) {
        if !self.is_shared(client, clock) {
            return;
        }
        let others_wait = client.waiting.load(Ordering::Relaxed) > 0;
        if others_wait || client.begin(self.number.load(Ordering::Relaxed), 1) == 0 {
            self.wait(client).await;
        }
    }

    /// Whether another client than this one has asked for something lately.
    fn is_shared(&self, client: &Arc<Turns>, clock: u32) -> bool {
        let this = Arc::as_ptr(client).addr();
        if self.last.load(Ordering::Relaxed) != this && self.last.swap(this, Ordering::Relaxed) != 0
        {
            self.shared_until.store(clock.saturating_add(REMEMBERED), Ordering::Relaxed);
        }
        clock < self.shared_until.load(Ordering::Relaxed)
    }

    async fn wait(&self, client: &Arc<Turns>) {
        client.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(client);
        self.enqueue(client);
        self.came.notify_one();
        // Nobody closes it.
        if let Ok(permit) = client.may_go.acquire().await {
            permit.forget();
        }
    }

    fn enqueue(&self, client: &Arc<Turns>) {
        let mut queue = self.queue.lock();
        if !client.queued.swap(true, Ordering::Relaxed) {
            queue.push_back(client.clone());
        }
    }

    /// Begins one round after the other while requests wait: a task of the worker, behind all that are ready to run.
    pub(in crate::l7) async fn turn(&self) {
        loop {
            self.came.notified().await;
            while self.next() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Begins a round; whether requests wait for the next one.
    fn next(&self) -> bool {
        let round = self.number.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let mut queue = self.queue.lock();
        // Who comes first goes last in the next round.
        if let Some(first) = queue.pop_front() {
            queue.push_back(first);
        }
        let waiting = mem::take(&mut *queue);
        for client in waiting {
            let waiting = client.waiting.load(Ordering::Relaxed);
            if waiting == 0 {
                client.queued.store(false, Ordering::Relaxed);
                continue;
            }
            // What was not taken, by requests that were given up, is not saved for later.
            let free = (CLIENT as usize).saturating_sub(client.may_go.available_permits());
            let wanted = u32::try_from(waiting.min(free)).unwrap_or(CLIENT);
            client.may_go.add_permits(client.begin(round, wanted) as usize);
            queue.push_back(client);
        }
        !queue.is_empty()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::iter::repeat_with;

    use parking_lot::Mutex;
    use tokio::task::JoinSet;
    use tokio::time::{Duration, timeout};

    use super::*;

    /// Clients, each of another tenant or all of one, that want to begin so many requests at the same time: in which order they do.
    async fn order(wanted: &[usize], one_tenant: bool) -> Vec<usize> {
        let (rounds, began) = (Arc::new(Rounds::default()), Arc::new(Mutex::new(Vec::new())));
        let tenant = Arc::new(Begun::default());
        let clients: Vec<_> = wanted
            .iter()
            .map(|_| Turns::new(if one_tenant { tenant.clone() } else { Arc::default() }))
            .collect();
        for client in &clients {
            rounds.is_shared(client, 0);
        }
        let mut tasks = JoinSet::new();
        for (number, client) in clients.iter().enumerate() {
            for _ in 0..wanted[number] {
                let (rounds, client, began) = (rounds.clone(), client.clone(), began.clone());
                tasks.spawn(async move {
                    rounds.begin(&client, 0).await;
                    began.lock().push(number);
                });
            }
        }
        let driven = rounds.clone();
        let driver = tokio::spawn(async move { driven.turn().await });
        let all = async { while tasks.join_next().await.is_some() {} };
        timeout(Duration::from_secs(5), all).await.expect("all begin");
        driver.abort();
        assert!(clients.iter().all(|client| client.waiting.load(Ordering::Relaxed) == 0));
        began.lock().clone()
    }

    #[tokio::test]
    async fn one_client_with_thousands_of_requests_does_not_delay_the_others() {
        let began = order(&[5_000, 3, 20], false).await;
        assert_eq!(began.len(), 5_023);
        let place = |client: usize, nth: usize| {
            began.iter().enumerate().filter(|(_, it)| **it == client).nth(nth).expect("it began").0
        };
        assert!(place(1, 2) < 3 * CLIENT as usize, "{}", place(1, 2));
        assert!(place(2, 19) < 8 * CLIENT as usize, "{}", place(2, 19));
    }

    #[tokio::test]
    async fn many_clients_of_one_tenant_share_what_a_tenant_may() {
        let rounds = Rounds::default();
        let evil = Arc::new(Begun::default());
        let many: Vec<_> = repeat_with(|| Turns::new(evil.clone())).take(100).collect();
        let in_a_round: u32 = many.iter().map(|client| client.begin(1, CLIENT)).sum();
        assert_eq!(in_a_round, TENANT);
        let other = Turns::new(Arc::default());
        assert_eq!(other.begin(1, 1), 1);
        assert!(!rounds.next(), "nobody waits");
        // Nobody is forgotten for ever.
        assert_eq!(order(&[50; 40], true).await.len(), 2_000);
    }

    #[tokio::test]
    async fn who_is_alone_does_not_wait() {
        let (rounds, client) = (Rounds::default(), Turns::new(Arc::default()));
        for _ in 0..1_000 {
            timeout(Duration::ZERO, rounds.begin(&client, 0)).await.expect("nobody else is there");
        }
        let other = Turns::new(Arc::default());
        assert!(rounds.is_shared(&other, 0) && rounds.is_shared(&other, 1));
        assert!(!rounds.is_shared(&other, REMEMBERED), "the first one has not come back");
    }

    /// A client that gives up what waits does not save turns for later.
    #[tokio::test]
    async fn requests_that_are_given_up_leave_no_turns_behind() {
        let (rounds, client) = (Arc::new(Rounds::default()), Turns::new(Arc::default()));
        rounds.is_shared(&Turns::new(Arc::default()), 0);
        for _ in 0..100 {
            let mut tasks = JoinSet::new();
            for _ in 0..100 {
                let (rounds, client) = (rounds.clone(), client.clone());
                tasks.spawn(async move { rounds.begin(&client, 0).await });
            }
            tokio::task::yield_now().await;
            rounds.next();
            tasks.shutdown().await;
        }
        assert!(client.may_go.available_permits() <= CLIENT as usize);
        assert!(!rounds.next(), "nobody waits");
        assert!(!client.queued.load(Ordering::Relaxed));
    }
}
