//! Merge keys (`<<`), carried out as `kubectl` does.
//!
//! The order counts: what stands behind the merge key replaces what was merged, as everywhere; what stands in front of it is
//! replaced, where YAML 1.1 ("Merge Key Language-Independent Type") would have kept it. Such an entry stands twice, and is told
//! or refused as any other that does.

use std::collections::HashMap;

use super::tree::{Mapping, Tree};

const KEY: &str = "<<";

/// The entries of one mapping while they are put together.
#[derive(Default)]
struct Merging {
    entries: Vec<(String, Tree)>,
    /// Those that came by a merge key, by name: their place.
    merged: HashMap<String, usize>,
}

/// Replaces the merge keys of a tree; its depth is bounded by that of a document.
pub(super) fn expand(tree: Tree) -> Result<Tree, String> {
    match tree {
        Tree::Scalar(_) => Ok(tree),
        Tree::List(items) => {
            Ok(Tree::List(items.into_iter().map(expand).collect::<Result<_, _>>()?))
        }
        Tree::Map(Mapping { entries, whole }) => {
            let entries = entries.into_iter().map(|(key, tree)| Ok((key, expand(tree)?)));
            let entries = entries.collect::<Result<Vec<_>, String>>()?;
            let entries = match entries.iter().any(|(key, _)| key == KEY) {
                true => merge(entries)?,
                false => entries,
            };
            Ok(Tree::Map(Mapping { entries, whole }))
        }
    }
}

fn merge(entries: Vec<(String, Tree)>) -> Result<Vec<(String, Tree)>, String> {
    let mut merging = Merging::default();
    for (key, tree) in entries {
        if key != KEY {
            merging.put(key, tree, false);
            continue;
        }
        // Of several the first one counts.
        for source in sources(tree)?.into_iter().rev() {
            source.entries.into_iter().for_each(|(key, tree)| merging.put(key, tree, true));
        }
    }
    Ok(merging.entries)
}

fn sources(tree: Tree) -> Result<Vec<Mapping>, String> {
    let mapping = |tree| match tree {
        Tree::Map(mapping) => Ok(mapping),
        _ => {
            Err("the value of a merge key (<<) must be a mapping, or a list of mappings".to_owned())
        }
    };
    match tree {
        Tree::List(items) => items.into_iter().map(mapping).collect(),
        one => Ok(vec![mapping(one)?]),
    }
}

impl Merging {
    fn put(&mut self, key: String, tree: Tree, merged: bool) {
        let before = self.merged.get(&key).and_then(|at| self.entries.get_mut(*at));
        if let Some((_, before)) = before {
            *before = tree;
            if !merged {
                self.merged.remove(&key);
            }
            return;
        }
        if merged {
            self.merged.insert(key.clone(), self.entries.len());
        }
        self.entries.push((key, tree));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &serde_json::Value) -> Result<(serde_json::Value, Vec<String>), String> {
        let mut twice = Vec::new();
        let value = expand(Tree::from(value))?.into_value("", &mut twice);
        Ok((value, twice))
    }

    /// In the order of a text, which a value of JSON does not keep.
    fn ordered(entries: &[(&str, serde_json::Value)]) -> Tree {
        let entries = entries.iter().map(|(key, value)| ((*key).to_owned(), Tree::from(value)));
        Tree::Map(Mapping { entries: entries.collect(), whole: true })
    }

    /// Each was tried with kubectl 1.32.
    #[test]
    fn the_order_counts() {
        let base = || ("<<", json!({"paths": ["/a"], "methods": ["GET"]}));
        let own = || ("paths", json!(["/b"]));
        for (entries, paths, twice) in [
            (vec![base(), own()], "/b", &[][..]),
            (vec![own(), base()], "/a", &["paths"][..]),
            (vec![base(), ("<<", json!({"paths": ["/c"]}))], "/c", &[]),
            (vec![("<<", json!([{"paths": ["/a"]}, {"paths": ["/c"]}]))], "/a", &[]),
            (vec![base(), own(), ("paths", json!(["/d"]))], "/d", &["paths"]),
        ] {
            let mut found = Vec::new();
            let tree = expand(ordered(&entries)).expect("mappings");
            let value = tree.into_value("", &mut found);
            assert_eq!(value["paths"], json!([paths]), "{entries:?}");
            assert_eq!(found, twice, "{entries:?}");
        }
    }

    #[test]
    fn merges_are_nested_and_are_mappings() {
        let deep = json!({"a": [{"<<": {"<<": {"b": 1}, "c": 2}}]});
        assert_eq!(read(&deep).unwrap().0, json!({"a": [{"b": 1, "c": 2}]}));
        for wrong in [json!(5), json!(null), json!("x"), json!([{}, 5])] {
            assert!(read(&json!({"<<": wrong})).is_err(), "{wrong}");
        }
    }
}
