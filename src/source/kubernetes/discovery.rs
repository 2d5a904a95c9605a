//! Which kinds the API server serves, and in which version.
//!
//! The kinds of the core are always there. Those of Gateway API and Istio come and go with their
//! CustomResourceDefinitions, whose names are watched (metadata only); every change, and from time to time without one,
//! the server is asked what it serves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt, unfold};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::{ApiResource, GroupVersionKind, PartialObjectMeta};
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::time::{Instant, sleep_until};

use super::followed::{Followed, PAUSE_AT_MOST};
use crate::base::Backoff;
use crate::source::objects::Kind;

/// How often to ask without an occasion.
const LATER: Duration = Duration::from_secs(60);
/// How soon to ask again after a definition changed, or an answer failed to come: the server needs a moment to serve
/// what a definition says.
const SOON: Backoff = Backoff::new(Duration::from_millis(250), LATER);

/// What the definitions themselves are, as `<plural>.<group>`.
const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// Kinds and where they are served.
pub(super) type Served = BTreeMap<Kind, ApiResource>;

/// What the server serves now.
#[derive(Debug)]
pub(super) enum Found {
    Served {
        served: Served,
        /// No more is to be expected: what lists a version or defines a security kind also serves it. A server that
        /// starts may not yet.
        whole: bool,
        /// Kinds that are gone, not only out of sight: their definitions were deleted. Where these cannot be watched,
        /// not being served is enough, except for security kinds, without which something would be let past.
        gone: BTreeSet<Kind>,
    },
    Failed(kube::Error),
}

/// Kinds that are in every cluster.
fn core() -> Served {
    let kinds = Kind::all().filter(|kind| kind.is_translated() && kind.is_built_in());
    let resource = |kind: Kind| Some(resource(kind, kind.versions().first()?, kind.plural()));
    kinds.filter_map(|kind| Some((kind, resource(kind)?))).collect()
}

fn resource(kind: Kind, version: &str, plural: &str) -> ApiResource {
    let kind = GroupVersionKind::gvk(kind.group(), version, kind.name());
    ApiResource::from_gvk_with_plural(&kind, plural)
}

/// Kinds that a CustomResourceDefinition stands for.
fn custom() -> impl Iterator<Item = Kind> {
    Kind::all().filter(|kind| kind.is_translated() && !kind.is_built_in())
}

/// A resource that an agent lists and watches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watched {
    /// The API group; empty for the core.
    pub group: String,
    pub plural: String,
    /// The name of the only object that is watched.
    pub only: Option<&'static str>,
}

/// What an agent lists and watches. Its service account needs no more, but for asking whether it is being removed.
pub fn watched_resources() -> BTreeSet<Watched> {
    let kinds = Kind::all().filter(|kind| kind.is_translated());
    let of = |kind: Kind| Watched {
        group: kind.group().to_owned(),
        plural: kind.plural().to_owned(),
        only: kind.row().only,
    };
    let definitions = DEFINITIONS.split_once('.').map(|(plural, group)| Watched {
        group: group.to_owned(),
        plural: plural.to_owned(),
        only: None,
    });
    kinds.map(of).chain(definitions).collect()
}

/// And whether that is all: a version that a group lists may not be served yet.
async fn ask(client: &Client) -> Result<(Served, bool), kube::Error> {
    let mut served = core();
    let mut whole = true;
    let groups = client.list_api_groups().await?.groups;
    for group in groups {
        for version in &group.versions {
            let wanted = |kind: &Kind| {
                kind.group() == group.name && kind.versions().contains(&version.version.as_str())
            };
            if !custom().any(|kind| wanted(&kind)) {
                continue;
            }
            let listed = match client.list_api_group_resources(&version.group_version).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    whole = false;
                    continue;
                }
                listed => listed?,
            };
            for kind in custom().filter(wanted) {
                let found = listed
                    .resources
                    .iter()
                    .find(|resource| resource.kind == kind.name() && !resource.name.contains('/'));
                let Some(found) = found else { continue };
                let rank = |version: &str| kind.versions().iter().position(|it| *it == version);
                let better = served
                    .get(&kind)
                    .is_none_or(|other| rank(&version.version) < rank(&other.version));
                if better {
                    served.insert(kind, resource(kind, &version.version, &found.name));
                }
            }
        }
    }
    Ok((served, whole))
}

struct Discovery {
    client: Client,
    definitions: Followed<PartialObjectMeta<CustomResourceDefinition>>,
    /// `<plural>.<group>` of all definitions; `None` while they are not known.
    names: Option<BTreeSet<String>>,
    listing: BTreeSet<String>,
    /// The definitions were listed, or cannot be.
    looked: bool,
    /// When to ask next.
    next: Instant,
    /// How often the server was asked since the last occasion; `None` without one.
    asked: Option<u32>,
}

