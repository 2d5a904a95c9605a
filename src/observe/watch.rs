//! The flows that one query asks for, as lines: those that are remembered, then new ones.

use std::collections::HashSet;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;
use std::vec::IntoIter;

use bytes::Bytes;

use super::follow::{Following, TooMany};
use super::line::{Event, Line};
use super::query::Query;
use super::{Observe, Seen};

/// About how much is written at once.
const BATCH: usize = 32 * 1024;

/// Lines, one after the other, for as long as there are any.
pub struct Watch {
    observe: Arc<Observe>,
    remembered: IntoIter<Arc<Seen>>,
    /// Numbers of flows that are remembered and were followed, too.
    shown: HashSet<u64>,
    following: Option<Following>,
}

impl Watch {
    pub(super) fn new(observe: Arc<Observe>, query: Query) -> Result<Self, TooMany> {
        let Query { filter, since, last, follow } = query;
        // First, so that no flow is missed between the two.
        let following = follow.then(|| observe.observers.add(filter.clone())).transpose()?;
        observe.decide();
        let mut all = observe.ring.as_ref().map(|ring| ring.all()).unwrap_or_default();
        let oldest = since.and_then(|since| SystemTime::now().checked_sub(since));
        all.retain(|seen| {
            filter.wants(&seen.flow) && oldest.is_none_or(|oldest| seen.flow.at >= oldest)
        });
        let remembered = all.split_off(all.len().saturating_sub(last.unwrap_or(usize::MAX)));
        let shown = match follow {
            true => remembered.iter().map(|seen| seen.number).collect(),
            false => HashSet::new(),
        };
        Ok(Self { observe, remembered: remembered.into_iter(), shown, following })
    }

    /// New flows follow: it ends only when the observer leaves.
    pub fn follows(&self) -> bool {
        self.following.is_some()
    }

    /// The next lines; `None` at the end.
    pub fn poll_lines(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut lines = Vec::new();
        while lines.len() < BATCH {
            if let Some(lost) = self.following.as_mut().and_then(Following::lost) {
                put(&mut lines, &Event::Lost { lost });
            }
            match self.poll_next(cx) {
                Poll::Ready(Some(seen)) => {
                    let line = Line::new(&seen.flow, self.observe.node.clone());
                    put(&mut lines, &Event::Flow(Box::new(line)));
                }
                Poll::Pending if lines.is_empty() => return Poll::Pending,
                Poll::Ready(None) if lines.is_empty() => return Poll::Ready(None),
                Poll::Pending | Poll::Ready(None) => break,
            }
        }
        Poll::Ready(Some(lines.into()))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arc<Seen>>> {
        if let Some(seen) = self.remembered.next() {
            return Poll::Ready(Some(seen));
        }
        let Some(following) = &mut self.following else { return Poll::Ready(None) };
        loop {
            let next = ready!(following.queue.poll_recv(cx));
            match next {
                Some(seen) if self.shown.remove(&seen.number) => {}
                next => return Poll::Ready(next),
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(following) = self.following.take() {
            self.observe.observers.remove(&following);
            self.observe.decide();
        }
    }
}

fn put(lines: &mut Vec<u8>, event: &Event) {
    // Into memory, and of types that JSON has, nothing fails.
    _ = serde_json::to_writer(&mut *lines, event);
    lines.push(b'\n');
}
