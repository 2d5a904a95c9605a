//! Whose clients an entry means anything to.
//!
//! An entry claims hosts and addresses that nobody gave its namespace, so by default it is its own namespace's business: its
//! clients see it, and no others. The root namespace's hold for the whole mesh, as its policies do, and so do those of the
//! namespaces that the setting `public_service_entries` trusts. MeshConfig, which is the root namespace's too, says otherwise by
//! `serviceEntryVisibility`, in which Istio's default is to trust all. `exportTo` can only narrow that: whoever writes an entry writes its `exportTo` too.
//! MeshConfig's `defaultServiceExportTo` holds for entries without one.

use super::super::{Context, namespace_label};
use crate::base::{ObjectKey, Str};
use crate::model::Visibility;
use crate::source::objects::{EntryVisibility, ServiceEntry, VisibilityPolicy};

/// In the setting: every namespace.
const ALL: &str = "*";
/// In `exportTo`: the entry's own namespace.
const OWN: &str = ".";
/// In `exportTo`: nobody.
const NOBODY: &str = "~";

/// What of its hosts an entry may claim, and for whom.
pub(super) struct Export {
    own: Str,
    root: bool,
    /// May hold for clients of other namespaces.
    public: bool,
    /// What `exportTo` asks for; `None`: everybody.
    wanted: Option<Vec<Str>>,
    /// What names of Services end in.
    cluster: String,
}

impl Export {
    /// Says where `exportTo` asks for more than the entry may have.
    pub(super) fn of(cx: &mut Context<'_>, key: &ObjectKey, object: &ServiceEntry) -> Self {
        let own = &key.namespace;
        let root = cx.is_root(own);
        let trusted = &cx.settings.public_service_entries;
        let trusted = trusted.iter().any(|name| name == ALL || name == own);
        let said = said(cx, own);
        let public = trusted || said.map_or(root, |said| said == EntryVisibility::Public);
        let listed = &object.spec.export_to;
        let default = default_export(cx);
        let others = |name: &String| ![OWN, NOBODY, own.as_str()].contains(&name.as_str());
        if !public && listed.iter().any(others) {
            let reason = format!(
                "names other namespaces, and no client of theirs sees the entry: {own:?} is neither the root namespace, nor in \
                 the setting public_service_entries, nor PUBLIC in serviceEntryVisibility of MeshConfig"
            );
            cx.warn::<ServiceEntry>(key, "spec.exportTo", reason);
        }
        let listed = if listed.is_empty() { &default } else { listed };
        let everybody = listed.is_empty() || listed.iter().any(|name| name == ALL);
        let wanted = match said {
            Some(EntryVisibility::None) => Some(Vec::new()),
            _ => (!everybody).then(|| namespaces(own, listed)),
        };
        let cluster = format!("svc.{}", cx.settings.cluster_domain);
        Self { own: own.clone(), root, public, wanted, cluster }
    }

    /// Who sees the entry's host.
    pub(super) fn of_host(&self, host: &str) -> Visibility {
        match (self.public && self.may_claim(host), &self.wanted) {
            (true, None) => Visibility::Everywhere,
            (true, Some(wanted)) => Visibility::Namespaces(wanted.clone()),
            (false, wanted) => {
                let own = wanted.as_ref().is_none_or(|wanted| wanted.contains(&self.own));
                Visibility::Namespaces(own.then(|| self.own.clone()).into_iter().collect())
            }
        }
    }

    /// Why a host is seen less far than the entry's others.
    pub(super) fn withheld(&self, host: &str) -> Option<String> {
        (self.public && !self.may_claim(host)).then(|| {
            format!(
                "{host} is a name of Services of other namespaces; only clients of {:?} see it as the entry's",
                self.own
            )
        })
    }

    /// Names of Services are not for entries to take: those of other namespaces only the root namespace may claim for others.
    fn may_claim(&self, host: &str) -> bool {
        let ends_in = |name: &str, end: &str| {
            name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let own = format!("{}.{}", self.own, self.cluster);
        // A wildcard covers the names of Services, or is among them.
        let base = host.strip_prefix("*.").unwrap_or(host);
        let covers = base.len() < host.len() && ends_in(&self.cluster, base);
        self.root || ends_in(base, &own) || !(covers || ends_in(base, &self.cluster))
    }
}

/// What MeshConfig says of a namespace's entries: its first policy that selects the namespace, or its default.
fn said(cx: &Context<'_>, namespace: &str) -> Option<EntryVisibility> {
    let visibility = cx.mesh_config()?.service_entry_visibility.as_ref()?;
    let label = |name: &str| namespace_label(cx.objects, namespace, name);
    let selects = |policy: &&VisibilityPolicy| {
        policy.matching_rules.iter().any(|rule| rule.namespace_selector.matches(label))
    };
    let policy = visibility.policies.iter().find(selects).map(|policy| policy.visibility);
    policy.or(visibility.default_visibility)
}

/// What MeshConfig says for entries that say nothing.
pub(in crate::source::translate) fn default_export(cx: &Context<'_>) -> Vec<String> {
    cx.mesh_config().map(|mesh| mesh.default_service_export_to.clone()).unwrap_or_default()
}

fn namespaces(own: &Str, listed: &[String]) -> Vec<Str> {
    let mut namespaces = Vec::new();
    for name in listed.iter().filter(|name| *name != NOBODY) {
        let name = if name == OWN { own.clone() } else { Str::from(name.as_str()) };
        if !namespaces.contains(&name) {
            namespaces.push(name);
        }
    }
    namespaces
}
