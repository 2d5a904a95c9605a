//! The log: levels that can be changed at run time, one format for logs and access log, one writer.

mod clock;
mod layer;
mod line;
mod sink;

pub(super) use line::Line;

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use layer::LogLayer;
use sink::Sink;

/// The target of the access log, as in ztunnel.
pub(super) const ACCESS: &str = "access";

/// HTTP/2's library warns of what peers do wrong, frame by frame: whoever floods an agent must not fill its log. At
/// these levels it is not heard unless it is named; who debugs hears it.
const H2: &str = "h2";
const QUIET: [LevelFilter; 2] = [LevelFilter::INFO, LevelFilter::WARN];

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
    sink: Sink,
}

/// Levels as given, and as looked up.
struct Levels {
    text: String,
    targets: Targets,
}

/// Sets up the log of this process on the standard output; `tracing`'s events go there too.
pub fn init_logs(levels: &str, format: LogFormat) -> Result<Arc<Logs>, LogError> {
    // Without the standard library's buffer, which would keep a part of what a full disk refused.
    let output = std::io::stdout().as_fd().try_clone_to_owned().map_err(LogError::Output)?;
    let logs = Logs::new(Box::new(File::from(output)), levels, format)?;
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
        let levels = ArcSwap::from_pointee(levels.parse()?);
        let sink = Sink::new(output).map_err(LogError::Thread)?;
        Ok(Arc::new(Self { format, levels, sink }))
    }

    /// A log that goes nowhere.
    pub fn discard() -> Arc<Self> {
        let levels = Levels { text: "off".to_owned(), targets: Targets::new() };
        let (format, levels) = (LogFormat::Text, ArcSwap::from_pointee(levels));
        Arc::new(Self { format, levels, sink: Sink::closed() })
    }

    /// Replaces the levels; holds at once for all threads.
    pub fn set_levels(&self, text: &str) -> Result<(), LogError> {
        self.levels.store(Arc::new(text.parse()?));
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }

    /// The levels, as they were given.
    pub fn levels(&self) -> String {
        self.levels.load().text.clone()
    }

    /// Waits until what was logged so far is written, at most `limit`: for the end of the process.
    pub fn flush(&self, limit: Duration) {
        self.sink.flush(limit);
    }

    pub(super) fn enabled(&self, target: &str, level: Level) -> bool {
        self.levels.load().targets.would_enable(target, &level)
    }

    /// The most that any target logs.
    fn max_level(&self) -> LevelFilter {
        let levels = self.levels.load();
        let of_targets = levels.targets.iter().map(|(_, level)| level).max();
        let of_all = levels.targets.default_level();
        of_all.max(of_targets).unwrap_or(LevelFilter::OFF)
    }

    pub(super) fn line(&self, level: Level, target: &str, message: &str) -> Line {
        let mut line = Line::new(self.format, level, target);
        line.message(message);
        line
    }

    pub(super) fn write(&self, line: Line) {
        self.sink.send(line.finish());
    }

    /// Lines that were dropped because the writer was behind.
    pub(super) fn dropped(&self) -> &Counter {
        self.sink.dropped()
    }
}

impl FromStr for Levels {
    type Err = LogError;

    /// Without a level for everything else, that is `info`.
    fn from_str(text: &str) -> Result<Self, LogError> {
        let mut targets = Targets::new().with_default(LevelFilter::INFO);
        for part in text.split(',').map(str::trim) {
            let refuse = || LogError::Level(part.chars().take(100).collect());
            let level = |name: &str| level(name.trim()).ok_or_else(refuse);
            match part.split_once('=').or_else(|| part.rsplit_once(':')) {
                Some((target, name)) if is_target(target.trim()) => {
                    targets = targets.with_target(target.trim(), level(name)?);
                }
                Some(_) => return Err(refuse()),
                None => targets = targets.with_default(level(part)?),
            }
        }
        let is_named = targets.iter().any(|(target, _)| target == H2);
        if !is_named && targets.default_level().is_some_and(|level| QUIET.contains(&level)) {
            targets = targets.with_target(H2, LevelFilter::ERROR);
        }
        Ok(Levels { text: text.to_owned(), targets })
    }
}

/// `tracing` takes numbers and the empty text for levels too; here they are more likely mistakes.
fn level(name: &str) -> Option<LevelFilter> {
    let is_word = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
    is_word.then(|| LevelFilter::from_str(name).ok()).flatten()
}

/// A path of modules.
fn is_target(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte))
}
