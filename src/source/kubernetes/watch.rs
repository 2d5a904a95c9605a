//! One watch: list, then follow, for as long as it takes. Errors are told and tried again with growing pauses.

use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt, unfold};
use kube::core::ApiResource;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::object::Raw;
use crate::source::objects::Kind;

/// Between tries that fail; doubles up to [`PAUSE_AT_MOST`]. Agents of a whole cluster try at once, so each takes
/// between half and all of it.
const PAUSE: Duration = Duration::from_millis(200);
pub(super) const PAUSE_AT_MOST: Duration = Duration::from_secs(5);
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

struct Watch {
    client: Client,
    resource: ApiResource,
    config: Config,
    events: BoxStream<'static, watcher::Result<Event<Raw>>>,
    failures: u32,
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
    let watch = Watch::new(client, resource, config);
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
    fn new(client: Client, resource: ApiResource, config: Config) -> Self {
        let api: Api<Raw> = Api::all_with(client.clone(), &resource);
        let events = watcher(api, config.clone()).boxed();
        Self { client, resource, config, events, failures: 0, listed: false }
    }

    async fn next(&mut self) -> Heard {
        loop {
            if self.failures > 0 {
                sleep(pause(self.failures)).await;
            }
            let Some(event) = self.events.next().await else {
                // Watchers do not end; should one, another takes over.
                *self = Watch::new(self.client.clone(), self.resource.clone(), self.config.clone());
                continue;
            };
            match event {
                // Said before anything was asked.
                Ok(Event::Init) => return Heard::Start,
                Ok(event) => {
                    self.failures = 0;
                    self.listed |= matches!(event, Event::InitDone);
                    return heard(event);
                }
                Err(error) if self.streams() && !self.listed && is_no_streaming(&error) => {
                    let config = Config {
                        initial_list_strategy: watcher::InitialListStrategy::ListWatch,
                        ..self.config.clone()
                    };
                    *self = Watch::new(self.client.clone(), self.resource.clone(), config);
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
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        for (failures, most) in [(1, 200), (2, 400), (3, 800), (6, 5000), (60, 5000)] {
            let pause = pause(failures).as_millis();
            assert!((most / 2..=most).contains(&pause), "{failures}: {pause}");
        }
    }
}
