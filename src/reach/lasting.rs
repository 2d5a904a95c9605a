//! When a connection of layer 4 ends by itself: `maxConnectionDuration` and `idleTimeout` of a DestinationRule.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::Failure;
use crate::base::Reason;
use crate::traffic::Limits;

/// How often it is looked whether something was carried, in parts of the timeout: it ends at most this part later.
const LOOKS: u32 = 8;
const SHORTEST_LOOK: Duration = Duration::from_millis(5);

/// Waits until a connection under these limits must be closed. `carried`: the bytes so far, of both directions. Pending for ever
/// where nothing is limited.
pub async fn until_over(limits: Option<&Limits>, carried: impl Fn() -> u64) -> Failure {
    let Some(limits) = limits.filter(|limits| limits.ends_connections()) else {
        return std::future::pending().await;
    };
    // In memory of its own, since few connections have such limits.
    Box::pin(either(limits.max_duration, limits.idle_timeout, carried)).await
}

async fn either(
    longest: Option<Duration>,
    idle: Option<Duration>,
    carried: impl Fn() -> u64,
) -> Failure {
    let aged = async {
        match longest {
            Some(longest) => sleep(longest).await,
            None => std::future::pending().await,
        }
    };
    let rested = async {
        match idle {
            Some(idle) => until_idle(idle, carried).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = aged => {
            let why = format!("it lasted for {longest:?} (maxConnectionDuration of the DestinationRule)", longest = longest.unwrap_or_default());
            Failure::new(Reason::TooOld, why)
        }
        () = rested => {
            let why = format!("nothing was carried for {idle:?} (idleTimeout of the DestinationRule)", idle = idle.unwrap_or_default());
            Failure::new(Reason::TooIdle, why)
        }
    }
}

async fn until_idle(idle: Duration, carried: impl Fn() -> u64) {
    let look = (idle / LOOKS).max(SHORTEST_LOOK);
    let (mut seen, mut since) = (carried(), Instant::now());
    loop {
        let end = since + idle;
        sleep_until(end.min(Instant::now() + look)).await;
        let now = carried();
        if now != seen {
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() >= idle {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn limits(longest: Option<u64>, idle: Option<u64>) -> Limits {
        let seconds = |it: Option<u64>| it.map(Duration::from_secs);
        Limits { max_duration: seconds(longest), idle_timeout: seconds(idle), ..Limits::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_by_its_age_or_its_silence() {
        for (longest, idle, reason, after) in [
            (Some(10), None, Reason::TooOld, 10),
            (None, Some(8), Reason::TooIdle, 8),
            (Some(10), Some(8), Reason::TooIdle, 8),
            (Some(7), Some(8), Reason::TooOld, 7),
        ] {
            let begun = Instant::now();
            let failure = until_over(Some(&limits(longest, idle)), || 0).await;
            assert_eq!((failure.reason, begun.elapsed().as_secs()), (reason, after));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_carries_something_now_and_then_goes_on() {
        let bytes = AtomicU64::new(0);
        let begun = Instant::now();
        let limits = limits(None, Some(8));
        let over = until_over(Some(&limits), || bytes.load(Ordering::Relaxed));
        let talk = async {
            for _ in 0..5 {
                sleep(Duration::from_secs(6)).await;
                bytes.fetch_add(1, Ordering::Relaxed);
            }
        };
        let (failure, ()) = tokio::join!(over, talk);
        assert_eq!(failure.reason, Reason::TooIdle);
        let lasted = begun.elapsed().as_secs();
        assert!(
            (38..=39).contains(&lasted),
            "{lasted}: eight seconds after the last byte, and a part"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_limits_it_goes_on() {
        let limits = Limits::default();
        let over =
            tokio::time::timeout(Duration::from_secs(1 << 20), until_over(Some(&limits), || 0));
        assert!(over.await.is_err());
    }
}
