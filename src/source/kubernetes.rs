//! The API server of a cluster as a source.
//!
//! One watch for each kind that the server serves and the translation reads, over all namespaces: a node's workloads
//! talk to workloads anywhere. Nothing is published before every kind was read whole once; from then on changes are
//! gathered for a moment, of each namespace by itself, and published as one. Kinds whose CustomResourceDefinitions come later are watched from then
//! on; one that is removed takes its objects along.
//!
//! When the server is away the last state stays in force and the watches are tried again, from where they were where
//! the server still knows that, else with a new list, in which what was deleted meanwhile is missed.
//!
//! An object that cannot be understood is refused alone, as in files. A security kind that the server no longer names
//! keeps its objects until its definition is seen to be gone: a server that starts may not serve it yet.

mod answer;
mod connect;
mod discovery;
mod followed;
mod gather;
mod health;
mod object;
mod shape;
mod state;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::stream::{BoxStream, SelectAll, StreamExt};
use kube::Client;
use kube::core::ApiResource;
use tokio::time::{Instant, interval, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::complaint;
use super::last_read::LastRead;
use super::objects::Kind;
use super::{Asked, Objects, Source, SourceError, TranslateSettings, Translation, Translator};
use crate::base::Str;
pub use connect::client;
use discovery::{Found, discover};
pub use discovery::{Watched, watched_resources};
pub use followed::Followed;
pub(crate) use followed::RETRY;
use gather::Gather;
use health::Health;
use state::State;
use watch::{Heard, Selected, watch};

/// How often the age of the state is looked after.
const TICK: Duration = Duration::from_secs(1);
/// How long the first state may take before the log says what is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The source of the objects in a cluster.
#[derive(Clone, Debug)]
pub struct KubernetesSource {
    kubeconfig: Option<PathBuf>,
    settings: TranslateSettings,
    last_read: LastRead,
    asked: Asked,
}

impl KubernetesSource {
    /// `kubeconfig`: how to reach the API server; `None` in a cluster.
    pub fn new(kubeconfig: Option<PathBuf>, settings: TranslateSettings) -> Self {
        Self { kubeconfig, settings, last_read: LastRead::default(), asked: Asked::default() }
    }

    /// Tells when all watches were last well, while the source runs.
    pub fn last_read(&self) -> LastRead {
        self.last_read.clone()
    }

    /// Gives the objects while the source runs.
    pub fn asked(&self) -> Asked {
        self.asked.clone()
    }

    /// As [`Source::run`], and shows the objects that each state was translated from.
    ///
    /// # Errors
    /// There is no usable kubeconfig or service account. A server that does not answer is waited for.
    pub async fn follow(
        self,
        mut publish: impl FnMut(&Objects, Translation) + Send,
        cancel: CancellationToken,
    ) -> Result<(), SourceError> {
        let client = connect::client(self.kubeconfig.as_deref()).await?;
        let root = self.settings.root_namespace.clone();
        let mut follower = Follower::new(client, root, self.last_read);
        let mut tick = interval(TICK);
        let mut patience = Some(Instant::now() + PATIENCE);
        let mut translator = Translator::new(self.settings);
        let mut last: Option<Translation> = None;
        loop {
            let due = follower.gather.due();
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(()),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let begun = Instant::now();
                    if !follower.gather.is_due(begun) {
                        continue;
                    }
                    let changed = follower.state.take_changed();
                    let translation = translator.translate(follower.state.objects(), Some(&changed));
                    if last.as_ref().is_none_or(|last| !translation.says_the_same_as(last)) {
                        let known = last.as_ref().map_or(&[][..], |last| &last.complaints);
                        complaint::log(translation.complaints.iter().filter(|it| known.binary_search(it).is_err()));
                        last = Some(translation.clone());
                        publish(follower.state.objects(), translation);
                    }
                    follower.gather.published(begun, Instant::now());
                }
                _ = tick.tick() => {
                    follower.health.tick(follower.published);
                    if patience.is_some_and(|until| Instant::now() > until) {
                        patience = None;
                        follower.say_what_is_missing();
                    }
                }
                () = self.asked.wanted(), if follower.published => self.asked.answer(follower.state.objects()),
                Some((kind, heard)) = follower.watches.next() => follower.hear(kind, heard),
                Some(found) = follower.discovery.next() => follower.find(found),
            }
        }
    }
}

