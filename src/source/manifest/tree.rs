//! A document as it is written: mappings keep entries that stand twice. What they mean is decided when the tree becomes a
//! [`Value`]: of two entries the last one counts, as `kubectl` and the API server have it.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// What no number beyond is taken for an integer that was written with a point: 2^53.
const EXACT: f64 = 9_007_199_254_740_992.0;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    Scalar(Value),
    List(Vec<Tree>),
    Map(Mapping),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Mapping {
    pub(super) entries: Vec<(String, Tree)>,
    /// Its end was read.
    pub(super) whole: bool,
}

impl Tree {
    /// The value, and the paths of what stands more than once.
    pub(super) fn into_value(self, path: &str, twice: &mut Vec<String>) -> Value {
        let within = |part: &str| match path {
            "" => part.to_owned(),
            path => format!("{path}.{part}"),
        };
        match self {
            Tree::Scalar(value) => value,
            Tree::List(items) => {
                let items = items.into_iter().enumerate();
                items.map(|(at, item)| item.into_value(&format!("{path}[{at}]"), twice)).collect()
            }
            Tree::Map(mapping) => {
                let mut fields = Map::new();
                for (key, tree) in mapping.entries {
                    let path = within(&key);
                    let value = tree.into_value(&path, twice);
                    if fields.insert(key, value).is_some() {
                        twice.push(path);
                    }
                }
                Value::Object(fields)
            }
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Tree::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn mapping(&self) -> Option<&Mapping> {
        match self {
            Tree::Map(mapping) => Some(mapping),
            _ => None,
        }
    }
}

impl Mapping {
    /// The last entry of this name.
    pub(super) fn get(&self, name: &str) -> Option<&Tree> {
        self.entries.iter().rev().find(|(key, _)| key == name).map(|(_, tree)| tree)
    }

    /// The items of a list: none for a null.
    pub(super) fn items(&mut self) -> Option<Vec<Tree>> {
        let items = self.entries.iter_mut().rev().find(|(key, _)| key == "items");
        match items.map(|(_, tree)| tree)? {
            Tree::List(items) => Some(std::mem::take(items)),
            Tree::Scalar(Value::Null) => Some(Vec::new()),
            _ => None,
        }
    }

    /// The entries, cut where one comes that says anew what the object is: so many objects seem to stand in one.
    pub(super) fn objects(&self) -> Vec<Mapping> {
        let mut objects: Vec<Mapping> = Vec::new();
        let mut seen: HashSet<&str> = HashSet::new();
        for (key, tree) in &self.entries {
            let again = !seen.insert(key);
            if again || objects.is_empty() {
                objects.push(Mapping { entries: Vec::new(), whole: true });
                seen = HashSet::from([key.as_str()]);
            }
            if let Some(object) = objects.last_mut() {
                object.entries.push((key.clone(), tree.clone()));
            }
        }
        if let Some(last) = objects.last_mut() {
            last.whole = self.whole;
        }
        objects
    }

    /// What says which object this is, when it stands twice and differs: two objects with no `---` between them, most likely.
    pub(super) fn conflict(&self) -> Option<&'static str> {
        let named_alike = |one: &Tree, two: &Tree| {
            let name = |tree: &Tree, part| tree.mapping()?.get(part).cloned();
            ["name", "namespace"].iter().all(|part| name(one, part) == name(two, part))
        };
        let metadata = self.get("metadata").and_then(Tree::mapping);
        let within = |name| metadata.is_some_and(|metadata| metadata.differs(name, Tree::eq));
        [
            ("apiVersion", self.differs("apiVersion", Tree::eq)),
            ("kind", self.differs("kind", Tree::eq)),
            ("metadata", self.differs("metadata", named_alike)),
            ("metadata.name", within("name")),
            ("metadata.namespace", within("namespace")),
        ]
        .into_iter()
        .find_map(|(field, differs)| differs.then_some(field))
    }

    /// Stands more than once, and not alike.
    fn differs(&self, name: &str, alike: impl Fn(&Tree, &Tree) -> bool) -> bool {
        let mut all = self.entries.iter().filter(|(key, _)| key == name).map(|(_, tree)| tree);
        let first = all.next();
        first.is_some_and(|first| all.any(|other| !alike(first, other)))
    }
}

impl From<&Value> for Tree {
    fn from(value: &Value) -> Self {
        match value {
            Value::Array(items) => Tree::List(items.iter().map(Tree::from).collect()),
            Value::Object(fields) => {
                let entries = fields.iter().map(|(key, value)| (key.clone(), value.into()));
                Tree::Map(Mapping { entries: entries.collect(), whole: true })
            }
            scalar => Tree::Scalar(scalar.clone()),
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reading)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of YAML or JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        // `80.0` is the integer 80, once it has been JSON.
        #[expect(clippy::cast_possible_truncation, reason = "it is an integer below 2^53")]
        let value = match value.fract() == 0.0 && value.abs() < EXACT {
            true => Value::from(value as i64),
            false => Number::from_f64(value).map_or(Value::Null, Value::Number),
        };
        Ok(Tree::Scalar(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Tree, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = from.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(Mapping { entries, whole: true }))
    }
}
