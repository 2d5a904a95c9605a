//! Following the installation's own objects for as long as the agent runs: removing everything removes the agent's
//! rights too, perhaps first, and then nobody could ask any more. A watch that is open stays open, so the deletion is
//! heard all the same.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::judge::{Facts, Heard, Known, removed};
use crate::app::pod::namespace;
use crate::base::Seldom;
use crate::config::Settings;
use crate::source::kubernetes::Followed;
use crate::source::{self, SourceError};

/// The DaemonSet that owns the agent's pod.
const DAEMON_SET: &str = "isthmus";
/// Between two attempts to make a client: its files may be replaced just now.
const PAUSE: Duration = Duration::from_secs(5);

/// What is known of the installation.
#[derive(Clone)]
pub(in crate::app) struct Removal {
    pub(super) settings: Settings,
    facts: Arc<watch::Sender<Facts>>,
}

/// The part of [`Facts`] that one object is.
type Part = fn(&mut Facts) -> &mut Known;

impl Removal {
    pub(super) fn new(settings: &Settings) -> Self {
        let facts = Arc::new(watch::Sender::new(Facts::default()));
        Self { settings: settings.clone(), facts }
    }

    async fn client(&self) -> Result<Client, SourceError> {
        source::client(self.settings.source.kubeconfig.as_deref()).await
    }

    /// Follows both objects until cancelled.
    pub(super) async fn follow(self, cancel: CancellationToken) {
        let following = Box::pin(async {
            let client = loop {
                match self.client().await {
                    Ok(client) => break client,
                    Err(_) => sleep(PAUSE).await,
                }
            };
            let namespace = namespace();
            let sets: Api<PartialObjectMeta<DaemonSet>> =
                Api::namespaced(client.clone(), &namespace);
            let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(client);
            let (set, own) = (named(DAEMON_SET), named(&namespace));
            let sets = Followed::new(move || watcher(sets.clone(), set.clone()).boxed());
            let namespaces =
                Followed::new(move || watcher(namespaces.clone(), own.clone()).boxed());
            tokio::join!(
                self.hear(sets, "DaemonSet", |facts| &mut facts.daemon_set),
                self.hear(namespaces, "namespace", |facts| &mut facts.namespace),
            );
        });
        _ = cancel.run_until_cancelled(following).await;
    }

    async fn hear<K>(&self, mut events: Followed<PartialObjectMeta<K>>, what: &str, part: Part) {
        let trouble = Seldom::new();
        let mut listed = false;
        loop {
            let heard = match &events.next().await {
                Ok(Event::Init) => {
                    listed = false;
                    None
                }
                Ok(Event::InitApply(object)) => {
                    listed = true;
                    Some(Heard::of(object))
                }
                Ok(Event::InitDone) => (!listed).then_some(Heard::Missing),
                Ok(Event::Apply(object)) => Some(Heard::of(object)),
                Ok(Event::Delete(_)) => Some(Heard::Deleted),
                Err(error) => {
                    if trouble.is_due() {
                        tracing::warn!(
                            %error,
                            "the agent's {what} cannot be watched for now; a removal that is not noticed leaves the pods of \
                             this node captured. If it stays so, check the roles named isthmus"
                        );
                    }
                    None
                }
            };
            self.take(part, heard);
        }
    }

    fn take(&self, part: Part, heard: Option<Heard>) {
        let Some(heard) = heard else { return };
        self.facts.send_modify(|facts| {
            let known = part(facts);
            *known = known.after(heard);
        });
    }

    /// Asks once more, for what no watch has told yet.
    pub(super) async fn ask(&self) -> anyhow::Result<()> {
        let namespace = namespace();
        let client = self.client().await?;
        let sets: Api<DaemonSet> = Api::namespaced(client.clone(), &namespace);
        let namespaces: Api<Namespace> = Api::all(client);
        let asked = sets.get_metadata(DAEMON_SET).await;
        self.take(|facts| &mut facts.daemon_set, Heard::answer(&asked));
        if matches!(&asked, Err(kube::Error::Api(status)) if status.code == 404) {
            // A proxy in between may send that; only the server sends a list.
            let by_name = ListParams::default().fields(&format!("metadata.name={DAEMON_SET}"));
            let listed = sets.list_metadata(&by_name).await;
            self.take(|facts| &mut facts.daemon_set, Heard::list(&listed));
        }
        let own = namespaces.get_metadata(&namespace).await;
        self.take(|facts| &mut facts.namespace, Heard::answer(&own));
        asked?;
        Ok(())
    }

    /// Why the mesh has been removed, when it has.
    pub(super) fn reason(&self) -> Option<&'static str> {
        removed(*self.facts.borrow())
    }

    /// Waits for that.
    pub(super) async fn seen(&self) -> &'static str {
        let mut facts = self.facts.subscribe();
        loop {
            if let Some(reason) = removed(*facts.borrow_and_update()) {
                return reason;
            }
            if facts.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

fn named(name: &str) -> Config {
    Config::default().fields(&format!("metadata.name={name}"))
}