impl Source for KubernetesSource {
    async fn run(
        self,
        mut publish: impl FnMut(Translation) + Send,
        cancel: CancellationToken,
    ) -> Result<(), SourceError> {
        self.follow(|_, translation| publish(translation), cancel).await
    }
}

/// Everything that is heard, and what it makes.
struct Follower {
    client: Client,
    root_namespace: Str,
    discovery: BoxStream<'static, Found>,
    watches: SelectAll<BoxStream<'static, (Kind, Heard)>>,
    /// What is watched; dropping an entry ends its watch.
    watched: BTreeMap<Kind, (ApiResource, DropGuard)>,
    /// It is known which kinds there are.
    discovered: bool,
    state: State,
    health: Health,
    gather: Gather,
    published: bool,
}

impl Follower {
    fn new(client: Client, root_namespace: Str, last_read: LastRead) -> Self {
        Self {
            discovery: discover(client.clone()),
            client,
            root_namespace,
            watches: SelectAll::new(),
            watched: BTreeMap::new(),
            discovered: false,
            state: State::default(),
            health: Health::new(last_read),
            gather: Gather::default(),
            published: false,
        }
    }

    fn find(&mut self, found: Found) {
        let (served, whole, gone) = match found {
            Found::Served { served, whole, gone } => (served, whole, gone),
            Found::Failed(error) => return self.health.failed("discovery", &error),
        };
        self.health.succeeded("discovery");
        self.discovered |= whole;
        for kind in gone {
            if self.watched.remove(&kind).is_none() {
                continue;
            }
            tracing::warn!(%kind, "the API server does not serve this kind any more; its objects are dropped");
            self.state.forget(kind);
            self.health.forget(kind.name());
            self.gather();
        }
        for (kind, resource) in served {
            if self.watched.get(&kind).is_some_and(|(known, _)| *known == resource) {
                continue;
            }
            tracing::debug!(%kind, version = resource.api_version, "watching");
            let stop = CancellationToken::new();
            let objects = Selected { kind, root_namespace: self.root_namespace.clone() };
            let heard = watch(self.client.clone(), objects, resource.clone(), stop.clone());
            self.watches.push(heard.map(move |heard| (kind, heard)).boxed());
            self.watched.insert(kind, (resource, stop.drop_guard()));
            self.state.expect(kind);
        }
        // The last answer that was waited for may be this one.
        self.gather();
    }

    fn hear(&mut self, kind: Kind, heard: Heard) {
        if let Heard::Failed(error) = heard {
            return self.health.failed(kind.name(), &error);
        }
        if !matches!(heard, Heard::Start) {
            self.health.succeeded(kind.name());
        }
        let Some((resource, _)) = self.watched.get(&kind) else { return };
        match heard {
            Heard::Start => self.state.start(kind),
            Heard::Done => self.state.done(kind),
            Heard::Listed(object) | Heard::Changed(object) => {
                if !self.state.knows(kind, &object.key(kind), object.version()) {
                    let read = object.read(kind, &resource.api_version);
                    self.state.apply(kind, read);
                }
            }
            Heard::Deleted(object) => self.state.delete(kind, object.key(kind)),
            Heard::Failed(_) => {}
        }
        self.gather();
    }

    /// Sees to it that what changed is published, once it is quiet.
    fn gather(&mut self) {
        let (now, tenants) = (Instant::now(), self.state.take_tenants());
        if self.published {
            return tenants.iter().for_each(|tenant| self.gather.changed(tenant, now));
        }
        // The first state is published also when there is no object at all.
        if self.discovered && self.state.missing().next().is_none() {
            self.published = true;
            self.gather.changed(&Str::default(), now);
        }
    }

    fn say_what_is_missing(&self) {
        if self.published {
            return;
        }
        let missing: Vec<_> = self.state.missing().map(Kind::name).collect();
        tracing::warn!(
            missing = missing.join(", "),
            discovered = self.discovered,
            "still waiting for the API server's first answers; check that the agent's service account may list and \
             watch these kinds. Without discovery, a policy's CustomResourceDefinition is there, and the server does not \
             serve it in a version that is read"
        );
    }
}
