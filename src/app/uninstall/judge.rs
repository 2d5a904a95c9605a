//! Was the mesh uninstalled? Pure, and the only place that decides it.
//!
//! Only what the API server says about the installation's own objects counts, in an answer to a client that it has
//! authenticated and authorized: an event of a watch, or a list. A rejection (401, 403), an error, a 404 of unknown
//! origin and silence prove nothing; an attacker who can cause them must not be able to release a node's pods.

use kube::Error;
use kube::core::{ObjectList, PartialObjectMeta};

/// The finalizer of a deletion that keeps the owned objects (`kubectl delete --cascade=orphan`).
const ORPHAN: &str = "orphan";

/// The API server's answers about one object so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Known {
    #[default]
    Nothing,
    Stands,
    /// It is being deleted, together with its pods.
    Going,
    Gone,
    /// Deleted without its pods: another one will replace it.
    Orphaned,
}

/// One statement of the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Object {
        going: bool,
        orphans: bool,
    },
    /// The list of objects with its name is empty.
    Missing,
    /// The event of its deletion.
    Deleted,
}

/// The objects whose deletion means an uninstall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The owner of the agent's pod.
    pub(super) daemon_set: Known,
    /// The namespace of both.
    pub(super) namespace: Known,
}

/// The deleted object if the mesh was uninstalled; `None` if it was not, or if that is unknown.
pub(super) fn removed(facts: Facts) -> Option<&'static str> {
    let is_deleted = |known| matches!(known, Known::Going | Known::Gone);
    if is_deleted(facts.daemon_set) {
        return Some("its DaemonSet was deleted");
    }
    is_deleted(facts.namespace).then_some("its namespace was deleted")
}

impl Known {
    pub(super) fn after(self, heard: Heard) -> Self {
        match (heard, self) {
            // An older one, or its replacement.
            (Heard::Object { going: false, .. }, _) => Known::Stands,
            (Heard::Object { going: true, orphans: true }, _) => Known::Orphaned,
            // The finalizer is removed once its pods are orphaned.
            (Heard::Object { .. } | Heard::Missing | Heard::Deleted, Known::Orphaned) => {
                Known::Orphaned
            }
            (Heard::Object { going: true, .. }, _) => Known::Going,
            // It never existed as far as this agent knows: it may have another name.
            (Heard::Missing, Known::Nothing) => Known::Nothing,
            (Heard::Missing | Heard::Deleted, _) => Known::Gone,
        }
    }
}

impl Heard {
    /// An object's description of itself.
    pub(super) fn of<K>(object: &PartialObjectMeta<K>) -> Self {
        let metadata = &object.metadata;
        let mut finalizers = metadata.finalizers.iter().flatten();
        Heard::Object {
            going: metadata.deletion_timestamp.is_some(),
            orphans: finalizers.any(|it| it == ORPHAN),
        }
    }

    /// The answer to a request for one object; an error proves nothing.
    pub(super) fn answer<K>(asked: &Result<PartialObjectMeta<K>, Error>) -> Option<Self> {
        asked.as_ref().ok().map(Self::of)
    }

