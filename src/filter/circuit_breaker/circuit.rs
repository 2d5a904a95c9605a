//! The state machine of one circuit: closed, open for a while, and half open while some requests try it. Atomics only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::Str;

/// A circuit that was open, and that nobody has tried for so long since, may be forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// When a circuit opens, and how it closes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Opening {
    /// It opens when so many of a hundred requests of a window have failed.
    pub percentage: u32,
    /// Fewer requests in a window do not open it.
    pub min_requests: u32,
    #[serde(serialize_with = "crate::filter::duration")]
    pub window: Duration,
    #[serde(serialize_with = "crate::filter::duration")]
    pub open_for: Duration,
    /// After that so many requests try it, and it closes when all have succeeded.
    pub trials: u32,
}

#[derive(Debug)]
pub(super) struct Circuit {
    /// For the log.
    name: Str,
    /// Times below are nanoseconds after it.
    epoch: Instant,
    in_progress: AtomicU32,
    /// Until when it is open; after that it is half open. 0: closed.
    open_until: AtomicU64,
    /// Since it is half open: trials that began and were not given up, of those that may begin together; when the first of these
    /// began; and all that succeeded.
    trials: AtomicU32,
    tried: AtomicU64,
    succeeded: AtomicU32,
    /// The window: its begin, and what ended in it.
    window: AtomicU64,
    ended: AtomicU32,
    failed: AtomicU32,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    /// For so long.
    Open(Duration),
}

/// A request that was let in; counted until dropped.
#[derive(Debug)]
pub struct Call {
    circuit: Arc<Circuit>,
    opening: Option<Opening>,
    /// It tries whether the circuit that opened until then may close; 0: it does not.
    trial: u64,
    /// Somebody has said how it ended.
    is_told: AtomicU32,
}

impl Circuit {
    pub(super) fn new(name: Str) -> Self {
        Self {
            name,
            epoch: Instant::now(),
            in_progress: AtomicU32::new(0),
            open_until: AtomicU64::new(0),
            trials: AtomicU32::new(0),
            tried: AtomicU64::new(0),
            succeeded: AtomicU32::new(0),
            window: AtomicU64::new(0),
            ended: AtomicU32::new(0),
            failed: AtomicU32::new(0),
        }
    }

    /// Lets a request in, or says why not; with `always` both.
    pub(super) fn enter(
        self: Arc<Self>,
        most: Option<u32>,
        opening: Option<Opening>,
        always: bool,
    ) -> (Option<Call>, Option<Refused>) {
        let (trial, mut refused) = match opening.map(|opening| self.passes(opening)) {
            None => (0, None),
            Some(Ok(trial)) => (trial, None),
            Some(Err(left)) => (0, Some(Refused::Open(left))),
        };
        if refused.is_none() && !self.count(most.unwrap_or(u32::MAX)) {
            self.give_up(trial);
            refused = Some(Refused::Full);
        }
        if refused.is_some() {
            if !always {
                return (None, refused);
            }
            self.in_progress.fetch_add(1, Ordering::Relaxed);
        }
        let trial = if refused.is_some() { 0 } else { trial };
        (Some(Call { circuit: self, opening, trial, is_told: AtomicU32::new(0) }), refused)
    }

    /// Nothing is in progress, and nothing is held against it; not for ever, because what is gone is never tried again.
    pub(super) fn rests(&self) -> bool {
        let open = self.open_until.load(Ordering::Relaxed);
        let is_over = || self.now().saturating_sub(open) >= nanos(FORGOTTEN);
        self.in_progress.load(Ordering::Relaxed) == 0 && (open == 0 || is_over())
    }

