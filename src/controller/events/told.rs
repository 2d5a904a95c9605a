//! Which problems to report now, so that a lasting one stays visible and a flapping one does not flood.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Trouble;

/// The interval of reminders of a lasting problem: the API server drops Events after an hour.
const REMIND: Duration = Duration::from_secs(1800);
/// The shortest interval between reports of a problem that comes back.
const RETURN: Duration = Duration::from_secs(60);
/// How many are reported at once; the others wait for the next round.
const AT_ONCE: usize = 20;

/// When each problem was last reported.
#[derive(Default)]
pub struct Told(HashMap<Trouble, Last>);

#[derive(Clone, Copy)]
struct Last {
    at: Instant,
    lasts: bool,
}

impl Told {
    /// Of all current problems, the ones to report now.
    pub fn due(
        &mut self,
        troubles: impl IntoIterator<Item = Trouble>,
        now: Instant,
    ) -> Vec<Trouble> {
        let mut due = Vec::new();
        let mut before = std::mem::take(&mut self.0);
        for trouble in troubles {
            let last = before.remove(&trouble);
            let wait = match &last {
                Some(last) if last.lasts => REMIND,
                _ => RETURN,
            };
            let is_due = last.as_ref().is_none_or(|last| now >= last.at + wait);
            let at = match last {
                _ if is_due && due.len() < AT_ONCE => {
                    due.push(trouble.clone());
                    now
                }
                Some(last) => last.at,
                None => continue,
            };
            // A problem that could not be reported waits like one that comes back.
            let lasts = at == now || last.is_none_or(|last| last.lasts);
            self.0.insert(trouble, Last { at, lasts });
        }
        // A resolved problem may come back soon.
        let over = before.into_iter().filter(|(_, last)| now < last.at + RETURN);
        self.0.extend(over.map(|(trouble, last)| (trouble, Last { lasts: false, ..last })));
        due
    }

    /// The report failed: it is due again as if the problem had come back.
    pub fn failed(&mut self, trouble: &Trouble) {
        if let Some(last) = self.0.get_mut(trouble) {
            last.lasts = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Regarding;
    use super::*;
    use crate::base::ObjectKey;

    fn troubles(count: usize) -> Vec<Trouble> {
        let trouble = |index: usize| Trouble {
            regarding: Regarding {
                api_version: "v1".into(),
                kind: "Service".into(),
                key: ObjectKey::new("bookinfo", index.to_string()),
                uid: String::new(),
            },
            reason: "Invalid".into(),
            note: String::new(),
        };
        (0..count).map(trouble).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_trouble_that_lasts_is_told_twice_an_hour() {
        let mut told = Told::default();
        let mut count = 0;
        for _ in 0..120 {
            count += told.due(troubles(1), Instant::now()).len();
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        assert_eq!(count, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trouble_that_comes_and_goes_is_told_once_a_minute() {
        let mut told = Told::default();
        let mut count = 0;
        for second in 0..120 {
            count += told.due(troubles(second % 2), Instant::now()).len();
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(count, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn many_are_told_in_portions_and_failures_again() {
        let mut told = Told::default();
        let portions: Vec<usize> =
            (0..4).map(|_| told.due(troubles(45), Instant::now()).len()).collect();
        assert_eq!(portions, [20, 20, 5, 0]);
        told.failed(&troubles(1)[0]);
        tokio::time::advance(RETURN / 2).await;
        assert_eq!(told.due(troubles(45), Instant::now()), []);
        tokio::time::advance(RETURN / 2).await;
        assert_eq!(told.due(troubles(45), Instant::now()), troubles(1));
        tokio::time::advance(RETURN).await;
        assert_eq!(told.due(troubles(45), Instant::now()), []);
    }
}
