//! One watch of a kind: which objects, in which shape, and how the server lists them.

use futures_util::stream::{BoxStream, StreamExt, unfold};
use kube::core::ApiResource;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use super::followed::Followed;
use super::object::{Raw, Shaped};
use super::shape::{self, Shape};
use crate::base::Str;
use crate::source::objects::Kind;

/// How many objects one page of a list has, where the server has no streaming lists: bounds what is held twice.
const PAGE: u32 = 250;

/// What a watch tells. After `Start` follow all objects that there are, then `Done`, then changes; another `Start`
/// begins anew.
#[derive(Debug)]
pub(super) enum Heard {
    Start,
    Listed(Raw),
    Done,
    Changed(Raw),
    Deleted(Raw),
    Failed(watcher::Error),
}

type Events = BoxStream<'static, watcher::Result<Event<Raw>>>;

/// The objects of a kind that matter.
#[derive(Clone)]
pub(super) struct Selected {
    pub(super) kind: Kind,
    /// Where the only object of a kind is, if the kind's row names one.
    pub(super) root_namespace: Str,
}

#[cfg(test)]
impl Selected {
    pub(super) fn all_of(kind: Kind) -> Self {
        Self { kind, root_namespace: Str::default() }
    }
}

struct Watch {
    client: Client,
    objects: Selected,
    resource: ApiResource,
    config: Config,
    events: Followed<Raw>,
}

/// Watches the objects of a kind that matter until `stop`.
pub(super) fn watch(
    client: Client,
    objects: Selected,
    resource: ApiResource,
    stop: CancellationToken,
) -> BoxStream<'static, Heard> {
    let config = Config { page_size: Some(PAGE), ..selection(objects.kind) }.streaming_lists();
    let watch = Watch::new(client, objects, resource, config);
    let heard = unfold(watch, |mut watch| async {
        let heard = watch.next().await;
        Some((heard, watch))
    });
    heard.take_until(stop.cancelled_owned()).boxed()
}

/// Which objects of a kind matter: what the server leaves out costs neither side anything.
fn selection(kind: Kind) -> Config {
    if let Some(name) = kind.row().only {
        return Config::default().fields(&format!("metadata.name={name}"));
    }
    match kind {
        // Finished pods have given their addresses back.
        Kind::Pod => Config::default().fields("status.phase!=Succeeded,status.phase!=Failed"),
        // The endpoints of a Service with a selector follow from the pods themselves. These are the others', made by
        // hand, by other controllers, or mirrored from Endpoints.
        Kind::EndpointSlice => Config::default()
            .labels("endpointslice.kubernetes.io/managed-by!=endpointslice-controller.k8s.io"),
        _ => Config::default(),
    }
}

impl Watch {
    fn new(client: Client, objects: Selected, resource: ApiResource, config: Config) -> Self {
        let (asked, what) = (client.clone(), objects.clone());
        let (wanted, how) = (resource.clone(), config.clone());
        let events = Followed::new(move || events(&asked, &what, &wanted, &how));
        Self { client, objects, resource, config, events }
    }

    async fn next(&mut self) -> Heard {
        loop {
            match self.events.next().await {
                Ok(event) => return heard(event),
                Err(error)
                    if self.streams() && !self.events.listed() && is_no_streaming(&error) =>
                {
                    let initial_list_strategy = watcher::InitialListStrategy::ListWatch;
                    let config = Config { initial_list_strategy, ..self.config.clone() };
                    let (client, resource) = (self.client.clone(), self.resource.clone());
                    *self = Watch::new(client, self.objects.clone(), resource, config);
                }
                Err(error) => return Heard::Failed(error),
            }
        }
    }

    fn streams(&self) -> bool {
        self.config.initial_list_strategy == watcher::InitialListStrategy::StreamingList
    }
}

/// What the server tells of a kind, in the kind's shape.
fn events(client: &Client, objects: &Selected, resource: &ApiResource, config: &Config) -> Events {
    match objects.kind {
        Kind::Pod => events_of::<shape::Pods>(client, objects, resource, config),
        Kind::Node => events_of::<shape::Labels>(client, objects, resource, config),
        Kind::Namespace => events_of::<shape::Annotated>(client, objects, resource, config),
        Kind::EndpointSlice => events_of::<shape::Slice>(client, objects, resource, config),
        // What they say is not carried out, so that no change of it is one.
        kind if kind.is_unserved() && !kind.restricts() => {
            events_of::<shape::Labels>(client, objects, resource, config)
        }
        _ => events_of::<shape::Strict>(client, objects, resource, config),
    }
}