/// Tells what is served, first at once, then after every change.
pub(super) fn discover(client: Client) -> BoxStream<'static, Found> {
    let api: Api<PartialObjectMeta<CustomResourceDefinition>> = Api::all(client.clone());
    let discovery = Discovery {
        client,
        definitions: Followed::new(move || watcher(api.clone(), Config::default()).boxed()),
        names: None,
        listing: BTreeSet::new(),
        looked: false,
        next: Instant::now(),
        asked: None,
    };
    unfold(discovery, |mut discovery| async {
        let found = discovery.next().await;
        Some((found, discovery))
    })
    .boxed()
}

impl Discovery {
    async fn next(&mut self) -> Found {
        loop {
            tokio::select! {
                biased;
                () = sleep_until(self.next), if self.looked => {
                    let found = ask(&self.client).await;
                    if !matches!(found, Ok((_, true))) && self.asked.is_none() {
                        self.asked = Some(0);
                    }
                    self.next = Instant::now() + self.pause();
                    return self.found(found);
                }
                event = self.definitions.next() => match event {
                    Ok(event) => self.hear(event),
                    // May be forbidden; asking from time to time has to do then.
                    Err(_) => self.looked = true,
                }
            }
        }
    }

    fn found(&mut self, found: Result<(Served, bool), kube::Error>) -> Found {
        let (served, whole) = match found {
            Ok(found) => found,
            Err(error) => return Found::Failed(error),
        };
        let missing = |kind: &Kind| !served.contains_key(kind);
        let gone = custom().filter(|kind| whole && missing(kind) && self.is_gone(*kind)).collect();
        let defined = |kind: &Kind| {
            self.names.as_ref().is_some_and(|names| names.contains(&definition_of(*kind)))
        };
        let whole = whole && !custom().any(|it| it.restricts() && missing(&it) && defined(&it));
        if !whole {
            self.next = self.next.min(Instant::now() + PAUSE_AT_MOST);
        }
        Found::Served { served, whole, gone }
    }

    fn is_gone(&self, kind: Kind) -> bool {
        match &self.names {
            Some(names) => !names.contains(&definition_of(kind)),
            None => !kind.restricts(),
        }
    }

    fn hear(&mut self, event: Event<PartialObjectMeta<CustomResourceDefinition>>) {
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(definition) => _ = self.listing.insert(definition.name_any()),
            Event::InitDone => {
                self.looked = true;
                let names = std::mem::take(&mut self.listing);
                if self.names.replace(names).is_some() {
                    self.ask_soon();
                }
            }
            Event::Apply(definition) => {
                let name = definition.name_any();
                if is_ours(&name) {
                    self.ask_soon();
                }
                self.names.iter_mut().for_each(|names| _ = names.insert(name.clone()));
            }
            Event::Delete(definition) => {
                let name = definition.name_any();
                if is_ours(&name) {
                    self.ask_soon();
                }
                self.names.iter_mut().for_each(|names| _ = names.remove(&name));
            }
        }
    }

    fn ask_soon(&mut self) {
        self.next = self.next.min(Instant::now());
        self.asked = Some(0);
    }

    /// How long to wait after one more question.
    fn pause(&mut self) -> Duration {
        let Some(asked) = self.asked else { return LATER };
        let pause = SOON.after(asked + 1);
        self.asked = (pause < LATER).then_some(asked + 1);
        pause
    }
}

/// The name of the CustomResourceDefinition of a kind.
fn definition_of(kind: Kind) -> String {
    format!("{}.{}", kind.plural(), kind.group())
}

fn is_ours(name: &str) -> bool {
    let group = name.split_once('.').map_or("", |(_, group)| group);
    custom().any(|kind| kind.group() == group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_named_as_their_projects_name_them() {
        let names: Vec<_> = custom().map(definition_of).collect();
        for expected in [
            "gatewayclasses.gateway.networking.k8s.io",
            "gateways.gateway.networking.k8s.io",
            "httproutes.gateway.networking.k8s.io",
            "grpcroutes.gateway.networking.k8s.io",
            "xtelemetrypolicies.gateway.networking.x-k8s.io",
            "serviceentries.networking.istio.io",
            "workloadentries.networking.istio.io",
            "authorizationpolicies.security.istio.io",
            "peerauthentications.security.istio.io",
        ] {
            assert!(names.iter().any(|name| name == expected), "{expected}: {names:?}");
        }
        assert!(is_ours("authorizationpolicies.security.istio.io") && !is_ours("x.example.org"));
        assert!(core().keys().all(|kind| custom().all(|other| other != *kind)));
    }
}
