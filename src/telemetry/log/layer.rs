//! `tracing`'s events as lines of the log.

use std::fmt;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::Context;

use super::{Line, Logs};

/// The only layer; spans have no meaning for it.
pub(super) struct LogLayer {
    logs: Arc<Logs>,
}

impl LogLayer {
    pub(super) fn new(logs: Arc<Logs>) -> Self {
        Self { logs }
    }
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.logs.enabled(metadata.target(), *metadata.level())
    }

    fn register_callsite(
        &self,
        metadata: &'static Metadata<'static>,
    ) -> tracing::subscriber::Interest {
        // Asked again for every place when levels change (`Logs::replace`), so the answer may be kept.
        match self.logs.enabled(metadata.target(), *metadata.level()) {
            true => tracing::subscriber::Interest::always(),
            false => tracing::subscriber::Interest::never(),
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.logs.max_level())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line::new(self.logs.format, *metadata.level(), metadata.target());
        event.record(&mut Fields(&mut line));
        self.logs.write(line);
    }
}

/// Writes fields in the order in which they stand in the macro; the message is the first of them.
struct Fields<'a>(&'a mut Line);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.0.message(value),
            name => self.0.text(name, value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_str(field, &value.to_string());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.bare(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.bare(field.name(), value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.0.bare(field.name(), value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.0.bare(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.bare(field.name(), value);
    }
}