    fn count(&self, most: u32) -> bool {
        let more = |now: u32| (now < most).then_some(now + 1);
        self.in_progress.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Whether it is closed (0), or this request is a trial; else how long it stays open.
    fn passes(&self, opening: Opening) -> Result<u64, Duration> {
        let until = self.open_until.load(Ordering::Relaxed);
        if until == 0 {
            return Ok(0);
        }
        let now = self.now();
        let left = until.saturating_sub(now);
        if left > 0 {
            return Err(Duration::from_nanos(left));
        }
        match self.begins_trial(opening, now) {
            true => Ok(until),
            false => Err(Duration::ZERO),
        }
    }

    /// Whether one more may try it: a few at a time. Those that take longer than it was open, perhaps because their clients hold
    /// them, are not waited for any further: else they would keep it closed to everybody for as long as they like.
    fn begins_trial(&self, opening: Opening, now: u64) -> bool {
        let more = |trials: u32| (trials < opening.trials).then_some(trials + 1);
        let begun = self.trials.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        if begun.is_ok() {
            if begun == Ok(0) {
                self.tried.store(now, Ordering::Relaxed);
            }
            return true;
        }
        let since = self.tried.load(Ordering::Relaxed);
        let is_over = now.saturating_sub(since) >= nanos(opening.open_for);
        let renewed = is_over
            && self
                .tried
                .compare_exchange(since, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if renewed {
            self.trials.store(1, Ordering::Relaxed);
        }
        renewed
    }

    /// A trial that tells nothing; another one may take its place.
    fn give_up(&self, trial: u64) {
        if trial != 0 && self.open_until.load(Ordering::Relaxed) == trial {
            let less = |trials: u32| trials.checked_sub(1);
            _ = self.trials.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    fn tried(&self, opening: Opening, trial: u64, has_failed: bool) {
        if self.open_until.load(Ordering::Relaxed) != trial {
            // Another trial has decided.
            return;
        }
        if has_failed {
            self.open(opening, trial);
        } else if self.succeeded.fetch_add(1, Ordering::Relaxed) + 1 >= opening.trials {
            self.change(trial, 0);
        }
    }

    fn open(&self, opening: Opening, from: u64) {
        let until = self.now().saturating_add(nanos(opening.open_for)).max(1);
        if self.change(from, until) {
            let seconds = opening.open_for.as_secs_f32();
            tracing::warn!(
                destination = %self.name, seconds,
                "a circuit breaker opens, since too many requests failed; check the application's log"
            );
        }
    }

    fn change(&self, from: u64, to: u64) -> bool {
        let changed =
            self.open_until.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
        if changed.is_ok() {
            for count in [&self.trials, &self.succeeded, &self.ended, &self.failed] {
                count.store(0, Ordering::Relaxed);
            }
            self.window.store(self.now(), Ordering::Relaxed);
        }
        changed.is_ok()
    }

    /// Counts a request of the closed circuit.
    fn counted(&self, opening: Opening, has_failed: bool) {
        if self.open_until.load(Ordering::Relaxed) != 0 {
            return;
        }
        let (now, begin) = (self.now(), self.window.load(Ordering::Relaxed));
        let is_over = now.saturating_sub(begin) >= nanos(opening.window);
        let swapped =
            || self.window.compare_exchange(begin, now, Ordering::Relaxed, Ordering::Relaxed);
        if is_over && swapped().is_ok() {
            self.ended.store(0, Ordering::Relaxed);
            self.failed.store(0, Ordering::Relaxed);
        }
        let ended = self.ended.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let failed = match has_failed {
            true => self.failed.fetch_add(1, Ordering::Relaxed).saturating_add(1),
            false => return,
        };
        let share = u64::from(failed) * 100 >= u64::from(opening.percentage) * u64::from(ended);
        if share && ended >= opening.min_requests {
            self.open(opening, 0);
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX / 4)
    }
}

impl Call {
    /// How the request ended; `None`: in a way that says nothing about the service. The first word counts.
    pub fn ended(&self, has_failed: Option<bool>) {
        let (Some(opening), 0) = (self.opening, self.is_told.swap(1, Ordering::Relaxed)) else {
            return;
        };
        match (has_failed, self.trial) {
            (Some(has_failed), 0) => self.circuit.counted(opening, has_failed),
            (Some(has_failed), trial) => self.circuit.tried(opening, trial, has_failed),
            (None, trial) => self.circuit.give_up(trial),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.ended(None);
        self.circuit.in_progress.fetch_sub(1, Ordering::Relaxed);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BY: Opening = Opening {
        percentage: 50,
        min_requests: 4,
        window: Duration::from_secs(10),
        open_for: Duration::from_secs(5),
        trials: 2,
    };

    fn enter(circuit: &Arc<Circuit>) -> Result<Call, Refused> {
        match circuit.clone().enter(Some(100), Some(BY), false) {
            (Some(call), None) => Ok(call),
            (_, refused) => Err(refused.unwrap()),
        }
    }

    fn send(circuit: &Arc<Circuit>, outcomes: &[bool]) {
        for failed in outcomes {
            enter(circuit).unwrap().ended(Some(*failed));
        }
    }

    async fn opened() -> Arc<Circuit> {
        let circuit = Arc::new(Circuit::new(Str::default()));
        send(&circuit, &[true; 4]);
        assert_eq!(enter(&circuit).unwrap_err(), Refused::Open(BY.open_for));
        tokio::time::advance(BY.open_for).await;
        circuit
    }

    #[tokio::test(start_paused = true)]
    async fn opens_at_the_share_of_failures_of_a_window() {
        for (outcomes, opens) in [
            (&[true, true, true][..], false),
            (&[true, true, true, true], true),
            (&[false, false, true, true], true),
            (&[false, false, false, true, true], false),
            (&[true, true, false, false], false),
        ] {
            let circuit = Arc::new(Circuit::new(Str::default()));
            send(&circuit, outcomes);
            assert_eq!(enter(&circuit).is_err(), opens, "{outcomes:?}");
        }
        // What failed in one window does not count in the next.
        let circuit = Arc::new(Circuit::new(Str::default()));
        send(&circuit, &[true; 3]);
        tokio::time::advance(BY.window).await;
        send(&circuit, &[true; 3]);
        assert!(enter(&circuit).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn some_try_it_and_it_closes_when_all_succeed() {
        let circuit = opened().await;
        let trials = [enter(&circuit).unwrap(), enter(&circuit).unwrap()];
        assert_eq!(enter(&circuit).unwrap_err(), Refused::Open(Duration::ZERO));
        trials[0].ended(Some(false));
        assert!(enter(&circuit).is_err(), "one of two");
        trials[1].ended(Some(false));
        send(&circuit, &[false, true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_fails_opens_it_again() {
        let circuit = opened().await;
        let trials = [enter(&circuit).unwrap(), enter(&circuit).unwrap()];
        trials[0].ended(Some(true));
        assert_eq!(enter(&circuit).unwrap_err(), Refused::Open(BY.open_for));
        // One of before has no say any more.
        trials[1].ended(Some(false));
        assert_eq!(enter(&circuit).unwrap_err(), Refused::Open(BY.open_for));
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_its_client_gives_up_makes_room_for_another() {
        let circuit = opened().await;
        for _ in 0..10 {
            let trials = [enter(&circuit).unwrap(), enter(&circuit).unwrap()];
            assert!(enter(&circuit).is_err());
            drop(trials);
        }
    }

    /// As a client does whose requests come to no end.
    #[tokio::test(start_paused = true)]
    async fn trials_that_are_held_do_not_keep_it_closed_to_others() {
        let circuit = opened().await;
        let held = [enter(&circuit).unwrap(), enter(&circuit).unwrap()];
        tokio::time::advance(BY.open_for - Duration::from_millis(1)).await;
        assert_eq!(enter(&circuit).unwrap_err(), Refused::Open(Duration::ZERO));
        tokio::time::advance(Duration::from_millis(1)).await;
        // Again so many and no more, however often the first ones are given up.
        let trials = [enter(&circuit).unwrap(), enter(&circuit).unwrap()];
        assert!(enter(&circuit).is_err());
        trials.iter().for_each(|trial| trial.ended(Some(false)));
        assert_eq!(circuit.open_until.load(Ordering::Relaxed), 0, "they have decided");
        held.iter().for_each(|held| held.ended(Some(true)));
        assert!(enter(&circuit).is_ok(), "and the others have no say any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_circuit_of_what_is_gone_may_be_forgotten() {
        let circuit = opened().await;
        assert!(!circuit.rests(), "it is to be tried");
        let call = enter(&circuit).unwrap();
        tokio::time::advance(2 * FORGOTTEN).await;
        assert!(!circuit.rests(), "it is being tried");
        drop(call);
        assert!(circuit.rests());
    }

    proptest! {
        /// However requests come and end, and whenever.
        #[test]
        fn places_return_and_no_state_lasts_for_ever(
            steps in proptest::collection::vec((0u8..5, 0usize..20, 0u64..8), 1..200),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async move {
                let circuit = Arc::new(Circuit::new(Str::default()));
                let mut calls: Vec<Call> = Vec::new();
                for (step, which, seconds) in steps {
                    match step {
                        0 | 1 => calls.extend(enter(&circuit)),
                        2 if which < calls.len() => calls.swap_remove(which).ended(Some(true)),
                        3 if which < calls.len() => calls.swap_remove(which).ended(Some(false)),
                        4 if which < calls.len() => drop(calls.swap_remove(which)),
                        _ => tokio::time::advance(Duration::from_secs(seconds)).await,
                    }
                    let counted = circuit.in_progress.load(Ordering::Relaxed) as usize;
                    prop_assert_eq!(counted, calls.len());
                }
                calls.clear();
                // It closes again when all goes well.
                tokio::time::advance(BY.open_for).await;
                for _ in 0..2 * BY.trials {
                    let call = enter(&circuit);
                    prop_assert!(call.is_ok(), "{:?}", circuit);
                    call.unwrap().ended(Some(false));
                }
                prop_assert_eq!(circuit.open_until.load(Ordering::Relaxed), 0);
                Ok(())
            })?;
        }
    }
}
