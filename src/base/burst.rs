//! Loops that accept connections or streams for one party, and share a runtime with the loops of others.
//!
//! A runtime runs its tasks in the order in which they are woken. A loop that accepts all that is there would have the
//! tasks of hundreds of its connections run before another party's first one. So a loop accepts a few, and continues
//! after every other task that is ready.

use tokio::task;

/// How many connections or streams a loop accepts before the other tasks run: as many as a client may begin requests
/// in a round of a worker.
const MOST: u32 = 8;

/// What a loop has accepted since the other tasks ran.
#[derive(Default)]
pub struct Burst(u32);

impl Burst {
    /// One more was accepted. Lets the other tasks run if it was the last one of a burst.
    pub async fn taken(&mut self) {
        self.0 += 1;
        if self.0 >= MOST {
            self.0 = 0;
            task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::runtime::Builder;
    use tokio::task::JoinSet;

    use super::*;

    /// Loops that find so many connections ready, each of which is a task: in which order the connections begin.
    async fn order(ready: &[usize]) -> Vec<usize> {
        let began = Arc::new(Mutex::new(Vec::new()));
        let mut loops = JoinSet::new();
        for (party, count) in ready.iter().copied().enumerate() {
            let began = began.clone();
            loops.spawn(async move {
                let (mut burst, mut connections) = (Burst::default(), JoinSet::new());
                for _ in 0..count {
                    let began = began.clone();
                    connections.spawn(async move { began.lock().push(party) });
                    burst.taken().await;
                }
                connections.join_all().await;
            });
        }
        loops.join_all().await;
        began.lock().clone()
    }

    /// On a runtime like layer 4's.
    #[test]
    fn a_loop_with_thousands_of_connections_does_not_delay_the_others() {
        let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let began = runtime.block_on(async { tokio::spawn(order(&[5_000, 3, 20])).await.unwrap() });
        assert_eq!(began.len(), 5_023);
        let last = |party: usize| began.iter().rposition(|it| *it == party).expect("it began");
        assert!(last(1) < 100 && last(2) < 300, "{} and {}", last(1), last(2));
    }
}
