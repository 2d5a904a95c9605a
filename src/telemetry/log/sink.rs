//! From all threads to one writer: a bounded queue, batches, and lines that are dropped rather than waited for.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

/// Lines that wait for the writer: ztunnel's number. ztunnel's data path waits for a place, ours does not: a reader of
/// the log that stands still must not stop the traffic.
const QUEUE: usize = 10_000;

/// Bytes that are written at once at the most: the size of a pipe.
const BATCH: usize = 64 * 1024;

/// How long the writer rests when it has written all there was. To wake a thread costs whoever sends more than to write the
/// line, so that under load nobody wakes it; who reads a log does not notice.
const REST: Duration = Duration::from_millis(5);

/// How often a full queue is tried again by [`Sink::flush`].
const FLUSH_PAUSE: Duration = Duration::from_millis(5);

pub(super) struct Sink {
    queue: SyncSender<Message>,
    bytes: Arc<AtomicUsize>,
    /// What `bytes` may be.
    max_bytes: usize,
    metrics: LogMetrics,
}

metrics! {
    /// Counters of lines; cheap to clone.
    pub(in crate::telemetry) struct LogMetrics {
        /// Lines of the log that were dropped because they could not be written fast enough.
        pub(super) dropped: Counter = "isthmus_log_lines_dropped";
        /// Lines of the log that wait to be written; what comes when 10 000 wait, or [log] max_queued_bytes, is dropped.
        pub(super) waiting: Gauge = "isthmus_log_lines_waiting";
    }
}

impl LogMetrics {
    pub(in crate::telemetry) fn register(&self, registry: &mut Registry) {
        self.register_rows(registry);
    }
}

/// What was sent and not written yet.
struct Unwritten {
    lines: Gauge,
    bytes: Arc<AtomicUsize>,
}

enum Message {
    Line(String),
    /// Everything before it is written when this is dropped.
    Flush(SyncSender<()>),
}

impl Sink {
    /// Starts the writer; it ends with the sink.
    pub(super) fn new(output: Box<dyn Write + Send>, max_bytes: usize) -> io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE);
        let bytes = Arc::<AtomicUsize>::default();
        let metrics = LogMetrics::default();
        let unwritten = Unwritten { lines: metrics.waiting.clone(), bytes: bytes.clone() };
        let lost = metrics.dropped.clone();
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&lines, output, &lost, &unwritten))?;
        Ok(Self { queue, bytes, max_bytes, metrics })
    }

    /// A sink without a writer.
    pub(super) fn closed() -> Self {
        let (queue, _) = sync_channel(1);
        Self { queue, bytes: Arc::default(), max_bytes: 0, metrics: LogMetrics::default() }
    }

    /// Never waits.
    pub(super) fn send(&self, line: String) {
        // Before it is sent, for the writer may be quicker than what follows.
        self.metrics.waiting.inc();
        let held = line.capacity();
        let before = self.bytes.fetch_add(held, Ordering::Relaxed);
        if before + held > self.max_bytes || self.queue.try_send(Message::Line(line)).is_err() {
            self.bytes.fetch_sub(held, Ordering::Relaxed);
            self.metrics.waiting.dec();
            self.metrics.dropped.inc();
        }
    }

    pub(super) fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let (done, written) = sync_channel(0);
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(message) {
            if Instant::now() >= deadline {
                return;
            }
            message = back;
            std::thread::sleep(FLUSH_PAUSE);
        }
        // Ends with an error when the writer drops the other end: that is the answer.
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }

    pub(super) fn metrics(&self) -> &LogMetrics {
        &self.metrics
    }
}

fn write_all(
    lines: &Receiver<Message>,
    mut output: Box<dyn Write + Send>,
    lost: &Counter,
    unwritten: &Unwritten,
) {
    let mut batch = String::with_capacity(BATCH);
    // The last line stands there in part: what comes next must not be taken for its end.
    let mut torn = false;
    while let Ok(first) = lines.recv() {
        let mut waiting = Vec::new();
        if torn {
            batch.push('\n');
        }
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => {
                    unwritten.lines.dec();
                    unwritten.bytes.fetch_sub(line.capacity(), Ordering::Relaxed);
                    batch.push_str(&line);
                }
                Message::Flush(done) => waiting.push(done),
            }
            next = if batch.len() < BATCH { lines.try_recv().ok() } else { None };
        }
        let is_all = batch.len() < BATCH;
        let ended_before = usize::from(torn);
        let written = write_some(output.as_mut(), batch.as_bytes());
        let (there, missing) = batch.as_bytes().split_at(written);
        // The end of a torn line is no line of its own.
        let uncounted = ended_before.saturating_sub(there.len());
        lost.inc_by((ends(missing).saturating_sub(uncounted)) as u64);
        torn = there.last().map_or(torn, |last| *last != b'\n');
        batch.clear();
        // Who waits for these lines need not wait for the rest too.
        drop(waiting);
        if is_all {
            std::thread::sleep(REST);
        }
    }
}

