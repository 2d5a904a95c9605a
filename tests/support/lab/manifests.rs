//! The live directory of manifests, edited as `kubectl` edits a cluster: one file an object, replaced
//! atomically. The agents watch it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde_json::{Map, Value};

/// Kinds without a namespace, of those that a lab meets.
const CLUSTER_SCOPED: [&str; 5] =
    ["Namespace", "GatewayClass", "Node", "ClusterRole", "ClusterRoleBinding"];

/// The objects of a lab, in memory and on disk.
pub struct Manifests {
    directory: PathBuf,
    objects: BTreeMap<Key, Value>,
}

/// What identifies an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub kind: String,
    /// Empty for kinds without a namespace.
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub fn of(object: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let metadata = &object["metadata"];
        let kind = text(&object["kind"]).ok_or_else(|| anyhow!("an object without a kind"))?;
        let name =
            text(&metadata["name"]).ok_or_else(|| anyhow!("a {kind} without a metadata.name"))?;
        let namespace = if CLUSTER_SCOPED.contains(&kind.as_str()) {
            String::new()
        } else {
            text(&metadata["namespace"]).unwrap_or_else(|| "default".to_owned())
        };
        Ok(Self { kind, namespace, name })
    }

    fn file(&self) -> String {
        let parts = [self.kind.as_str(), &self.namespace, &self.name];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join(".").to_lowercase() + ".yaml"
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

impl Manifests {
    /// An empty directory, made when it does not exist.
    pub fn new(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.to_owned(), objects: BTreeMap::new() })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// All objects of a kind, in order.
    pub fn of_kind(&self, kind: &str) -> Vec<(&Key, &Value)> {
        self.objects.iter().filter(|(key, _)| key.kind == kind).collect()
    }

    pub fn get(&self, key: &Key) -> Result<&Value> {
        self.objects.get(key).ok_or_else(|| anyhow!("there is no {key}"))
    }

    /// `kubectl apply`: adds or replaces the objects of a text with one or more documents.
    pub fn apply(&mut self, yaml: &str) -> Result<Vec<Key>> {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(yaml).map_err(|error| anyhow!("{error}"))?;
        let mut keys = Vec::new();
        for object in documents.into_iter().filter(|document| !document.is_null()) {
            let key = Key::of(&object)?;
            self.put(key.clone(), object)?;
            keys.push(key);
        }
        Ok(keys)
    }

    /// `kubectl apply -n NAMESPACE`: objects that name no namespace are put into this one.
    pub fn apply_in(&mut self, namespace: &str, yaml: &str) -> Result<Vec<Key>> {
        let put = |object| {
            let key = Key::of(&object)?;
            self.put(key.clone(), object)?;
            Ok(key)
        };
        placed_in(namespace, yaml)?.into_iter().map(put).collect()
    }

    /// `kubectl delete`.
    pub fn delete(&mut self, key: &Key) -> Result<()> {
        self.objects.remove(key).ok_or_else(|| anyhow!("there is no {key} to delete"))?;
        let file = self.directory.join(key.file());
        fs::remove_file(&file).with_context(|| format!("delete {}", file.display()))
    }

    /// `kubectl label`: `name=value` sets, `name-` removes.
    pub fn label(&mut self, key: &Key, labels: &[&str]) -> Result<()> {
        self.change(key, |object| {
            let map = child(child(object, "metadata")?, "labels")?;
            for label in labels {
                if let Some((name, value)) = label.split_once('=') {
                    map.as_object_mut().map(|map| map.insert(name.to_owned(), Value::from(value)));
                } else if let Some(name) = label.strip_suffix('-') {
                    map.as_object_mut().map(|map| map.remove(name));
                }
            }
            Ok(())
        })
    }

    /// `kubectl annotate --overwrite`.
    pub fn annotate(&mut self, key: &Key, name: &str, value: &str) -> Result<()> {
        self.change(key, |object| {
            child(child(object, "metadata")?, "annotations")?[name] = Value::from(value);
            Ok(())
        })
    }

    /// Changes one object and writes it.
    pub fn change(&mut self, key: &Key, edit: impl FnOnce(&mut Value) -> Result<()>) -> Result<()> {
        let mut object = self.get(key)?.clone();
        edit(&mut object)?;
        self.put(key.clone(), object)
    }

    fn put(&mut self, key: Key, object: Value) -> Result<()> {
        let text = serde_saphyr::to_string(&object).map_err(|error| anyhow!("{key}: {error}"))?;
        self.write(&key.file(), &text)?;
        self.objects.insert(key, object);
        Ok(())
    }

    /// Writes a file of any content into the directory, as an editor does that replaces files.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        // A name that starts with a dot is no manifest until it is renamed.
        let (temporary, file) =
            (self.directory.join(format!(".{name}.new")), self.directory.join(name));
        fs::write(&temporary, text)?;
        fs::rename(&temporary, &file).with_context(|| format!("write {}", file.display()))
    }

    /// Removes a file that [`Manifests::write`] made.
    pub fn remove(&self, name: &str) -> Result<()> {
        fs::remove_file(self.directory.join(name)).with_context(|| format!("remove {name}"))
    }
}

/// The objects of a text, of which those that name no namespace are put into this one.
pub fn placed_in(namespace: &str, yaml: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(yaml).map_err(|error| anyhow!("{error}"))?;
    let mut objects = Vec::new();
    for mut object in documents.into_iter().filter(|document| !document.is_null()) {
        let kind = object["kind"].as_str().unwrap_or_default();
        if !CLUSTER_SCOPED.contains(&kind) && object["metadata"]["namespace"].is_null() {
            child(&mut object, "metadata")?["namespace"] = Value::from(namespace);
        }
        objects.push(object);
    }
    Ok(objects)
}

/// The object in a field, made when it is not there.
pub fn child<'a>(object: &'a mut Value, field: &str) -> Result<&'a mut Value> {
    let map = object.as_object_mut().ok_or_else(|| anyhow!("{field} is not in an object"))?;
    Ok(map.entry(field).or_insert_with(|| Value::Object(Map::new())))
}
