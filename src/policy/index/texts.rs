//! Texts that a value may be, begin with or end with.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use super::needs::Fits;
use super::{See, Span};
use crate::base::Str;

/// Keys are literals of policies, and the seed is the process's: clients cannot make probes collide.
pub(super) type Fast = foldhash::fast::RandomState;

/// Ends of texts of at most so many lengths are looked up by length, which takes a probe for each.
const FEW_LENGTHS: usize = 4;

#[derive(Debug, Default)]
pub(in crate::policy) struct Texts {
    whole: HashMap<Str, Span, Fast>,
    starts: Starts,
    /// Backwards, but for those by length.
    ends: Starts,
}

type OfLength = HashMap<Vec<u8>, Span, Fast>;

/// What texts begin with.
#[derive(Debug, Default)]
struct Starts {
    /// Sorted, each with the next shorter one that it begins with: those that a text begins with are one of them and all that
    /// stand above it. Empty if they are looked up by length.
    sorted: Vec<Start>,
    by_length: Vec<(usize, OfLength)>,
}

#[derive(Debug)]
struct Start {
    text: Vec<u8>,
    span: Span,
    shorter: Option<usize>,
}

impl Texts {
    /// In the order of the texts; [`Texts::finish`] follows the last one.
    pub(super) fn add(&mut self, fits: &Fits, span: Span) {
        match fits {
            Fits::Whole(text) => _ = self.whole.insert(text.clone(), span),
            Fits::Starts(text) => self.starts.add(text, span),
            Fits::Ends(text) => self.ends.add(text, span),
            Fits::Account(_) | Fits::In(_) | Fits::Port(_) => {}
        }
    }

    pub(super) fn finish(&mut self) {
        self.starts.finish(|_| {});
        self.ends.finish(<[u8]>::reverse);
    }

    /// All that fit the text.
    pub(in crate::policy) fn find(&self, text: &str, see: See<'_>) -> ControlFlow<()> {
        if !self.whole.is_empty()
            && let Some(span) = self.whole.get(text)
        {
            see(*span)?;
        }
        let text = text.as_bytes();
        for (length, starts) in &self.starts.by_length {
            if let Some(span) = text.get(..*length).and_then(|start| starts.get(start)) {
                see(*span)?;
            }
        }
        for (length, ends) in &self.ends.by_length {
            let end = text.len().checked_sub(*length).and_then(|at| text.get(at..));
            if let Some(span) = end.and_then(|end| ends.get(end)) {
                see(*span)?;
            }
        }
        if !self.starts.sorted.is_empty() {
            self.starts.find(text, see)?;
        }
        if !self.ends.sorted.is_empty() {
            let backwards: Vec<u8> = text.iter().rev().copied().collect();
            self.ends.find(&backwards, see)?;
        }
        ControlFlow::Continue(())
    }
}

impl Starts {
    fn add(&mut self, text: &[u8], span: Span) {
        let mut shorter = self.sorted.len().checked_sub(1);
        while let Some(at) = shorter
            && !text.starts_with(&self.sorted[at].text)
        {
            shorter = self.sorted[at].shorter;
        }
        self.sorted.push(Start { text: text.into(), span, shorter });
    }

    /// `turn` makes forward texts of those that stand backwards.
    fn finish(&mut self, turn: fn(&mut [u8])) {
        let lengths: BTreeSet<usize> = self.sorted.iter().map(|start| start.text.len()).collect();
        if lengths.len() > FEW_LENGTHS {
            return;
        }
        let mut all: Vec<_> = lengths.into_iter().map(|it| (it, OfLength::default())).collect();
        for Start { mut text, span, .. } in std::mem::take(&mut self.sorted) {
            turn(&mut text);
            if let Some((_, starts)) = all.iter_mut().find(|(length, _)| *length == text.len()) {
                starts.insert(text, span);
            }
        }
        self.by_length = all;
    }

    fn find(&self, text: &[u8], see: See<'_>) -> ControlFlow<()> {
        let after = self.sorted.partition_point(|start| start.text.as_slice() <= text);
        let mut next = after.checked_sub(1);
        while let Some(start) = next.and_then(|at| self.sorted.get(at)) {
            if text.starts_with(&start.text) {
                see(start.span)?;
            }
            next = start.shorter;
        }
        ControlFlow::Continue(())
    }
}
