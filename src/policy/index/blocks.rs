//! Blocks of addresses that an address may be in.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::ops::{BitAnd, BitXor, ControlFlow, Not};

use super::{See, Span};
use crate::base::{HintKey, Hints};
use crate::model::Cidr;

/// Blocks of at most so many sizes are looked up by size, which takes a probe for each.
const FEW_SIZES: usize = 4;

/// Each family by itself, as [`super::super::rule`] compares them.
#[derive(Debug, Default)]
pub(in crate::policy) struct Blocks {
    v4: Family<u32>,
    v6: Family<u128>,
}

#[derive(Debug)]
struct Family<A> {
    /// Empty if they are looked up by size.
    nested: Nested<A>,
    /// The mask of each size.
    masks: Vec<A>,
    by_size: Hints<Span>,
}

/// Sorted by their first address, the wider ones first; two of them are one in the other, or apart. So those that hold an address
/// are the last that begins before it, or stand above that one.
#[derive(Debug)]
struct Nested<A>(Vec<Block<A>>);

#[derive(Debug)]
struct Block<A> {
    first: A,
    last: A,
    span: Span,
    wider: Option<usize>,
}

/// An address as a number.
trait Number: Copy + Ord + BitAnd<Output = Self> + BitXor<Output = Self> + Not<Output = Self> {
    /// Of a block of this size that begins here.
    fn key(self, mask: Self) -> HintKey<'static>;
}

impl Number for u32 {
    fn key(self, mask: Self) -> HintKey<'static> {
        HintKey::Number(u64::from(self) << u32::BITS | u64::from(mask))
    }
}

impl Number for u128 {
    fn key(self, mask: Self) -> HintKey<'static> {
        HintKey::Numbers(self, mask)
    }
}

impl<A> Default for Family<A> {
    fn default() -> Self {
        Self { nested: Nested(Vec::new()), masks: Vec::new(), by_size: Hints::default() }
    }
}

/// Bits of an IPv6 address before the IPv4 address that it maps.
const MAPPED_BITS: u8 = 96;

impl Blocks {
    /// [`Blocks::finish`] follows the last one.
    pub(super) fn add(&mut self, block: Cidr, span: Span) {
        let (first, last) = (block.network(), block.broadcast());
        let mapped = |address: IpAddr| match address.to_canonical() {
            IpAddr::V4(address) => Some(u32::from(address)),
            IpAddr::V6(_) => None,
        };
        if (block.addr().is_ipv4() || block.prefix_len() >= MAPPED_BITS)
            && let (Some(first), Some(last)) = (mapped(first), mapped(last))
        {
            return self.v4.nested.add(first, last, span);
        }
        if let (IpAddr::V6(first), IpAddr::V6(last)) = (first, last) {
            self.v6.nested.add(first.into(), last.into(), span);
        }
    }

    pub(super) fn finish(&mut self) {
        self.v4.finish();
        self.v6.finish();
    }

    /// All that hold the address.
    pub(in crate::policy) fn find(&self, address: IpAddr, see: See<'_>) -> ControlFlow<()> {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.find(address.into(), see),
            IpAddr::V6(address) => self.v6.find(address.into(), see),
        }
    }
}

impl<A: Number> Family<A> {
    fn finish(&mut self) {
        let mut masks: Vec<A> = self.nested.0.iter().map(Block::mask).collect();
        masks.sort_unstable();
        masks.dedup();
        if masks.len() > FEW_SIZES {
            return self.nested.finish();
        }
        self.masks = masks;
        for block in std::mem::take(&mut self.nested.0) {
            self.by_size.file(block.first.key(block.mask()), block.span);
        }
    }

    fn find(&self, address: A, see: See<'_>) -> ControlFlow<()> {
        for mask in &self.masks {
            self.by_size.find((address & *mask).key(*mask), &mut *see)?;
        }
        if self.nested.0.is_empty() {
            return ControlFlow::Continue(());
        }
        self.nested.find(address, see)
    }
}

impl<A: Number> Block<A> {
    fn mask(&self) -> A {
        !(self.first ^ self.last)
    }
}

impl<A: Copy + Ord> Nested<A> {
    fn add(&mut self, first: A, last: A, span: Span) {
        self.0.push(Block { first, last, span, wider: None });
    }

    fn finish(&mut self) {
        self.0.sort_by_key(|block| (block.first, Reverse(block.last)));
        for at in 1..self.0.len() {
            let first = self.0[at].first;
            let mut wider = Some(at - 1);
            while let Some(block) = wider.map(|at| &self.0[at])
                && block.last < first
            {
                wider = block.wider;
            }
            self.0[at].wider = wider;
        }
    }

    fn find(&self, address: A, see: See<'_>) -> ControlFlow<()> {
        // `partition_point` takes several times as many instructions where it is not inlined.
        let (mut after, mut left) = (0, self.0.len());
        while left > 0 {
            let half = left / 2;
            if self.0[after + half].first <= address {
                after += half + 1;
                left -= half + 1;
            } else {
                left = half;
            }
        }
        let mut next = after.checked_sub(1);
        while let Some(block) = next.and_then(|at| self.0.get(at)) {
            if address <= block.last {
                see(block.span)?;
            }
            next = block.wider;
        }
        ControlFlow::Continue(())
    }
}
