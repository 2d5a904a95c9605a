//! Exports spans and records of the access log to OpenTelemetry collectors, by OTLP over gRPC or HTTP (<https://opentelemetry.io/docs/specs/otlp/>).
//!
//! The [`Exporter`] takes what has ended from the queue of `trace`, and gives it to one task for each collector, which sends batches.
//! All queues are bounded and shared by namespaces, and nobody waits for them: a collector that is away, slow or silent costs what it would get, which is counted, and
//! nothing else. The agent connects from the node, in plaintext. The messages and the gRPC client are those that the OpenTelemetry
//! project generates (`opentelemetry-proto`); its SDK would need a provider with a thread for each workload, since a provider has one
//! resource.

mod collector;
mod encode;
mod logs;
mod send;
mod signal;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::telemetry::{LogRecord, Telemetry};
use crate::trace::{Finished, MAX_QUEUED, Provider, Refused, Sender, queue};
use crate::world::WorldStore;
use collector::Collector;
use signal::Signal;

/// How many collectors are served at a time of those that the mesh's operators configure, who have one or a few; and of those that
/// policies of tenants name.
const MAX_COLLECTORS: usize = 16;
/// Of one tenant.
const MAX_OF_TENANT: usize = 2;

/// How long the last batches may take when the agent ends.
const FLUSH: Duration = Duration::from_secs(2);

/// Takes spans and records to collectors.
pub struct Exporter {
    outlet: Outlet,
    spans: Collectors<Finished>,
    records: Collectors<LogRecord>,
}

/// What all collectors share.
struct Outlet {
    world: Arc<WorldStore>,
    telemetry: Telemetry,
    tasks: JoinSet<()>,
}

/// By provider. Those that have had nothing to do have ended.
struct Collectors<S>(HashMap<Arc<Provider>, Sender<Arc<S>>>);

/// One that is to be exported.
enum Ended {
    Span(Box<Finished>),
    Record(Box<LogRecord>),
}

impl Exporter {
    pub fn new(world: Arc<WorldStore>, telemetry: Telemetry) -> Self {
        Self {
            outlet: Outlet { world, telemetry, tasks: JoinSet::new() },
            spans: Collectors(HashMap::new()),
            records: Collectors(HashMap::new()),
        }
    }

    /// Exports until it is told to end, and then what is left.
    pub async fn run(mut self, cancel: CancellationToken) {
        let telemetry = &self.outlet.telemetry;
        let (spans, records) = (telemetry.spans().receiver(), telemetry.records().receiver());
        let (Some(mut spans), Some(mut records)) = (spans, records) else { return };
        loop {
            let ended = tokio::select! {
                span = spans.recv() => span.map(Ended::Span),
                record = records.recv() => record.map(Ended::Record),
                () = cancel.cancelled() => None,
            };
            let Some(ended) = ended else { break };
            self.hand_out(ended);
            while self.outlet.tasks.try_join_next().is_some() {}
        }
        while let Ok(span) = spans.try_recv() {
            self.hand_out(Ended::Span(span));
        }
        while let Ok(record) = records.try_recv() {
            self.hand_out(Ended::Record(record));
        }
        self.spans.0.clear();
        self.records.0.clear();
        let tasks = &mut self.outlet.tasks;
        let all_sent = async { while tasks.join_next().await.is_some() {} };
        _ = tokio::time::timeout(FLUSH, all_sent).await;
    }

    fn hand_out(&mut self, ended: Ended) {
        match ended {
            Ended::Span(span) => {
                let span = Arc::new(*span);
                for provider in &*span.span.tracing.providers {
                    self.spans.give(&mut self.outlet, provider, &span);
                }
            }
            Ended::Record(record) => {
                let record = Arc::new(*record);
                self.records.give(&mut self.outlet, &record.provider, &record);
            }
        }
    }
}

impl<S: Signal> Collectors<S> {
    /// Gives it to the collector's task, or drops it when that has too many.
    fn give(&mut self, outlet: &mut Outlet, provider: &Arc<Provider>, it: &Arc<S>) {
        if !self.offer(outlet, provider, it) {
            S::metrics(&outlet.telemetry).queue.inc();
        }
    }

    fn offer(&mut self, outlet: &mut Outlet, provider: &Arc<Provider>, it: &Arc<S>) -> bool {
        if let Some(sender) = self.0.get(provider) {
            match sender.offer(it.tenant(), it.clone()) {
                Ok(()) => return true,
                Err(Refused::Full) => return false,
                // It was idle and has ended.
                Err(Refused::Closed) => {}
            }
        }
        self.0.retain(|_, sender| !sender.is_closed());
        if !self.has_room(provider) {
            return false;
        }
        let (sender, receiver) = queue(MAX_QUEUED);
        let Outlet { world, telemetry, tasks } = outlet;
        let metrics = S::metrics(telemetry).clone();
        tasks.spawn(Collector::new(provider.clone(), world.clone(), metrics).run::<S>(receiver));
        let taken = sender.offer(it.tenant(), it.clone()).is_ok();
        self.0.insert(provider.clone(), sender);
        taken
    }

    /// A tenant's collectors take the place of nobody else's.
    fn has_room(&self, provider: &Provider) -> bool {
        let count = |of: &dyn Fn(&Provider) -> bool| self.0.keys().filter(|it| of(it)).count();
        match &provider.tenant {
            None => count(&|it| it.tenant.is_none()) < MAX_COLLECTORS,
            Some(_) => {
                count(&|it| it.tenant == provider.tenant) < MAX_OF_TENANT
                    && count(&|it| it.tenant.is_some()) < MAX_COLLECTORS
            }
        }
    }
}

#[cfg(test)]
mod tests;
