//! `tls` and `tcp` (Istio, TLSRoute and TCPRoute): where connections go whose bytes nobody parses. Those of TLS come first; a
//! connection that no rule takes goes to the service itself.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::One;
use super::destination::To;
use crate::base::Str;
use crate::model::{Backend, NameMatch, StreamKind, StreamMatch, StreamRoute, StreamRule};
use crate::source::objects::{
    Labels, VirtualStreamDestination, VirtualStreamMatch, VirtualTlsMatch,
};
use crate::source::translate::route::turn;

/// The rules that were read, apart from the port that is addressed.
#[derive(Default)]
pub(super) struct Streams(Vec<Rule>);

struct Rule {
    kind: StreamKind,
    /// With the port; `None`: any.
    matches: Vec<(Option<u16>, StreamMatch)>,
    destinations: Vec<(u32, To)>,
    turn: Arc<std::sync::atomic::AtomicU64>,
}

/// What both kinds of matches have.
struct Match<'a> {
    subnets: &'a [String],
    port: Option<u16>,
    labels: &'a Labels,
    gateways: &'a [String],
    namespace: &'a str,
}

impl Streams {
    pub(super) fn read(one: &mut One<'_, '_, '_>) -> Self {
        let mut rules = Vec::new();
        for (index, rule) in one.spec.tls.iter().enumerate() {
            let field = format!("spec.tls[{index}]");
            let mut matches = Vec::new();
            for (number, matched) in rule.matches.iter().enumerate() {
                matches.extend(one.tls_match(&format!("{field}.match[{number}]"), matched));
            }
            if rule.matches.is_empty() {
                let reason = "is missing, so no connection matches; name the servers (sniHosts)";
                one.error(format!("{field}.match"), reason);
            }
            rules.extend(one.rule_of_streams(&field, StreamKind::Tls, matches, &rule.route));
        }
        for (index, rule) in one.spec.tcp.iter().enumerate() {
            let field = format!("spec.tcp[{index}]");
            let mut matches = Vec::new();
            for (number, matched) in rule.matches.iter().enumerate() {
                matches.extend(one.tcp_match(&format!("{field}.match[{number}]"), matched));
            }
            if rule.matches.is_empty() && one.is_of_mesh(&[]) {
                matches.push((None, StreamMatch::default()));
            }
            rules.extend(one.rule_of_streams(&field, StreamKind::Tcp, matches, &rule.route));
        }
        Self(rules)
    }

    /// How many there are, each match by itself.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|rule| rule.matches.len()).sum()
    }

    /// For connections that are addressed to this port; `None`: to whatever port.
    pub(super) fn on(&self, one: &One<'_, '_, '_>, addressed: Option<u16>) -> Vec<StreamRule> {
        let rules = self.0.iter().filter_map(|rule| {
            let matches = rule.matches.iter();
            let matches = matches.filter(|(port, _)| port.is_none() || *port == addressed);
            let matches: Vec<_> = matches.map(|(_, matched)| matched.clone()).collect();
            let backends = rule.destinations.iter().map(|(weight, to)| Backend {
                weight: *weight,
                target: to.target(addressed),
                subset: to.subset(),
                filters: Vec::new(),
            });
            let route = StreamRoute {
                kind: rule.kind,
                key: one.key.clone(),
                created: 0,
                parents: Vec::new(),
                names: Vec::new(),
                backends: backends.collect(),
                turn: rule.turn.clone(),
                rules: None,
            };
            (!matches.is_empty()).then(|| StreamRule { matches, route: Arc::new(route) })
        });
        rules.collect()
    }
}

impl One<'_, '_, '_> {
    fn rule_of_streams(
        &mut self,
        field: &str,
        kind: StreamKind,
        matches: Vec<(Option<u16>, StreamMatch)>,
        written: &[VirtualStreamDestination],
    ) -> Option<Rule> {
        if matches.is_empty() {
            return None;
        }
        let only = written.len() == 1;
        let mut destinations = Vec::new();
        for (index, destination) in written.iter().enumerate() {
            let weight = if only { 1 } else { destination.weight.unwrap_or_default() };
            let place = format!("{field}.route[{index}].destination");
            let outcome = "its share of the connections is closed";
            destinations
                .push((weight, self.destination(&place, &destination.destination, outcome)));
        }
        if destinations.iter().all(|(weight, _)| *weight == 0) {
            let reason = "has no destination with a weight: connections that match are closed";
            self.error(format!("{field}.route"), reason);
        }
        Some(Rule { kind, matches, destinations, turn: turn() })
    }

    fn tls_match(
        &mut self,
        field: &str,
        written: &VirtualTlsMatch,
    ) -> Option<(Option<u16>, StreamMatch)> {
        let VirtualTlsMatch {
            sni_hosts,
            destination_subnets,
            port,
            source_labels,
            gateways,
            source_namespace,
        } = written;
        if sni_hosts.is_empty() {
            let reason = "is missing, so no connection matches; name the servers";
            self.error(format!("{field}.sniHosts"), reason);
            return None;
        }
        let of = Match {
            subnets: destination_subnets,
            port: *port,
            labels: source_labels,
            gateways,
            namespace: source_namespace,
        };
        let (port, matched) = self.stream_match(field, &of)?;
        let names = sni_hosts.iter().map(|name| NameMatch::new(name)).collect();
        Some((port, StreamMatch { names, ..matched }))
    }

    fn tcp_match(
        &mut self,
        field: &str,
        written: &VirtualStreamMatch,
    ) -> Option<(Option<u16>, StreamMatch)> {
        let VirtualStreamMatch {
            destination_subnets,
            port,
            source_subnet,
            source_labels,
            gateways,
            source_namespace,
        } = written;
        if !source_subnet.is_empty() {
            let reason = "is not carried out, as in Istio; the match holds for no connection. Use sourceLabels";
            self.error(format!("{field}.sourceSubnet"), reason);
            return None;
        }
        let of = Match {
            subnets: destination_subnets,
            port: *port,
            labels: source_labels,
            gateways,
            namespace: source_namespace,
        };
        self.stream_match(field, &of)
    }

    /// `None`: it holds for no connection of the mesh.
    fn stream_match(
        &mut self,
        field: &str,
        written: &Match<'_>,
    ) -> Option<(Option<u16>, StreamMatch)> {
        if !self.is_of_mesh(written.gateways) {
            return None;
        }
        let mut subnets = Vec::new();
        for text in written.subnets {
            let single = text.parse::<IpAddr>().map(IpNet::from).ok();
            match text.parse::<IpNet>().ok().or(single) {
                Some(subnet) => subnets.push(subnet),
                None => {
                    let reason =
                        format!("{text:?} is no network; the match holds for no connection");
                    self.error(format!("{field}.destinationSubnets"), reason);
                    return None;
                }
            }
        }
        let mut matched = StreamMatch { subnets, ..StreamMatch::default() };
        if written.gateways.is_empty() {
            let namespace = Some(written.namespace).filter(|it| !it.is_empty());
            matched.source_namespace = namespace.map(Str::from);
            matched.source_labels = self.labels_of_source(field, written.labels).ok()?;
        }
        Some((written.port.filter(|port| *port != 0), matched))
    }
}
