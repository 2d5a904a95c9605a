//! TLS handshakes by the negotiated group: whether traffic that is recorded today can be decrypted with a future
//! quantum computer.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

/// This process's part in a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// Of a tunnel to another workload.
    TunnelClient,
    /// Of a tunnel from another workload.
    TunnelServer,
    /// Of a connection to an issuer of certificates.
    IssuerClient,
    /// Of a connection to the controller's signing port.
    IssuerServer,
}

const HANDSHAKES: [(Handshake, [&str; 2]); 4] = [
    (Handshake::TunnelClient, ["tunnel", "client"]),
    (Handshake::TunnelServer, ["tunnel", "server"]),
    (Handshake::IssuerClient, ["issuer", "client"]),
    (Handshake::IssuerServer, ["issuer", "server"]),
];

/// The groups of the TLS library as it names them; the first one is quantum-safe.
const GROUPS: [&str; 4] = ["X25519MLKEM768", "X25519", "secp256r1", "secp384r1"];
/// For a group that is none of these: a peer's choice must not create a series.
const OTHER: &str = "other";

/// Of this process, by [`HANDSHAKES`] and [`GROUPS`]; the last one of each is for others.
static COUNTS: [[AtomicU64; GROUPS.len() + 1]; HANDSHAKES.len()] =
    [const { [const { AtomicU64::new(0) }; GROUPS.len() + 1] }; HANDSHAKES.len()];

/// A handshake is done; `group` is the TLS library's name of the negotiated group.
pub fn count_handshake(handshake: Handshake, group: Option<&str>) {
    let place = group.and_then(|group| GROUPS.iter().position(|known| *known == group));
    let index = HANDSHAKES.iter().position(|(known, _)| *known == handshake);
    let count = index.and_then(|index| COUNTS[index].get(place.unwrap_or(GROUPS.len())));
    if let Some(count) = count {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub(super) struct HandshakesCollector;

impl Collector for HandshakesCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "isthmus_tls_handshakes",
            "TLS handshakes of tunnels and of certificate requests, by the negotiated group",
            None,
            MetricType::Counter,
        )?;
        for ((_, [purpose, role]), counts) in HANDSHAKES.iter().zip(&COUNTS) {
            for (group, count) in GROUPS.iter().chain([&OTHER]).zip(counts) {
                let count = count.load(Ordering::Relaxed);
                // The first of each always exists, so that a rate can be computed from the beginning.
                if count > 0 || group == &GROUPS[0] {
                    let labels = [("purpose", *purpose), ("role", *role), ("group", *group)];
                    ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Telemetry;

    #[test]
    fn groups_are_few_whatever_peers_agree_on() {
        for group in [Some("X25519MLKEM768"), Some("ffdhe2048"), Some("Unknown(0x6399)"), None] {
            count_handshake(Handshake::IssuerServer, group);
        }
        let text = Telemetry::without_log().scrape().unwrap();
        let lines: Vec<&str> = (text.lines())
            .filter(|line| {
                line.starts_with("isthmus_tls_handshakes_total{purpose=\"issuer\",role=\"server\"")
            })
            .collect();
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[0].contains("X25519MLKEM768") && !lines[0].ends_with(" 0"), "{lines:#?}");
        assert!(lines[1].contains("group=\"other\"") && !lines[1].ends_with(" 0"), "{lines:#?}");
    }
}
