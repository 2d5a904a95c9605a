//! Exports spans to OpenTelemetry collectors, by OTLP over gRPC or HTTP (<https://opentelemetry.io/docs/specs/otlp/>).
//!
//! The [`Exporter`] takes what has ended from the queue of `trace`, and gives it to one task for each collector, which sends batches.
//! All queues are bounded and shared by namespaces, and nobody waits for them: a collector that is away, slow or silent costs spans, which are counted, and
//! nothing else. The agent connects from the node, in plaintext. The messages and the gRPC client are those that the OpenTelemetry
//! project generates (`opentelemetry-proto`); its SDK would need a provider with a thread for each workload, since a provider has one
//! resource.

mod collector;
mod encode;
mod send;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::telemetry::{SpanMetrics, Telemetry};
use crate::trace::{Finished, MAX_QUEUED, Provider, Refused, Sender, queue};
use crate::world::WorldStore;
use collector::Collector;

/// How many collectors are served at a time: they are configured by the mesh's operators, who have one or a few.
const MAX_COLLECTORS: usize = 16;

/// How long the last batches may take when the agent ends.
const FLUSH: Duration = Duration::from_secs(2);

/// Takes spans to collectors.
pub struct Exporter {
    world: Arc<WorldStore>,
    telemetry: Telemetry,
    /// By provider. Those that have had nothing to do have ended.
    collectors: HashMap<Arc<Provider>, Sender<Arc<Finished>>>,
    tasks: JoinSet<()>,
}

impl Exporter {
    pub fn new(world: Arc<WorldStore>, telemetry: Telemetry) -> Self {
        Self { world, telemetry, collectors: HashMap::new(), tasks: JoinSet::new() }
    }

    /// Exports until it is told to end, and then what is left.
    pub async fn run(mut self, cancel: CancellationToken) {
        let Some(mut spans) = self.telemetry.spans().receiver() else { return };
        loop {
            let span = tokio::select! {
                span = spans.recv() => span,
                () = cancel.cancelled() => None,
            };
            let Some(span) = span else { break };
            self.hand_out(*span);
            while self.tasks.try_join_next().is_some() {}
        }
        while let Ok(span) = spans.try_recv() {
            self.hand_out(*span);
        }
        self.collectors.clear();
        let all_sent = async { while self.tasks.join_next().await.is_some() {} };
        _ = tokio::time::timeout(FLUSH, all_sent).await;
    }

    fn hand_out(&mut self, span: Finished) {
        let span = Arc::new(span);
        for provider in &*span.span.tracing.providers {
            if !self.offer(provider, &span) {
                self.metrics().queue.inc();
            }
        }
    }

    /// Gives a span to the collector's task, or does not when that has too many.
    fn offer(&mut self, provider: &Arc<Provider>, span: &Arc<Finished>) -> bool {
        if let Some(sender) = self.collectors.get(provider) {
            match sender.offer(&span.tenant, span.clone()) {
                Ok(()) => return true,
                Err(Refused::Full) => return false,
                // It was idle and has ended.
                Err(Refused::Closed) => {}
            }
        }
        self.collectors.retain(|_, sender| !sender.is_closed());
        if self.collectors.len() >= MAX_COLLECTORS {
            return false;
        }
        let (sender, receiver) = queue(MAX_QUEUED);
        let collector =
            Collector::new(provider.clone(), self.world.clone(), self.metrics().clone());
        self.tasks.spawn(collector.run(receiver));
        let taken = sender.offer(&span.tenant, span.clone()).is_ok();
        self.collectors.insert(provider.clone(), sender);
        taken
    }

    fn metrics(&self) -> &SpanMetrics {
        self.telemetry.span_metrics()
    }
}

#[cfg(test)]
mod tests;
