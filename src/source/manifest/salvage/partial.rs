//! As much of a broken text as the parser could read before it gave up, in whatever style it is written.

use std::collections::HashMap;

use granit_parser::{Event, Parser};
use serde_json::Value;

use super::super::tree::{Mapping, Tree};
use super::super::{MAX_DEPTH, MAX_EVENTS};

pub(super) struct Partial {
    pub(super) trees: Vec<Tree>,
    /// The text without comments, as far as it is known what one is.
    pub(super) told: String,
}

/// A collection whose end was not read yet.
enum Open {
    List(Vec<Tree>),
    Map { mapping: Mapping, key: Option<String> },
}

#[derive(Default)]
struct Builder {
    trees: Vec<Tree>,
    open: Vec<Open>,
    /// Texts that aliases stand for.
    anchors: HashMap<usize, String>,
}

pub(super) fn read(text: &str) -> Partial {
    let mut builder = Builder::default();
    let mut told = String::with_capacity(text.len());
    let mut at = 0;
    let options = granit_parser::options! {
        emit_unresolved_aliases: true,
        max_buffered_comment_events: MAX_EVENTS,
    };
    for event in Parser::new_from_str_with_options(text, options).take(MAX_EVENTS) {
        let Ok((event, span)) = event else { break };
        if let Event::Comment(..) = event
            && let Some(range) = span.byte_range()
            && let Some(before) = text.get(at..range.start)
        {
            told.push_str(before);
            at = range.end;
        }
        if builder.open.len() > MAX_DEPTH {
            break;
        }
        builder.take(event);
    }
    told.push_str(text.get(at..).unwrap_or_default());
    Partial { trees: builder.finish(), told }
}

impl Builder {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Scalar(text, _, anchor, _) => {
                if anchor != 0 {
                    self.anchors.insert(anchor, text.to_string());
                }
                self.put(Tree::Scalar(Value::String(text.into_owned())));
            }
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).cloned();
                self.put(Tree::Scalar(known.map_or(Value::Null, Value::String)));
            }
            Event::UnresolvedAlias(_) => self.put(Tree::Scalar(Value::Null)),
            Event::SequenceStart(..) => self.open.push(Open::List(Vec::new())),
            Event::MappingStart(..) => {
                self.open.push(Open::Map { mapping: Mapping::default(), key: None });
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(true),
            _ => {}
        }
    }

    fn put(&mut self, tree: Tree) {
        match self.open.last_mut() {
            None => self.trees.push(tree),
            Some(Open::List(items)) => items.push(tree),
            Some(Open::Map { mapping, key }) => match key.take() {
                Some(key) => mapping.entries.push((key, tree)),
                // A key that is no text leads to nothing that is looked for.
                None => *key = Some(tree.text().unwrap_or_default().to_owned()),
            },
        }
    }

    fn close(&mut self, whole: bool) {
        match self.open.pop() {
            None => {}
            Some(Open::List(items)) => self.put(Tree::List(items)),
            Some(Open::Map { mapping, .. }) => self.put(Tree::Map(Mapping { whole, ..mapping })),
        }
    }

    fn finish(mut self) -> Vec<Tree> {
        while !self.open.is_empty() {
            self.close(false);
        }
        self.trees
    }
}
