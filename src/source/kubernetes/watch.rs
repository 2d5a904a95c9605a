//! One watch: list, then follow, for as long as it takes. Errors are told and tried again with growing pauses. That a
//! connection ends which has lived for a while is no error, if the next one is made.

use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt, unfold};
use kube::core::ApiResource;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::object::{Raw, Shaped};
use super::shape::{self, Shape};
use crate::source::objects::Kind;

/// Between tries that fail; doubles up to [`PAUSE_AT_MOST`]. Agents of a whole cluster try at once, so each takes
/// between half and all of it.
const PAUSE: Duration = Duration::from_millis(200);
pub(super) const PAUSE_AT_MOST: Duration = Duration::from_secs(5);
/// A watch that breaks after this time had been well: servers restart, load balancers and our own limit cut what is silent,
/// and of a kind that never changed a server sends no bookmarks.
const LIVED: Duration = Duration::from_secs(10);
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

struct Watch {
    client: Client,
    kind: Kind,
    resource: ApiResource,
    config: Config,
    events: Events,
    failures: u32,
    /// When the server was last asked, or said something.
    well: Instant,
    /// A whole list has been read.
    listed: bool,
}

/// Watches all objects of a kind until `stop`.
pub(super) fn watch(
    client: Client,
    kind: Kind,
    resource: ApiResource,
    stop: CancellationToken,
) -> BoxStream<'static, Heard> {
    let config = Config { page_size: Some(PAGE), ..selection(kind) }.streaming_lists();
    let watch = Watch::new(client, kind, resource, config);
    let heard = unfold(watch, |mut watch| async {
        let heard = watch.next().await;
        Some((heard, watch))
    });
    heard.take_until(stop.cancelled_owned()).boxed()
}

/// Which objects of a kind matter: what the server leaves out costs neither side anything.
fn selection(kind: Kind) -> Config {
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
    fn new(client: Client, kind: Kind, resource: ApiResource, config: Config) -> Self {
        let events = events(&client, kind, &resource, &config);
        let well = Instant::now();
        Self { client, kind, resource, config, events, failures: 0, well, listed: false }
    }

    /// In place of one that ended or does not work.
    fn anew(&self, config: Config) -> Self {
        Watch::new(self.client.clone(), self.kind, self.resource.clone(), config)
    }

    async fn next(&mut self) -> Heard {
        loop {
            if self.failures > 0 {
                sleep(pause(self.failures)).await;
                self.well = Instant::now();
            }
            let Some(event) = self.events.next().await else {
                // Watchers do not end; should one, another takes over.
                *self = self.anew(self.config.clone());
                continue;
            };
            match event {
                // Said before anything was asked.
                Ok(Event::Init) => return Heard::Start,
                Ok(event) => {
                    self.failures = 0;
                    self.well = Instant::now();
                    self.listed |= matches!(event, Event::InitDone);
                    return heard(event);
                }
                Err(error) if self.streams() && !self.listed && is_no_streaming(&error) => {
                    let config = Config {
                        initial_list_strategy: watcher::InitialListStrategy::ListWatch,
                        ..self.config.clone()
                    };
                    *self = self.anew(config);
                }
                Err(error) if self.listed && is_end(&error, self.well.elapsed()) => {
                    tracing::debug!(kind = self.resource.kind, %error, "a watch ended and goes on");
                    self.failures = 1;
                }
                Err(error) => {
                    self.failures = self.failures.saturating_add(1);
                    return Heard::Failed(error);
                }
            }
        }
    }

    fn streams(&self) -> bool {
        self.config.initial_list_strategy == watcher::InitialListStrategy::StreamingList
    }
}

/// Whether a watch that was well for so long has merely come to its end. Should the next one not be made, that is told.
pub fn is_end(error: &watcher::Error, well: Duration) -> bool {
    match error {
        watcher::Error::WatchFailed(kube::Error::Api(_)) => false,
        watcher::Error::WatchFailed(_) => well >= LIVED,
        // It asks for more than the server still knows: begun anew.
        watcher::Error::WatchError(status) => status.code == 410 && well >= LIVED,
        _ => false,
    }
}

/// What the server tells of a kind, in the kind's shape.
fn events(client: &Client, kind: Kind, resource: &ApiResource, config: &Config) -> Events {
    match kind {
        Kind::Pod => events_of::<shape::Pods>(client, resource, config),
        Kind::Node => events_of::<shape::Labels>(client, resource, config),
        Kind::Namespace => events_of::<shape::Annotated>(client, resource, config),
        Kind::EndpointSlice => events_of::<shape::Slice>(client, resource, config),
        // What they say is not carried out, so that no change of it is one.
        kind if kind.is_unserved() && !kind.restricts() => {
            events_of::<shape::Labels>(client, resource, config)
        }
        _ => events_of::<shape::Strict>(client, resource, config),
    }
}

fn events_of<S: Shape>(client: &Client, resource: &ApiResource, config: &Config) -> Events {
    let api: Api<Shaped<S>> = Api::all_with(client.clone(), resource);
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

fn pause(failures: u32) -> Duration {
    let full = PAUSE.saturating_mul(1 << (failures - 1).min(10)).min(PAUSE_AT_MOST);
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use futures_util::future::BoxFuture;
    use futures_util::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use kube::core::GroupVersionKind;
    use parking_lot::Mutex;
    use tokio::time::timeout;
    use tonic::codegen::Service;

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
        let mut watch = watch(client, Kind::Node, resource, CancellationToken::new());
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

    #[test]
    fn a_watch_that_breaks_at_once_or_is_refused_is_a_failure() {
        let broken =
            || watcher::Error::WatchFailed(kube::Error::ReadEvents(io::Error::other("cut")));
        assert!(!is_end(&broken(), Duration::from_secs(1)) && is_end(&broken(), LIVED));
        let refused = kube::core::Status::failure("no", "Forbidden").with_code(403);
        let refused = watcher::Error::WatchFailed(kube::Error::Api(Box::new(refused)));
        assert!(!is_end(&refused, LIVED));
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        for (failures, most) in [(1, 200), (2, 400), (3, 800), (6, 5000), (60, 5000)] {
            let pause = pause(failures).as_millis();
            assert!((most / 2..=most).contains(&pause), "{failures}: {pause}");
        }
    }
}
