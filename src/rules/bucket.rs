//! Matches that stand in one place of the index, such as all of one path: the few that are left, or those of one value of a
//! header, a query parameter or the method, which most of them demand.

use std::collections::HashMap;
use std::ops::ControlFlow;

use http::{HeaderName, Method};

use super::matching::{self, Head, Known};
use crate::base::{FastMap, HintKey, Hints, Str};
use crate::filter::sent_text;
use crate::model::{HttpMatch, TextMatch};

/// More matches than that are split.
const FEW: usize = 4;

/// Matches by their rank.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// In the order of precedence.
    listed: Vec<u32>,
    split: Option<Box<Split>>,
}

/// Matches by a value that they demand.
#[derive(Debug)]
struct Split {
    by: By,
    /// Places of buckets, by the value.
    places: Hints<u32>,
    buckets: Vec<Bucket>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum By {
    Method,
    Header(HeaderName),
    Query(Str),
}

/// The search for the match that takes precedence among those that a request fulfils.
pub(super) struct Search<'a, F> {
    pub(super) head: &'a Head<'a>,
    /// Whether the request fulfils the match of a rank.
    pub(super) fulfils: F,
    /// The best so far.
    pub(super) best: u32,
    /// The header that was looked up last, and its text.
    pub(super) known: Known<'a>,
}

impl<'a, F: Fn(u32, &Known<'a>) -> bool> Search<'a, F> {
    pub(super) fn new(head: &'a Head<'a>, fulfils: F) -> Self {
        Self { head, fulfils, best: u32::MAX, known: None }
    }
}

impl Bucket {
    /// Of matches in the order of precedence.
    pub(super) fn of(mut matches: Vec<(u32, &HttpMatch)>) -> Self {
        let split = splitter(&matches).map(|by| {
            let mut of: FastMap<Str, Vec<(u32, &HttpMatch)>> = FastMap::default();
            matches.retain(|one| match by.demanded(one.1) {
                Some(value) => {
                    of.entry(value).or_default().push(*one);
                    false
                }
                None => true,
            });
            Box::new(Split::of(by, of))
        });
        let listed = matches.into_iter().map(|(rank, _)| rank).collect();
        Self { listed, split }
    }

    pub(super) fn search<'a, F>(&'a self, search: &mut Search<'a, F>)
    where
        F: Fn(u32, &Known<'a>) -> bool,
    {
        for rank in &self.listed {
            if *rank >= search.best {
                break;
            }
            if (search.fulfils)(*rank, &search.known) {
                search.best = *rank;
                break;
            }
        }
        if let Some(split) = &self.split {
            split.search(search);
        }
    }
}

impl Split {
    fn of(by: By, filed: FastMap<Str, Vec<(u32, &HttpMatch)>>) -> Self {
        let mut split = Self { by, places: Hints::default(), buckets: Vec::new() };
        for ((value, matches), place) in filed.into_iter().zip(0u32..) {
            split.places.file(HintKey::Bytes(value.as_bytes()), place);
            split.buckets.push(Bucket::of(matches));
        }
        split
    }

    fn search<'a, F>(&'a self, search: &mut Search<'a, F>)
    where
        F: Fn(u32, &Known<'a>) -> bool,
    {
        let head = search.head;
        match &self.by {
            By::Method => self.search_of(head.method.as_str(), search),
            By::Header(name) => {
                // Matches compare it once more.
                let Some(text) = sent_text(head.headers, name) else { return };
                let (search_of, known) = (text.clone(), Some((name, text)));
                search.known = known;
                self.search_of(&search_of, search);
            }
            By::Query(name) => {
                if let Some(value) = matching::parameter(name, head.query) {
                    self.search_of(&value, search);
                }
            }
        }
    }

    fn search_of<'a, F>(&'a self, value: &str, search: &mut Search<'a, F>)
    where
        F: Fn(u32, &Known<'a>) -> bool,
    {
        let _ = self.places.find(HintKey::Bytes(value.as_bytes()), |place| {
            if let Some(bucket) = self.buckets.get(place as usize) {
                bucket.search(search);
            }
            ControlFlow::Continue(())
        });
    }
}

impl By {
    /// What a match cannot hold without.
    fn demanded(&self, matched: &HttpMatch) -> Option<Str> {
        demands(matched).find(|(by, _)| by == self).map(|(_, value)| value)
    }
}

fn demands(matched: &HttpMatch) -> impl Iterator<Item = (By, Str)> {
    let method = matched.method.iter().map(|it: &Method| (By::Method, it.as_str().into()));
    let exact = |text: &TextMatch| match text {
        TextMatch::Exact(text) => Some(text.clone()),
        TextMatch::Prefix(_) | TextMatch::Regex(_) => None,
    };
    let headers = matched.headers.iter();
    let headers =
        headers.filter_map(move |it| Some((By::Header(it.name.clone()), exact(&it.value)?)));
    let query = matched.query.iter();
    let query =
        query.filter_map(move |(name, value)| Some((By::Query(name.clone()), exact(value)?)));
    method.chain(headers).chain(query)
}

/// What leaves the fewest matches to go through, if that are at most half of them.
fn splitter(matches: &[(u32, &HttpMatch)]) -> Option<By> {
    if matches.len() <= FEW {
        return None;
    }
    let mut counts: HashMap<By, HashMap<Str, usize>> = HashMap::new();
    for (by, value) in matches.iter().flat_map(|(_, matched)| demands(matched)) {
        *counts.entry(by).or_default().entry(value).or_default() += 1;
    }
    let left = |values: &HashMap<Str, usize>| {
        let filed: usize = values.values().sum();
        // A match may demand one header twice.
        matches.len().saturating_sub(filed) + values.values().max().copied().unwrap_or_default()
    };
    let costs = counts.into_iter().map(|(by, values)| (left(&values), by));
    let (left, by) = costs.min_by_key(|(left, _)| *left)?;
    (left * 2 <= matches.len()).then_some(by)
}