    /// The answer to a list of the objects with one name.
    pub(super) fn list<K>(asked: &Result<ObjectList<PartialObjectMeta<K>>, Error>) -> Option<Self>
    where
        PartialObjectMeta<K>: Clone,
    {
        let list = asked.as_ref().ok()?;
        Some(list.items.first().map_or(Heard::Missing, Self::of))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::DaemonSet;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
    use kube::core::{ListMeta, Status, TypeMeta};

    use super::*;

    type Object = PartialObjectMeta<DaemonSet>;

    fn object(going: bool, finalizers: &[&str]) -> Object {
        let deletion_timestamp = going.then(|| Time(Default::default()));
        let finalizers = Some(finalizers.iter().map(|it| (*it).to_owned()).collect());
        let metadata = ObjectMeta { deletion_timestamp, finalizers, ..ObjectMeta::default() };
        PartialObjectMeta { metadata, ..PartialObjectMeta::default() }
    }

    const STANDS: Heard = Heard::Object { going: false, orphans: false };
    const GOING: Heard = Heard::Object { going: true, orphans: false };
    const ORPHANS: Heard = Heard::Object { going: true, orphans: true };
    use Heard::{Deleted, Missing};

    /// Answers about the DaemonSet, in order, and whether the mesh has been removed.
    #[test]
    fn only_a_deletion_that_was_seen_is_a_removal() {
        for (case, said, removed_then) in [
            ("nobody said anything", &[][..], false),
            ("it stands", &[STANDS], false),
            ("in the background", &[STANDS, Deleted], true),
            ("in the foreground", &[STANDS, GOING], true),
            ("in the foreground, to the end", &[STANDS, GOING, Deleted], true),
            ("while no watch was open", &[STANDS, Missing], true),
            ("already when the agent started", &[GOING], true),
            ("it never was there", &[Missing], false),
            ("its pods are kept", &[STANDS, ORPHANS], false),
            ("its pods are kept, to the end", &[STANDS, ORPHANS, GOING, Deleted], false),
            ("its pods are kept while no watch was open", &[STANDS, ORPHANS, Missing], false),
            ("replaced", &[STANDS, Deleted, STANDS], false),
            ("replaced around its pods", &[STANDS, ORPHANS, Deleted, STANDS], false),
            ("replaced around its pods, then removed", &[ORPHANS, STANDS, Deleted], true),
            ("removed after it was replaced", &[STANDS, Deleted, STANDS, Deleted], true),
        ] {
            let daemon_set = said.iter().fold(Known::Nothing, |known, it| known.after(*it));
            let facts = Facts { daemon_set, namespace: Known::Stands };
            assert_eq!(removed(facts).is_some(), removed_then, "{case}: {daemon_set:?}");
        }
    }

    #[test]
    fn the_namespace_takes_the_daemon_set_along() {
        for (namespace, removed_then) in [
            (Known::Nothing, false),
            (Known::Stands, false),
            (Known::Orphaned, false),
            (Known::Going, true),
            (Known::Gone, true),
        ] {
            for daemon_set in [Known::Nothing, Known::Stands] {
                let facts = Facts { daemon_set, namespace };
                assert_eq!(removed(facts).is_some(), removed_then, "{facts:?}");
            }
        }
    }

    #[test]
    fn no_refusal_and_no_error_says_anything() {
        for code in [400, 401, 403, 404, 410, 429, 500, 502, 503] {
            let refused = || Error::Api(Box::new(Status::failure("no", "Reason").with_code(code)));
            assert_eq!(Heard::answer::<DaemonSet>(&Err(refused())), None, "{code}");
            assert_eq!(Heard::list::<DaemonSet>(&Err(refused())), None, "{code}");
        }
        let cut = || Error::ReadEvents(std::io::Error::other("cut"));
        assert_eq!(Heard::answer::<DaemonSet>(&Err(cut())), None);
        assert_eq!(Heard::list::<DaemonSet>(&Err(cut())), None);
    }

    #[test]
    fn objects_and_lists_are_heard() {
        for (going, finalizers, heard) in [
            (false, &[][..], STANDS),
            (true, &[], GOING),
            (true, &["foregroundDeletion"], GOING),
            (true, &["orphan"], ORPHANS),
        ] {
            assert_eq!(Heard::answer(&Ok(object(going, finalizers))), Some(heard));
            let items = vec![object(going, finalizers)];
            assert_eq!(Heard::list(&Ok(list(items))), Some(heard));
        }
        assert_eq!(Heard::list(&Ok(list(Vec::new()))), Some(Missing));
    }

    fn list(items: Vec<Object>) -> ObjectList<Object> {
        ObjectList { types: TypeMeta::default(), metadata: ListMeta::default(), items }
    }
}
