//! What has ended and waits to be exported: bounded, and never waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::span::Finished;

/// How many spans wait at the most: what the OpenTelemetry SDKs keep (`OTEL_BSP_MAX_QUEUE_SIZE`).
pub const MAX_QUEUED: usize = 2_048;

/// The queue of spans; cheap to clone.
#[derive(Clone)]
pub struct Spans(Arc<Queue>);

struct Queue {
    sender: Sender<Box<Finished>>,
    receiver: Mutex<Option<Receiver<Box<Finished>>>>,
    /// Somebody exports them.
    taken: AtomicBool,
}

impl Default for Spans {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED);
        let (receiver, taken) = (Mutex::new(Some(receiver)), AtomicBool::new(false));
        Self(Arc::new(Queue { sender, receiver, taken }))
    }
}

impl Spans {
    /// Puts a span into the queue, or drops it when the queue is full or nobody exports; then it is false.
    pub fn offer(&self, span: Box<Finished>) -> bool {
        self.0.taken.load(Ordering::Relaxed) && self.0.sender.try_send(span).is_ok()
    }

    /// The other end, once: for the exporter.
    pub fn receiver(&self) -> Option<Receiver<Box<Finished>>> {
        self.0.taken.store(true, Ordering::Relaxed);
        self.0.receiver.lock().take()
    }
}
