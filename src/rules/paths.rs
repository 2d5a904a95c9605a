//! Matches by path: exact ones in a map, prefixes in a trie of segments, the others together.

use std::collections::BTreeMap;

use super::bucket::{Bucket, Search};
use super::matching::Known;
use crate::base::{FastMap, Str};
use crate::model::{HttpMatch, PathMatch, TextMatch};

/// Matches that hold on the same port.
#[derive(Debug, Default)]
pub(super) struct Paths {
    exact: FastMap<Str, Bucket>,
    prefixes: Trie,
    /// Regular expressions, and methods of gRPC without a service.
    rest: Bucket,
}

/// Prefixes by segment; the first node is that of no segment at all.
#[derive(Debug, Default)]
struct Trie(Vec<Node>);

#[derive(Debug)]
struct Node {
    /// `None`: the first node.
    parent: Option<usize>,
    children: FastMap<Str, usize>,
    bucket: Bucket,
}

/// Where a match is filed.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Exact(Str),
    Prefix(Str),
    Rest,
}

impl Paths {
    /// Of matches in the order of precedence.
    pub(super) fn of(matches: Vec<(u32, &HttpMatch)>) -> Self {
        let mut filed: BTreeMap<Key, Vec<(u32, &HttpMatch)>> = BTreeMap::new();
        for one in matches {
            filed.entry(key(&one.1.path)).or_default().push(one);
        }
        let mut paths = Self::default();
        for (key, matches) in filed {
            let bucket = Bucket::of(matches);
            match key {
                Key::Exact(path) => _ = paths.exact.insert(path, bucket),
                Key::Prefix(prefix) => paths.prefixes.insert(&prefix, bucket),
                Key::Rest => paths.rest = bucket,
            }
        }
        paths
    }

    /// The longer path comes first mostly, and the rank decides in any case.
    pub(super) fn search<'a, F>(&'a self, search: &mut Search<'a, F>)
    where
        F: Fn(u32, &Known<'a>) -> bool,
    {
        if !self.exact.is_empty()
            && let Some(bucket) = self.exact.get(search.head.path)
        {
            bucket.search(search);
        }
        self.prefixes.search(search);
        self.rest.search(search);
    }
}

/// As [`super::matching`] compares: a slash at the end of a prefix is ignored.
fn key(path: &PathMatch) -> Key {
    match path {
        PathMatch::Exact(path) => Key::Exact(path.clone()),
        PathMatch::Prefix(prefix) => match prefix.strip_suffix('/') {
            Some(shorter) => Key::Prefix(shorter.into()),
            None => Key::Prefix(prefix.clone()),
        },
        PathMatch::Grpc {
            service: Some(TextMatch::Exact(service)),
            method: Some(TextMatch::Exact(method)),
        } => Key::Exact(arcstr::format!("/{service}/{method}")),
        PathMatch::Grpc { service: Some(TextMatch::Exact(service)), .. } => {
            Key::Prefix(arcstr::format!("/{service}"))
        }
        // Below the segments that are whole: what begins so has these, and mostly more.
        PathMatch::Starts(start) => match start.rsplit_once('/') {
            Some((whole, _)) => Key::Prefix(whole.into()),
            None => Key::Rest,
        },
        PathMatch::ExactAnyCase(_)
        | PathMatch::StartsAnyCase(_)
        | PathMatch::Regex(_)
        | PathMatch::Grpc { .. } => Key::Rest,
    }
}

impl Trie {
    fn insert(&mut self, prefix: &str, bucket: Bucket) {
        if self.0.is_empty() {
            self.0.push(Node::below(None));
        }
        let mut at = 0;
        for segment in prefix.split('/') {
            let (above, next) = (at, self.0.len());
            at = *self.0[above].children.entry(segment.into()).or_insert(next);
            if at == next {
                self.0.push(Node::below(Some(above)));
            }
        }
        self.0[at].bucket = bucket;
    }

    /// Down along the path, and up again from the longest prefix.
    fn search<'a, F>(&'a self, search: &mut Search<'a, F>)
    where
        F: Fn(u32, &Known<'a>) -> bool,
    {
        let Some(mut node) = self.0.first() else { return };
        for segment in search.head.path.split('/') {
            let next = node.children.get(segment).and_then(|next| self.0.get(*next));
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        // The first node has no bucket and no parent.
        while let Some(parent) = node.parent.and_then(|parent| self.0.get(parent)) {
            node.bucket.search(search);
            node = parent;
        }
    }
}

impl Node {
    fn below(parent: Option<usize>) -> Self {
        Self { parent, children: FastMap::default(), bucket: Bucket::default() }
    }
}
