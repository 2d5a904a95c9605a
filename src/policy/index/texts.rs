//! Texts that a value may be, begin with or end with.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::needs::Fits;
use super::{See, Span};
use crate::base::{HintKey, Hints};

/// Ends of texts of at most so many lengths are looked up by length, which takes a probe for each.
const FEW_LENGTHS: usize = 4;

#[derive(Debug, Default)]
pub(in crate::policy) struct Texts {
    whole: Hints<Span>,
    starts: Starts,
    /// Backwards, but for those by length.
    ends: Starts,
}

/// Ends of one length.
#[derive(Debug, Default)]
struct OfLength {
    length: usize,
    texts: Hints<Span>,
    /// The bytes at which texts are cut, such as the slash of `/items/*`: most texts of another length have another one there, and
    /// need not be hashed.
    cuts: Cuts,
}

/// A set of bytes.
#[derive(Debug, Default)]
struct Cuts([u64; 4]);

/// What texts begin with.
#[derive(Debug, Default)]
struct Starts {
    /// Sorted, each with the next shorter one that it begins with: those that a text begins with are one of them and all that
    /// stand above it. Empty if they are looked up by length.
    sorted: Vec<Start>,
    by_length: Vec<OfLength>,
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
            Fits::Whole(text) => self.whole.file(HintKey::Bytes(text.as_bytes()), span),
            Fits::Starts(text) => self.starts.add(text, span),
            Fits::Ends(text) => self.ends.add(text, span),
            Fits::Account(_) | Fits::In(_) | Fits::Port(_) => {}
        }
    }

    pub(super) fn finish(&mut self) {
        self.starts.finish(|_| {}, <[u8]>::last);
        self.ends.finish(<[u8]>::reverse, <[u8]>::first);
    }

    /// All that fit the text.
    pub(in crate::policy) fn find(&self, text: &str, see: See<'_>) -> ControlFlow<()> {
        let text = text.as_bytes();
        self.whole.find(HintKey::Bytes(text), &mut *see)?;
        for starts in &self.starts.by_length {
            if let Some(start) = text.get(..starts.length) {
                starts.find(start, start.last(), see)?;
            }
        }
        for ends in &self.ends.by_length {
            let end = text.len().checked_sub(ends.length).and_then(|at| text.get(at..));
            if let Some(end) = end {
                ends.find(end, end.first(), see)?;
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

impl OfLength {
    /// `cut`: the byte at which `end` is cut off.
    fn find(&self, end: &[u8], cut: Option<&u8>, see: See<'_>) -> ControlFlow<()> {
        match cut {
            Some(cut) if self.cuts.has(*cut) => self.texts.find(HintKey::Bytes(end), see),
            _ => ControlFlow::Continue(()),
        }
    }
}

impl Cuts {
    fn extend(&mut self, byte: Option<&u8>) {
        if let Some(byte) = byte {
            self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
        }
    }

    fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
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

    /// `turn` makes forward texts of those that stand backwards; `cut` is the byte where they are open.
    fn finish(&mut self, turn: fn(&mut [u8]), cut: fn(&[u8]) -> Option<&u8>) {
        let lengths: BTreeSet<usize> = self.sorted.iter().map(|start| start.text.len()).collect();
        if lengths.len() > FEW_LENGTHS {
            return;
        }
        let of = |length| OfLength { length, ..OfLength::default() };
        let mut all: Vec<_> = lengths.into_iter().map(of).collect();
        for Start { mut text, span, .. } in std::mem::take(&mut self.sorted) {
            turn(&mut text);
            if let Some(of_length) = all.iter_mut().find(|it| it.length == text.len()) {
                of_length.cuts.extend(cut(&text));
                of_length.texts.file(HintKey::Bytes(&text), span);
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
