//! `baggage` (W3C Baggage) with the keys that Istio's proxies exchange: the workload at the other end, for telemetry.
//! It never counts for a decision.

use std::fmt::{self, Write};

use super::MAX_BAGGAGE;
use crate::base::{Identity, Str};
use crate::model::Workload;
use crate::telemetry::Peer;

/// A workload's description of itself; empty values are omitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baggage {
    pub cluster: Str,
    pub namespace: Str,
    /// The workload's owner; always written as a Deployment.
    pub workload: Str,
    /// The canonical service.
    pub service: Str,
    /// The canonical revision.
    pub version: Str,
    pub region: Str,
    pub zone: Str,
}

impl Baggage {
    /// The agent's description of a workload on its node.
    pub fn of(workload: &Workload, cluster: &Str) -> Self {
        let Workload { key, canonical, locality, .. } = workload;
        Self {
            cluster: cluster.clone(),
            namespace: key.namespace.clone(),
            workload: canonical.workload.clone(),
            service: canonical.service.clone(),
            version: canonical.revision.clone(),
            region: locality.region.clone(),
            zone: locality.zone.clone(),
        }
    }

    /// Parses the known keys. Unknown keys, properties and malformed members are skipped; of a repeated key the first
    /// counts. More than 8 KiB are ignored.
    pub fn parse(text: &str) -> Self {
        let mut baggage = Self::default();
        if text.len() > MAX_BAGGAGE {
            return baggage;
        }
        for member in text.split(',') {
            let pair = member.split(';').next().unwrap_or_default();
            let Some((key, value)) = pair.split_once('=') else { continue };
            if let (Some(field), Some(value)) =
                (baggage.field(key.trim()), percent_decode(value.trim()))
                && field.is_empty()
            {
                *field = value.into();
            }
        }
        baggage
    }

    /// The labels of a client of whom nothing else is known. Its certificate has proven `client`, and so its namespace: a
    /// client names itself as it likes within that, and counts as part of it.
    pub fn peer(&self, client: &Identity) -> Peer {
        Peer {
            workload: self.workload.clone(),
            name: Str::new(),
            namespace: client.namespace.clone(),
            principal: client.to_string().into(),
            canonical_service: self.service.clone(),
            canonical_revision: self.version.clone(),
            app: self.service.clone(),
            version: self.version.clone(),
            cluster: self.cluster.clone(),
        }
    }

    /// Other proxies name the kind of the owner in the key.
    fn field(&mut self, key: &str) -> Option<&mut Str> {
        Some(match key {
            "k8s.cluster.name" => &mut self.cluster,
            "k8s.namespace.name" => &mut self.namespace,
            "k8s.deployment.name" | "k8s.pod.name" | "k8s.job.name" | "k8s.cronjob.name" => {
                &mut self.workload
            }
            "service.name" => &mut self.service,
            "service.version" => &mut self.version,
            "cloud.region" => &mut self.region,
            "cloud.availability_zone" => &mut self.zone,
            _ => return None,
        })
    }
}

impl fmt::Display for Baggage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = [
            ("k8s.cluster.name", &self.cluster),
            ("k8s.namespace.name", &self.namespace),
            ("k8s.deployment.name", &self.workload),
            ("service.name", &self.service),
            ("service.version", &self.version),
            ("cloud.region", &self.region),
            ("cloud.availability_zone", &self.zone),
        ];
        let mut separator = "";
        for (key, value) in members.into_iter().filter(|(_, value)| !value.is_empty()) {
            write!(f, "{separator}{key}=")?;
            percent_encode(value, f)?;
            separator = ",";
        }
        Ok(())
    }
}

/// Everything but the unreserved characters of RFC 3986: stricter than W3C, and readable by all.
fn percent_encode(value: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            f.write_char(char::from(byte))?;
        } else {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

/// `None` if the bytes are not UTF-8; a `%` without two hexadecimal digits stands for itself.
fn percent_decode(value: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match tail {
            [high, low, after @ ..] if *first == b'%' => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    decoded.push(high << 4 | low);
                    rest = after;
                }
                _ => decoded.push(*first),
            },
            _ => decoded.push(*first),
        }
    }
    String::from_utf8(decoded).ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn writes_the_keys_of_istio() {
        let baggage = Baggage {
            cluster: "Kubernetes".into(),
            namespace: "bookinfo".into(),
            workload: "reviews-v1".into(),
            service: "reviews".into(),
            version: "v1,=% é".into(),
            ..Baggage::default()
        };
        assert_eq!(
            baggage.to_string(),
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=bookinfo,k8s.deployment.name=reviews-v1,\
             service.name=reviews,service.version=v1%2C%3D%25%20%C3%A9"
        );
        assert_eq!(Baggage::parse(&baggage.to_string()), baggage);
    }

    #[test]
    fn skips_what_it_does_not_know() {
        let baggage = Baggage::parse(
            "a=b, service.name = x ;p=q,,k8s.job.name=j,service.name=y,cloud.region=%ff,=,service.version=5%",
        );
        let expected = Baggage {
            workload: "j".into(),
            service: "x".into(),
            version: "5%".into(),
            ..Baggage::default()
        };
        assert_eq!(baggage, expected);
        assert_eq!(
            Baggage::parse(&format!("service.name={}", "x".repeat(MAX_BAGGAGE))),
            Baggage::default()
        );
    }

    #[test]
    fn a_proven_namespace_has_the_last_word() {
        let baggage = Baggage::parse(
            "k8s.namespace.name=victim,k8s.deployment.name=web-v1,service.name=web,service.version=v1,k8s.cluster.name=east",
        );
        let peer = baggage.peer(&Identity::new("cluster.local", "shop", "client"));
        assert_eq!((&*peer.namespace, &*peer.workload), ("shop", "web-v1"));
        assert_eq!((&*peer.canonical_service, &*peer.canonical_revision), ("web", "v1"));
        assert_eq!((&*peer.app, &*peer.version, &*peer.cluster), ("web", "v1", "east"));
        assert_eq!(peer.principal, "spiffe://cluster.local/ns/shop/sa/client");
    }

    proptest! {
        #[test]
        fn reads_what_it_wrote(texts in proptest::array::uniform7(".{0,20}")) {
            let [cluster, namespace, workload, service, version, region, zone] = texts.map(Str::from);
            let baggage = Baggage { cluster, namespace, workload, service, version, region, zone };
            prop_assert_eq!(Baggage::parse(&baggage.to_string()), baggage);
        }

        #[test]
        fn never_panics(text in "(service.name|=|,|;|%|%4|%41|a|é| ){0,20}|.{0,60}") {
            Baggage::parse(&text);
        }
    }
}
