//! Watches the kinds that statuses are written for or depend on, and no others: one watch per kind, as long as the server serves
//! it.

use std::time::Duration;

use futures_util::stream::{BoxStream, SelectAll, StreamExt, unfold};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client, discovery};
use serde_json::Value;
use tokio::time::sleep;

use super::SubjectKind;
use crate::base::Str;
use crate::source::kubernetes::{Followed, RETRY};
use crate::source::objects::Kind;

/// How often the agent checks whether the server serves a missing kind.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The same for unsupported kinds, which most clusters do not have.
const LOOK_SELDOM: Duration = Duration::from_secs(30);
/// The page size of lists.
const PAGE: u32 = 250;

/// An event of a watch. `Start` is followed by all existing objects, then `Done`, then changes.
#[derive(Debug)]
pub(super) enum Heard {
    /// The server does not serve the kind, or no longer does.
    Absent,
    Start,
    Object(Value),
    Done,
    Deleted(Value),
    /// Will be retried automatically.
    Failed(String),
}

pub(super) type Feeds = SelectAll<BoxStream<'static, (SubjectKind, Heard)>>;

/// Watches every kind.
pub(super) fn feeds(client: &Client, root_namespace: &Str) -> Feeds {
    let feeds = SubjectKind::read().map(|watched| {
        let (client, root_namespace) = (client.clone(), root_namespace.clone());
        let feed = Feed { client, root_namespace, watched, step: Step::Look, failures: 0 };
        let heard = unfold(feed, |mut feed| async {
            let heard = feed.next().await;
            Some((heard, feed))
        });
        heard.map(move |heard| (watched, heard)).boxed()
    });
    feeds.collect()
}

struct Feed {
    client: Client,
    /// Where the only object of a kind is.
    root_namespace: Str,
    watched: SubjectKind,
    step: Step,
    /// To learn where the kind is served, in a row.
    failures: u32,
}

enum Step {
    Look,
    /// Not served; checked from time to time.
    Wait,
    Watch(ApiResource, Followed<DynamicObject>),
}

impl Feed {
    async fn next(&mut self) -> Heard {
        loop {
            if self.failures > 0 {
                sleep(RETRY.after(self.failures)).await;
            }
            match &mut self.step {
                Step::Watch(resource, events) => match events.next().await {
                    Ok(event) => return heard(resource, event),
                    Err(error) if is_missing(&error) => self.step = Step::Look,
                    // It tries again by itself.
                    Err(error) => return Heard::Failed(error.to_string()),
                },
                Step::Wait => {
                    sleep(look_every(self.watched).mul_f64(0.5 + fastrand::f64())).await;
                    match look(&self.client, self.watched).await {
                        Ok(Some(resource)) => self.watch(resource),
                        Ok(None) => {}
                        Err(error) => return self.failed(&error),
                    }
                }
                Step::Look => match look(&self.client, self.watched).await {
                    Ok(Some(resource)) => self.watch(resource),
                    Ok(None) => {
                        self.failures = 0;
                        self.step = Step::Wait;
                        return Heard::Absent;
                    }
                    Err(error) => return self.failed(&error),
                },
            }
        }
    }

    fn failed(&mut self, error: &dyn std::error::Error) -> Heard {
        self.failures = self.failures.saturating_add(1);
        Heard::Failed(error.to_string())
    }

    fn watch(&mut self, resource: ApiResource) {
        let client = self.client.clone();
        let config = Config { page_size: Some(PAGE), ..Config::default() };
        let (api, config): (Api<DynamicObject>, Config) = match self.watched.only() {
            Some(name) => (
                Api::namespaced_with(client, &self.root_namespace, &resource),
                config.fields(&format!("metadata.name={name}")),
            ),
            None => (Api::all_with(client, &resource), config),
        };
        let events = Followed::new(move || watcher(api.clone(), config.clone()).boxed());
        self.failures = 0;
        self.step = Step::Watch(resource, events);
    }
}

fn look_every(watched: SubjectKind) -> Duration {
    match watched.kind().is_some_and(Kind::is_unserved) {
        true => LOOK_SELDOM,
        false => LOOK_EVERY,
    }
}

/// Where the kind is served, in the best supported version.
async fn look(client: &Client, watched: SubjectKind) -> Result<Option<ApiResource>, kube::Error> {
    for version in watched.versions() {
        let kind = GroupVersionKind::gvk(watched.group(), version, watched.name());
        match discovery::pinned_kind(client, &kind).await {
            Ok((resource, _)) => return Ok(Some(resource)),
            Err(kube::Error::Discovery(_)) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn heard(resource: &ApiResource, event: Event<DynamicObject>) -> Heard {
    match event {
        Event::Init => Heard::Start,
        Event::InitApply(object) | Event::Apply(object) => Heard::Object(value(resource, object)),
        Event::InitDone => Heard::Done,
        Event::Delete(object) => Heard::Deleted(value(resource, object)),
    }
}

/// The items of a list do not name their kind.
pub(super) fn value(resource: &ApiResource, object: DynamicObject) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        fields.insert("apiVersion".into(), resource.api_version.as_str().into());
        fields.insert("kind".into(), resource.kind.as_str().into());
    }
    value
}

/// Whether the server no longer serves the kind.
fn is_missing(error: &watcher::Error) -> bool {
    let cause = match error {
        watcher::Error::InitialListFailed(cause)
        | watcher::Error::WatchStartFailed(cause)
        | watcher::Error::WatchFailed(cause) => cause,
        _ => return false,
    };
    matches!(cause, kube::Error::Api(status) if status.code == 404)
}
