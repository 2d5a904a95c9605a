//! The API server's objects, as the pure functions need them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::feed::Heard;
use super::{Stored, Subject, SubjectKind};
use crate::base::ObjectKey;
use crate::source::objects::{FieldError, Labels};
use crate::source::{Document, File, Objects};

/// Parts of the metadata that are kept beside a parsed object: its name and its version.
const METADATA: [&str; 5] = ["name", "namespace", "uid", "generation", "resourceVersion"];

/// Plain data: the same events produce the same cache.
#[derive(Default)]
pub(super) struct Cache {
    kinds: BTreeMap<SubjectKind, Progress>,
    documents: BTreeMap<Subject, Document>,
    stored: BTreeMap<Subject, Stored>,
    /// The objects in force, with their last good versions.
    objects: Objects,
}

#[derive(Default)]
struct Progress {
    /// All objects were received once, or there are none.
    known: bool,
    served: bool,
    /// The keys of the list that is being received.
    listing: Option<BTreeSet<ObjectKey>>,
}

impl Cache {
    /// Whether anything changed.
    pub(super) fn hear(&mut self, watched: SubjectKind, heard: Heard) -> bool {
        let progress = self.kinds.entry(watched).or_default();
        match heard {
            Heard::Failed(_) => return false,
            Heard::Absent => {
                *progress = Progress { known: true, served: false, listing: None };
                self.keep(watched, &BTreeSet::new());
            }
            Heard::Start => progress.listing = Some(BTreeSet::new()),
            Heard::Done => {
                progress.known = true;
                progress.served = true;
                if let Some(listed) = progress.listing.take() {
                    self.keep(watched, &listed);
                }
            }
            Heard::Object(object) => return self.take(watched, object),
            Heard::Deleted(object) => {
                self.forget(&Subject::new(watched, key(&object)));
            }
        }
        true
    }

    /// Stores the response to a write, unless the watch has delivered something newer.
    pub(super) fn written(&mut self, subject: &Subject, from: &str, object: Value) {
        let known = self.stored.get(subject).map(Stored::resource_version);
        if known == Some(from) {
            self.take(subject.kind, object);
        }
    }

    /// Whether every kind is completely known.
    pub(super) fn is_complete(&self) -> bool {
        self.missing().next().is_none()
    }

    /// The kinds that are not.
    pub(super) fn missing(&self) -> impl Iterator<Item = SubjectKind> {
        SubjectKind::read().filter(|it| !self.kinds.get(it).is_some_and(|progress| progress.known))
    }

    pub(super) fn served(&self) -> Vec<SubjectKind> {
        let served =
            |kind: &SubjectKind| self.kinds.get(kind).is_some_and(|progress| progress.served);
        SubjectKind::all().filter(served).collect()
    }

    pub(super) fn stored(&self) -> &BTreeMap<Subject, Stored> {
        &self.stored
    }

    /// The state in force: an invalid object keeps its last good version, as with any source.
    pub(super) fn objects(&mut self) -> &Objects {
        let documents: Arc<[Document]> = self.documents.values().cloned().collect();
        let file = File { name: "".into(), documents: Ok(documents) };
        self.objects = Objects::from_files(&[file], &self.objects);
        &self.objects
    }

    /// The last result of [`Cache::objects`].
    pub(super) fn in_force(&self) -> &Objects {
        &self.objects
    }

    fn take(&mut self, watched: SubjectKind, mut object: Value) -> bool {
        let key = key(&object);
        if let Some(listing) = self.kinds.entry(watched).or_default().listing.as_mut() {
            listing.insert(key.clone());
        }
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.swap_remove("managedFields");
        }
        let subject = Subject::new(watched, key);
        let document = Document::of(object.clone());
        let refused = document.refusal().map(|refusal| FieldError {
            field: refusal.field.clone(),
            reason: refusal.reason.clone(),
        });
        let labels = labels(watched, &object);
        prune(watched, &mut object);
        let stored = Stored { object, refused, labels };
        let before = self.stored.get(&subject).map(Stored::resource_version);
        if before == Some(stored.resource_version()) {
            return false;
        }
        if watched.kind().is_some() {
            self.documents.insert(subject.clone(), document);
        }
        self.stored.insert(subject, stored);
        true
    }

    fn keep(&mut self, watched: SubjectKind, keys: &BTreeSet<ObjectKey>) {
        let stays = |it: &Subject| it.kind != watched || keys.contains(&it.key);
        self.documents.retain(|it, _| stays(it));
        self.stored.retain(|it, _| stays(it));
    }

    fn forget(&mut self, subject: &Subject) {
        self.documents.remove(subject);
        self.stored.remove(subject);
    }
}

fn key(object: &Value) -> ObjectKey {
    let metadata = |field: &str| {
        let found = object.get("metadata").and_then(|it| it.get(field)?.as_str());
        found.unwrap_or_default().to_owned()
    };
    ObjectKey::new(metadata("namespace"), metadata("name"))
}

/// The fields that name the owner of an object.
fn labels(kind: SubjectKind, object: &Value) -> Option<Labels> {
    kind.kind().filter(|kind| kind.is_route() || kind.is_unserved())?;
    serde_json::from_value(object.get("metadata")?.get("labels")?.clone()).ok()
}

/// For numerous kinds, the spec is not needed beside the parsed object.
fn prune(kind: SubjectKind, object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|field, _| METADATA.contains(&field.as_str()));
    }
    if kind.is_read_without_spec() {
        fields.swap_remove("spec");
    }
}
