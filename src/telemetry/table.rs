//! `metrics!` makes handles from their rows. A row states everything about a metric, and nothing else does:
//!
//! ```text
//! /// The help, for operators: /metrics and docs/metrics.md show it.
//! pub pool_connections: Gauge = "isthmus_pool_connections";
//! /// A histogram has a unit, which ends its name, and the upper bounds of its buckets.
//! add_duration: Histogram = "isthmus_cni_add_duration", Seconds, BUCKETS;
//! ```
//!
//! This becomes a field, which the room that knows the value counts with, and its registration: no look-up by name or label,
//! and no lock, when something is counted.
//!
//! `counts!` does the same for metrics whose labels objects or peers choose, and which therefore have a budget
//! ([`SeriesMap`](super::series::SeriesMap)): its rows are the counters of one series.
//!
//! ```text
//! /// The help. The name of a counter is without `_total`, which the text adds.
//! pub(super) opened: AtomicU64 = "istio_tcp_connections_opened";
//! /// A histogram has the number that turns what is added into the unit of its bounds.
//! duration: EnvoyHistogram = "istio_request_duration_milliseconds", MICROSECONDS;
//! ```

macro_rules! metrics {
    (
        $(#[$about:meta])*
        $shown:vis struct $Metrics:ident {
            $(
                $(#[doc = $help:literal])+
                $visible:vis $field:ident: $Type:ty = $name:literal $(, $unit:ident, $buckets:expr)?;
            )+
            $( ..$part:ident: $Part:ty, )*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone)]
        $shown struct $Metrics {
            $( $(#[doc = $help])+ $visible $field: $Type, )+
            $( $part: $Part, )*
        }

        impl Default for $Metrics {
            fn default() -> Self {
                Self {
                    $( $field: metrics!(@new $($buckets)?), )+
                    $( $part: Default::default(), )*
                }
            }
        }

        impl $Metrics {
            fn register_rows(&self, registry: &mut prometheus_client::registry::Registry) {
                $(
                    // The library ends the help with a full stop.
                    let help = concat!($($help),+).trim().trim_end_matches('.');
                    metrics!(@register registry, $name, help, self.$field $(, $unit)?);
                )+
                $( self.$part.register_rows(registry); )*
            }
        }
    };
    (@new) => { Default::default() };
    (@new $buckets:expr) => { prometheus_client::metrics::histogram::Histogram::new($buckets) };
    (@register $registry:ident, $name:literal, $help:ident, $metric:expr) => {
        $registry.register($name, $help, $metric.clone())
    };
    (@register $registry:ident, $name:literal, $help:ident, $metric:expr, $unit:ident) => {
        $registry.register_with_unit(
            $name,
            $help,
            prometheus_client::registry::Unit::$unit,
            $metric.clone(),
        )
    };
}

macro_rules! counts {
    (
        $(#[$about:meta])*
        $shown:vis struct $Counts:ident {
            $(
                $(#[doc = $help:literal])+
                $visible:vis $field:ident: $Type:ty = $name:literal $(, $unit:expr)?;
            )+
        }
    ) => {
        $(#[$about])*
        #[derive(Default)]
        $shown struct $Counts {
            $( $(#[doc = $help])+ $visible $field: $Type, )+
        }

        impl $crate::telemetry::series::Counts for $Counts {
            fn activity(&self) -> u64 {
                let rows = [$( $crate::telemetry::series::Active::activity(&self.$field), )+];
                rows.into_iter().fold(0, u64::wrapping_add)
            }
        }

        impl $Counts {
            /// A family for each row, with the series that there are.
            fn families<K: $crate::telemetry::exposition::WriteLabels + ?Sized>(
                series: Vec<$crate::telemetry::series::Shown<K, Self>>,
            ) -> Vec<$crate::telemetry::exposition::Family> {
                let series = std::sync::Arc::new(series);
                vec![$({
                    // The text ends the help with a full stop.
                    let help = concat!($($help),+).trim().trim_end_matches('.');
                    counts!(@family series, ($name, help), $field $(, $unit)?)
                }),+]
            }
        }
    };
    (@family $series:ident, $named:expr, $field:ident) => {
        $crate::telemetry::exposition::Family::counter(&$series, $named, |it| &it.$field)
    };
    (@family $series:ident, $named:expr, $field:ident, $unit:expr) => {
        $crate::telemetry::exposition::Family::histogram(&$series, $named, $unit, |it| &it.$field)
    };
}
