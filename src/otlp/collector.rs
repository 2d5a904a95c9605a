//! One collector: batches of spans, where to send them, and what becomes of them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::send;
use super::signal::Signal;
use crate::base::{Backoff, Seldom, reachable};
use crate::telemetry::ExportMetrics;
use crate::trace::{Provider, Receiver};
use crate::world::WorldStore;

/// How many spans one export has at the most: what the SDKs send (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`).
const BATCH: usize = 512;

/// How long a span waits for others: less than the SDKs' 5 s, so that a trace is seen soon.
const DELAY: Duration = Duration::from_secs(1);

/// A collector that gets nothing for so long is forgotten.
const IDLE: Duration = Duration::from_secs(300);

/// How often a batch is sent; meanwhile, what ends waits in the queue.
const ATTEMPTS: u32 = 3;

/// The pauses between.
const BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(500), Duration::from_secs(5)).spread(0.5..=1.0);

/// Sends batches to one collector, one after the other.
pub(super) struct Collector {
    provider: Arc<Provider>,
    world: Arc<WorldStore>,
    metrics: ExportMetrics,
    trouble: Seldom,
}

impl Collector {
    pub(super) fn new(
        provider: Arc<Provider>,
        world: Arc<WorldStore>,
        metrics: ExportMetrics,
    ) -> Self {
        Self { provider, world, metrics, trouble: Seldom::new() }
    }

    /// Until nothing comes for a while, or ever.
    pub(super) async fn run<S: Signal>(self, mut ended: Receiver<Arc<S>>) {
        loop {
            let first = match timeout(IDLE, ended.recv()).await {
                Ok(Some(first)) => first,
                Ok(None) => return,
                Err(_) => {
                    // What was given meanwhile still comes; then this ends.
                    ended.close();
                    continue;
                }
            };
            let mut batch = Vec::with_capacity(BATCH);
            batch.push(first);
            let due = Instant::now() + DELAY;
            while batch.len() < BATCH {
                match timeout_at(due, ended.recv()).await {
                    Ok(Some(one)) => batch.push(one),
                    Ok(None) | Err(_) => break,
                }
            }
            self.export(&batch).await;
        }
    }

    async fn export<S: Signal>(&self, batch: &[Arc<S>]) {
        let request = S::request(batch);
        let count = batch.len() as u64;
        let mut attempt = 1;
        let failed = loop {
            let sent = timeout(self.provider.timeout, self.send::<S>(&request)).await;
            let failed = match sent {
                Ok(Ok(rejected)) => return self.accepted(count, rejected),
                Ok(Err(failed)) => failed,
                Err(_) => send::Failed::Late(self.provider.timeout),
            };
            if attempt == ATTEMPTS || !failed.may_pass() {
                break failed;
            }
            tokio::time::sleep(BACKOFF.after(attempt)).await;
            attempt += 1;
        };
        self.metrics.failed.inc_by(count);
        if self.trouble.is_due() {
            let Provider { name, host, port, .. } = &*self.provider;
            tracing::warn!(
                provider = %name, collector = %format_args!("{host}:{port}"), error = %failed, what = S::NAME, count,
                "what is observed cannot be exported and is dropped; check that the collector runs, receives OTLP by this protocol in \
                 plaintext, and can be reached from the node"
            );
        }
    }

    fn accepted(&self, count: u64, rejected: u64) {
        let rejected = rejected.min(count);
        self.metrics.exported.inc_by(count - rejected);
        self.metrics.rejected.inc_by(rejected);
    }

    /// How many the collector has rejected.
    async fn send<S: Signal>(&self, request: &S::Request) -> Result<u64, send::Failed> {
        let address = self.address().await?;
        send::send::<S>(&self.provider, address, request).await
    }

    /// Where the collector is. That of a tenant is an endpoint of a Service, and nowhere where only the agent may connect to.
    pub(super) async fn address(&self) -> Result<SocketAddr, send::Failed> {
        let Provider { host, namespace, port, tenant, .. } = &*self.provider;
        if tenant.is_none() {
            return self.any_address().await.map_err(send::Failed::Connect);
        }
        let address = self.endpoint(host, namespace.as_deref(), *port);
        let address = address.ok_or(send::Failed::NoEndpoint)?;
        match reachable::refused(address.ip(), &[]) {
            Some(why) => Err(send::Failed::Refused(address.ip(), why)),
            None => Ok(address),
        }
    }

    /// Where the collector is: an endpoint of the Service of that name, or what the node's resolver says.
    async fn any_address(&self) -> io::Result<SocketAddr> {
        let Provider { host, namespace, port, .. } = &*self.provider;
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(ip, *port));
        }
        if let Some(address) = self.endpoint(host, namespace.as_deref(), *port) {
            return Ok(address);
        }
        let found: Vec<SocketAddr> =
            tokio::net::lookup_host((host.as_str(), *port)).await?.collect();
        let one = fastrand::choice(&found).copied();
        one.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
    }

    fn endpoint(&self, host: &str, namespace: Option<&str>, port: u16) -> Option<SocketAddr> {
        let world = self.world.load();
        let service = world
            .services_named(host, namespace)
            .find(|it| namespace.is_none_or(|wanted| it.key.namespace == *wanted))?;
        let endpoints = service.endpoints.iter().filter(|endpoint| endpoint.ready);
        let addresses = endpoints.filter_map(|endpoint| {
            let target = endpoint.ports.iter().find(|it| it.port == port)?.target;
            Some(SocketAddr::new(*endpoint.addresses.first()?, target))
        });
        let addresses: Vec<SocketAddr> = addresses.collect();
        let vip = service.vips.first().map(|vip| SocketAddr::new(*vip, port));
        fastrand::choice(&addresses).copied().or(vip)
    }
}