/// How many lines end in these bytes; line ends within a line are escaped.
fn ends(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// Writes as much as is taken: a disk that is full takes a part of it.
fn write_some(output: &mut dyn Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match output.write(rest) {
            Ok(0) => break,
            Ok(length) => written += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    // What `output` holds back is its own to write again with what comes next.
    _ = output.flush();
    written
}

#[cfg(test)]
mod tests {
    use parking_lot::{Mutex, MutexGuard};

    use super::*;

    /// Collects what is written; nothing can be written while its lock is held.
    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);
    impl Output {
        fn hold(&self) -> MutexGuard<'_, Vec<u8>> {
            self.0.lock()
        }
    }
    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_no_time() {
        let output = Output::default();
        let sink = Sink::new(Box::new(output.clone()), usize::MAX).expect("a thread");
        let held = output.hold();
        let sent = 2 * QUEUE;
        for number in 0..sent {
            sink.send(format!("{number:030}\n"));
        }
        let dropped = usize::try_from(sink.metrics.dropped.get()).expect("small");
        assert!(dropped > 0, "the queue is bounded");
        drop(held);
        sink.flush(Duration::from_secs(10));
        let written = output.hold().iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(written + dropped, sent, "each line is written or counted");
    }

    #[test]
    fn long_lines_take_the_place_of_many() {
        const MAX: usize = 100_000;
        let output = Output::default();
        let sink = Sink::new(Box::new(output.clone()), MAX).expect("a thread");
        let held = output.hold();
        let line = format!("{:0999}\n", 1);
        for _ in 0..1_000 {
            sink.send(line.clone());
        }
        // The writer has taken a batch before it stood still.
        let waiting = usize::try_from(sink.metrics.waiting.get()).expect("small") * line.len();
        assert!((MAX - line.len()..=MAX).contains(&waiting), "{waiting} bytes wait");
        assert!(sink.metrics.dropped.get() >= 1_000 - ((MAX + 2 * BATCH) / line.len()) as u64);
        drop(held);
        sink.flush(Duration::from_secs(10));
        assert_eq!(sink.bytes.load(Ordering::Relaxed), 0, "all places are free again");
        sink.send("there is room\n".to_owned());
        sink.flush(Duration::from_secs(10));
        assert!(output.hold().ends_with(b"there is room\n"));
    }

    /// A disk with so much room.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);
    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (written, room) = &mut *self.0.lock();
            let length = bytes.len().min(*room);
            if length == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            written.extend_from_slice(&bytes[..length]);
            *room -= length;
            Ok(length)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_costs_the_lines_that_did_not_fit_and_no_other() {
        let disk = Disk::default();
        let sink = Sink::new(Box::new(disk.clone()), usize::MAX).expect("a thread");
        let send = |text: &str| {
            sink.send(text.to_owned());
            sink.flush(Duration::from_secs(10));
        };
        disk.0.lock().1 = 10;
        send("first\n");
        send("second\n");
        assert_eq!(sink.metrics.dropped.get(), 1, "cut in the middle");
        send("third\n");
        assert_eq!(sink.metrics.dropped.get(), 2);
        disk.0.lock().1 = 1;
        send("fourth\n");
        assert_eq!(sink.metrics.dropped.get(), 3, "there was room for the end of the torn line");
        disk.0.lock().1 = 100;
        send("fifth\n");
        assert_eq!(sink.metrics.dropped.get(), 3);
        let text = String::from_utf8(disk.0.lock().0.clone()).expect("text");
        assert_eq!(text, "first\nseco\nfifth\n");
    }

    #[test]
    fn a_broken_output_is_counted() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink::new(Box::new(Broken), usize::MAX).expect("a thread");
        sink.send("lost\n".to_owned());
        sink.flush(Duration::from_secs(10));
        assert_eq!(sink.metrics.dropped.get(), 1);
    }
}
