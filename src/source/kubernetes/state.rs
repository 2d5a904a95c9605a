//! What the API server said so far: the objects in force, and which kinds are known whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::object::Read;
use crate::base::{ObjectKey, Str};
use crate::source::Objects;
use crate::source::objects::Kind;

/// An object's kind and key.
pub(super) type Id = (Kind, ObjectKey);

/// Everything that was heard. Plain data: the same events give the same state.
#[derive(Default)]
pub(super) struct State {
    objects: Objects,
    kinds: BTreeMap<Kind, Progress>,
    /// What changed since it was last asked for.
    changed: BTreeSet<Id>,
    /// Whose objects these are, since that was last asked for.
    tenants: BTreeSet<Str>,
}

/// One kind.
#[derive(Default)]
struct Progress {
    /// Digests of what was heard last of each object.
    heard: HashMap<ObjectKey, Digests>,
    /// The keys of the list that is being read.
    listing: Option<BTreeSet<ObjectKey>>,
    /// A whole list was read once.
    complete: bool,
}

/// Of its version and of its content.
struct Digests {
    version: u64,
    content: u64,
}

impl State {
    pub(super) fn objects(&self) -> &Objects {
        &self.objects
    }

    /// From now on `kind` is waited for.
    pub(super) fn expect(&mut self, kind: Kind) {
        self.kinds.entry(kind).or_default();
    }

    /// A list of all objects begins.
    pub(super) fn start(&mut self, kind: Kind) {
        self.kinds.entry(kind).or_default().listing = Some(BTreeSet::new());
    }

    /// The list is at its end: what it did not hold was deleted unseen.
    pub(super) fn done(&mut self, kind: Kind) {
        let progress = self.kinds.entry(kind).or_default();
        progress.complete = true;
        let Some(listed) = progress.listing.take() else { return };
        progress.heard.retain(|key, _| listed.contains(key));
        let gone = self.objects.retain(kind, &listed);
        gone.into_iter().for_each(|id| self.note(id));
    }

    /// Whether the object was heard in this very version before, so that it need not be read again.
    pub(super) fn knows(&mut self, kind: Kind, key: &ObjectKey, version: u64) -> bool {
        let Some(progress) = self.kinds.get_mut(&kind) else { return false };
        if let Some(listing) = &mut progress.listing {
            listing.insert(key.clone());
        }
        progress.heard.get(key).is_some_and(|known| known.version == version)
    }

    /// An object that is there, in a list or by itself.
    pub(super) fn apply(&mut self, kind: Kind, read: Read) {
        let Read { key, version, content, generation, object, document } = read;
        let progress = self.kinds.entry(kind).or_default();
        let before = progress.heard.insert(key.clone(), Digests { version, content });
        if before.is_some_and(|before| before.content == content) {
            return;
        }
        let others = self.objects.apply((kind, key.clone()), object, generation, || document);
        others.into_iter().for_each(|id| self.note(id));
        self.note((kind, key));
    }

    pub(super) fn delete(&mut self, kind: Kind, key: ObjectKey) {
        if let Some(progress) = self.kinds.get_mut(&kind) {
            progress.heard.remove(&key);
        }
        let changed = self.objects.remove(&(kind, key));
        changed.into_iter().for_each(|id| self.note(id));
    }

    /// The kind is not served any more.
    pub(super) fn forget(&mut self, kind: Kind) {
        self.kinds.remove(&kind);
        let gone = self.objects.retain(kind, &BTreeSet::new());
        gone.into_iter().for_each(|id| self.note(id));
    }

    fn note(&mut self, (kind, key): Id) {
        let tenant = if kind == Kind::Namespace { &key.name } else { &key.namespace };
        self.tenants.insert(tenant.clone());
        self.changed.insert((kind, key));
    }

    /// Kinds of which no whole list was read yet.
    pub(super) fn missing(&self) -> impl Iterator<Item = Kind> {
        self.kinds.iter().filter(|(_, progress)| !progress.complete).map(|(kind, _)| *kind)
    }

    /// The namespaces whose objects changed; an empty name stands for objects of none.
    pub(super) fn take_tenants(&mut self) -> BTreeSet<Str> {
        std::mem::take(&mut self.tenants)
    }

    pub(super) fn take_changed(&mut self) -> BTreeSet<Id> {
        std::mem::take(&mut self.changed)
    }
}

#[cfg(test)]
mod tests;
