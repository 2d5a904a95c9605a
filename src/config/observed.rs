//! The settings of metrics and log.

use std::ops::RangeInclusive;

use super::defaults as default;
use super::reader::{Field, Reader};
use super::{LogSettings, MetricsSettings};
use crate::telemetry::{self, LogFormat, SeriesLimits};

/// A few for each namespace; more than Prometheus takes from one target.
const SERIES: RangeInclusive<usize> = 100..=10_000_000;

pub(super) fn metrics(reader: &mut Reader<'_>) -> MetricsSettings {
    let limits = SeriesLimits::default();
    MetricsSettings {
        address: reader.address(Field {
            key: "metrics.address",
            default: default::METRICS,
            meaning: "Where /metrics and /stats/prometheus are served.",
        }),
        max_series: reader.number(
            Field {
                key: "metrics.max_series",
                default: limits.total,
                meaning: "Series of traffic, DNS and policies at a time; what is new beyond is counted with the label \
                          `other`.",
            },
            SERIES,
        ),
        max_namespace_series: reader.number(
            Field {
                key: "metrics.max_namespace_series",
                default: limits.namespace,
                meaning: "Of these, those that one namespace's workloads report; with any other namespace a quarter.",
            },
            SERIES,
        ),
    }
}

pub(super) fn log(reader: &mut Reader<'_>) -> LogSettings {
    let field = Field {
        key: "log.level",
        default: default::LOG_LEVEL,
        meaning: "A level (error, warn, info, debug, trace, off), then exceptions by target, such as \
                  \"info,access=off\" or \"info,isthmus::l4=debug\". The access log is the target `access`.",
    };
    LogSettings {
        level: reader.text(field, "levels", |text| {
            telemetry::check_levels(text).map_err(|error| error.to_string())
        }),
        format: reader.choice(
            Field {
                key: "log.format",
                default: LogFormat::Text,
                meaning: "How each line of the log is written to the standard output.",
            },
            &[("text", LogFormat::Text), ("json", LogFormat::Json)],
        ),
        max_queued_bytes: reader.number(
            Field {
                key: "log.max_queued_bytes",
                default: telemetry::MAX_QUEUED_BYTES,
                meaning: "Bytes of lines that wait to be written, besides which at most 10000 lines wait; more are \
                          dropped and counted.",
            },
            64 * 1024..=1 << 30,
        ),
    }
}
