//! The log: levels that can be changed at run time, one format for logs and access log, one writer.

mod clock;
mod layer;
mod levels;
mod line;
mod sink;

pub use clock::rfc3339;
pub(super) use clock::write as write_time;
pub use line::MAX_FIELD;
pub(super) use line::{Line, MAX_LINE, quote, write_escaped};

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tracing::Level;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use layer::LogLayer;
use levels::Levels;
use sink::{LogMetrics, Sink};

/// What lines that wait for the writer may hold, in bytes: 10,000 lines of a usual length.
pub const MAX_QUEUED_BYTES: usize = 8 * 1024 * 1024;

/// The target of the access log, as in ztunnel.
pub(super) const ACCESS: &str = "access";
/// The target of what operators change in a running agent. No level silences it: who silences everything else is told.
pub const AUDIT: &str = "audit";

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Time, level, target, message and fields, separated by tabs; fields as `key=value` separated by spaces.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// The levels are not of the form that [`check_levels`] reads, or the log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(
        "{0:?} is not a level; give error, warn, info, debug, trace or off, or a target with a level such as \
         \"access=off\""
    )]
    Level(String),
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(#[source] std::io::Error),
    #[error("cannot write the log to the standard output: {0}")]
    Output(#[source] std::io::Error),
    #[error("the log was set up twice in this process")]
    Twice,
}

/// The log of this process. Writing never waits: lines that the writer cannot keep up with are dropped and counted.
pub struct Logs {
    format: LogFormat,
    levels: ArcSwap<Levels>,
    /// What the settings say.
    initial: Levels,
    sink: Sink,
}

/// Sets up the log of this process on the standard output; `tracing`'s events go there too.
/// `max_queued_bytes`: what lines that wait may hold.
pub fn init_logs(
    levels: &str,
    format: LogFormat,
    max_queued_bytes: usize,
) -> Result<Arc<Logs>, LogError> {
    // Without the standard library's buffer, which would keep a part of what a full disk refused.
    let output = std::io::stdout().as_fd().try_clone_to_owned().map_err(LogError::Output)?;
    let logs = Logs::bounded(Box::new(File::from(output)), levels, format, max_queued_bytes)?;
    subscriber(logs.clone()).try_init().map_err(|_| LogError::Twice)?;
    Ok(logs)
}

/// Takes `tracing`'s events to `logs`.
pub(super) fn subscriber(logs: Arc<Logs>) -> impl tracing::Subscriber + Send + Sync {
    tracing_subscriber::registry().with(LogLayer::new(logs))
}

/// Whether a text names levels: `info`, `info,access=off`, `warn,isthmus::l4=debug`. ztunnel's `target:level` is
/// understood too.
pub fn check_levels(text: &str) -> Result<(), LogError> {
    Levels::from_str(text).map(|_| ())
}

impl Logs {
    /// A log that is written to `output` by a thread of its own; does not touch `tracing`.
    pub fn new(
        output: Box<dyn Write + Send>,
        levels: &str,
        format: LogFormat,
    ) -> Result<Arc<Self>, LogError> {
        Self::bounded(output, levels, format, MAX_QUEUED_BYTES)
    }

    fn bounded(
        output: Box<dyn Write + Send>,
        levels: &str,
        format: LogFormat,
        max_queued_bytes: usize,
    ) -> Result<Arc<Self>, LogError> {
        let initial: Levels = levels.parse()?;
        let levels = ArcSwap::from_pointee(initial.clone());
        let sink = Sink::new(output, max_queued_bytes).map_err(LogError::Thread)?;
        Ok(Arc::new(Self { format, levels, initial, sink }))
    }

    /// A log that goes nowhere.
    pub fn discard() -> Arc<Self> {
        let (initial, levels) = (Levels::off(), ArcSwap::from_pointee(Levels::off()));
        let (format, sink) = (LogFormat::Text, Sink::closed());
        Arc::new(Self { format, levels, initial, sink })
    }

    /// Adds to the levels, as ztunnel does: what is said anew holds, all else stays. Holds at once for all threads.
    pub fn add_levels(&self, text: &str) -> Result<(), LogError> {
        self.replace(self.levels.load().with(text)?);
        Ok(())
    }

    /// Back to the levels of the settings, with others on top.
    pub fn reset_levels(&self, more: Option<&str>) -> Result<(), LogError> {
        self.replace(match more {
            Some(more) => self.initial.with(more)?,
            None => self.initial.clone(),
        });
        Ok(())
    }

    fn replace(&self, levels: Levels) {
        self.levels.store(Arc::new(levels));
        tracing::callsite::rebuild_interest_cache();
    }

    /// The levels in force, in the form in which they can be given.
    pub fn levels(&self) -> String {
        self.levels.load().to_string()
    }

    /// Waits until what was logged so far is written, at most `limit`: for the end of the process.
    pub fn flush(&self, limit: Duration) {
        self.sink.flush(limit);
    }

    pub(super) fn enabled(&self, target: &str, level: Level) -> bool {
        self.levels.load().enabled(target, level)
    }

    /// Whether the access log has lines of this level.
    pub(super) fn shows_access(&self, level: Level) -> bool {
        self.levels.load().shows_access(level)
    }

    /// The most that any target logs.
    fn max_level(&self) -> LevelFilter {
        self.levels.load().max()
    }

    pub(super) fn line(&self, level: Level, target: &str, message: &str) -> Line {
        let mut line = Line::new(self.format, level, target);
        line.message(message);
        line
    }

    pub(super) fn write(&self, line: Line) {
        self.sink.send(line.finish());
    }

    /// Writes a line as it is; it ends with the only line end in it.
    pub(super) fn write_text(&self, line: String) {
        self.sink.send(line);
    }

    pub(super) fn metrics(&self) -> &LogMetrics {
        self.sink.metrics()
    }
}