fn events_of<S: Shape>(
    client: &Client,
    objects: &Selected,
    resource: &ApiResource,
    config: &Config,
) -> Events {
    let client = client.clone();
    let api: Api<Shaped<S>> = match objects.kind.row().only {
        Some(_) => Api::namespaced_with(client, &objects.root_namespace, resource),
        None => Api::all_with(client, resource),
    };
    let events = watcher(api, config.clone());
    events.map(|event| event.map(raw)).boxed()
}

fn raw<S>(event: Event<Shaped<S>>) -> Event<Raw> {
    match event {
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(object.raw),
        Event::InitDone => Event::InitDone,
        Event::Apply(object) => Event::Apply(object.raw),
        Event::Delete(object) => Event::Delete(object.raw),
    }
}

fn heard(event: Event<Raw>) -> Heard {
    match event {
        Event::Init => Heard::Start,
        Event::InitApply(object) => Heard::Listed(object),
        Event::InitDone => Heard::Done,
        Event::Apply(object) => Heard::Changed(object),
        Event::Delete(object) => Heard::Deleted(object),
    }
}

/// Older servers, and those with the feature off, refuse `sendInitialEvents` as an invalid parameter; those over an etcd
/// before 3.4.31 accept it and then give an internal error. What has another cause is asked for in the same way again.
fn is_no_streaming(error: &watcher::Error) -> bool {
    let status = match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status,
        watcher::Error::WatchFailed(kube::Error::Api(status)) => status,
        watcher::Error::WatchError(status) => status,
        _ => return false,
    };
    !matches!(status.code, 401 | 403 | 404 | 410 | 429 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;
    use std::sync::Arc;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::future::BoxFuture;
    use futures_util::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use kube::core::GroupVersionKind;
    use parking_lot::Mutex;
    use tokio::time::{sleep, timeout};
    use tonic::codegen::Service;

    use super::super::followed::LIVED;
    use super::*;

    /// A server's answers, one after the other: what a watch says before it breaks off, or no connection. The watch after the
    /// last one is silent.
    #[derive(Clone)]
    struct Server(Arc<Mutex<VecDeque<Option<String>>>>);

    type Body = StreamBody<BoxStream<'static, io::Result<Frame<Bytes>>>>;

    impl Service<http::Request<kube::client::Body>> for Server {
        type Response = http::Response<Body>;
        type Error = io::Error;
        type Future = BoxFuture<'static, io::Result<Self::Response>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<kube::client::Body>) -> Self::Future {
            let next = self.0.lock().pop_front();
            Box::pin(async move {
                let Some(answer) = next else { return std::future::pending().await };
                let text = answer.ok_or_else(|| io::Error::other("refused"))?;
                let said = stream::iter([Ok(Frame::data(Bytes::from(text)))]);
                let broken = stream::once(async {
                    sleep(LIVED).await;
                    Err(io::Error::other("timed out"))
                });
                Ok(http::Response::new(StreamBody::new(said.chain(broken).boxed())))
            })
        }
    }

    /// What is heard of a watch of nodes before it is silent for a minute.
    async fn heard_of(answers: Vec<Option<String>>) -> Vec<String> {
        let kind = GroupVersionKind::gvk("", "v1", "Node");
        let resource = ApiResource::from_gvk_with_plural(&kind, "nodes");
        let client = Client::new(Server(Arc::new(Mutex::new(answers.into()))), "default");
        let mut watch =
            watch(client, Selected::all_of(Kind::Node), resource, CancellationToken::new());
        let mut heard = Vec::new();
        while let Ok(Some(next)) = timeout(Duration::from_secs(60), watch.next()).await {
            let name = format!("{next:?}");
            heard.push(name.split('(').next().unwrap_or_default().to_owned());
        }
        heard
    }

    /// A streaming list of nothing.
    fn listed() -> Option<String> {
        let annotations = serde_json::json!({"k8s.io/initial-events-end": "true"});
        let metadata = serde_json::json!({"resourceVersion": "7", "annotations": annotations});
        let object = serde_json::json!({"kind": "Node", "apiVersion": "v1", "metadata": metadata});
        Some(format!("{}\n", serde_json::json!({"type": "BOOKMARK", "object": object})))
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_ends_after_a_while_is_no_failure() {
        let silent = || Some(String::new());
        let heard = heard_of(vec![listed(), silent(), silent(), silent()]).await;
        assert_eq!(heard, ["Start", "Done"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_cannot_be_made_again_is_a_failure() {
        let heard = heard_of(vec![listed(), None, Some(String::new())]).await;
        assert_eq!(heard, ["Start", "Done", "Failed"]);
    }
}
