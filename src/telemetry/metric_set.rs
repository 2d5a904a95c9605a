//! Istio's metrics by their names, and sets of them.

use serde::ser::SerializeSeq;

/// A metric, by the name that Istio gives it in a Telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Metric {
    RequestCount,
    RequestDuration,
    RequestSize,
    ResponseSize,
    GrpcRequestMessages,
    GrpcResponseMessages,
    TcpOpenedConnections,
    TcpClosedConnections,
    TcpSentBytes,
    TcpReceivedBytes,
}

/// Some of the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricSet(u16);

impl Metric {
    pub const ALL: [Metric; 10] = [
        Metric::RequestCount,
        Metric::RequestDuration,
        Metric::RequestSize,
        Metric::ResponseSize,
        Metric::GrpcRequestMessages,
        Metric::GrpcResponseMessages,
        Metric::TcpOpenedConnections,
        Metric::TcpClosedConnections,
        Metric::TcpSentBytes,
        Metric::TcpReceivedBytes,
    ];

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl MetricSet {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self((1 << Metric::ALL.len()) - 1);
    pub const CONNECTIONS: Self = Self(
        Metric::TcpOpenedConnections.bit()
            | Metric::TcpClosedConnections.bit()
            | Metric::TcpSentBytes.bit()
            | Metric::TcpReceivedBytes.bit(),
    );
    pub const REQUESTS: Self = Self::ALL.without(Self::CONNECTIONS);
    /// The metrics that only calls of gRPC have.
    pub(super) const MESSAGES: Self =
        Self(Metric::GrpcRequestMessages.bit() | Metric::GrpcResponseMessages.bit());

    pub fn has(self, metric: Metric) -> bool {
        self.0 & metric.bit() != 0
    }

    pub fn with(self, metric: Metric) -> Self {
        Self(self.0 | metric.bit())
    }

    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Those that both have.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Metric> for MetricSet {
    fn from_iter<I: IntoIterator<Item = Metric>>(metrics: I) -> Self {
        metrics.into_iter().fold(Self::NONE, Self::with)
    }
}

/// As a list of names.
impl serde::Serialize for MetricSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for metric in Metric::ALL.iter().filter(|metric| self.has(**metric)) {
            list.serialize_element(metric)?;
        }
        list.end()
    }
}
