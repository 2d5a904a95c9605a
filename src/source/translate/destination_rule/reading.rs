//! Reads the policies of one rule, and says which fields have no effect.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Said;
use super::baseline::Baseline;
use crate::base::ObjectKey;
use crate::base::schema::parse_istio_duration;
use crate::source::Severity;
use crate::source::objects::{ConnectionPool, Kind, PortTrafficPolicy, RuleTrafficPolicy};
use crate::source::translate::Context;
use crate::traffic::{Balancer, Limits, Policy, ProxyProtocol};

/// One rule, while it is read; or the section of MeshConfig that stands in for rules.
pub(super) struct Reading<'a, 'b> {
    cx: &'a mut Context<'b>,
    kind: Kind,
    key: &'a ObjectKey,
    baseline: &'a Baseline,
    /// What LEAST_REQUEST means in this rule.
    is_ewma: bool,
}

impl<'a, 'b> Reading<'a, 'b> {
    pub(super) fn new(
        cx: &'a mut Context<'b>,
        (kind, key): (Kind, &'a ObjectKey),
        baseline: &'a Baseline,
    ) -> Self {
        Self { cx, kind, key, baseline, is_ewma: false }
    }

    /// LEAST_REQUEST means peak EWMA.
    pub(super) fn by_latency(self, is_ewma: bool) -> Self {
        Self { is_ewma, ..self }
    }

    pub(super) fn key(&self) -> &'a ObjectKey {
        self.key
    }

    /// What holds for all ports and for single ones.
    pub(super) fn policies(&mut self, within: &str, written: &RuleTrafficPolicy) -> Said {
        let RuleTrafficPolicy {
            load_balancer,
            connection_pool,
            outlier_detection,
            tls,
            port_level_settings,
            tunnel,
            proxy_protocol,
            retry_budget,
        } = written;
        for (field, given, instead) in
            [("tunnel", tunnel.is_some(), "connections go straight to the endpoint")]
        {
            if given {
                self.no_effect(&format!("{within}.{field}"), instead);
            }
        }
        let rest = PortTrafficPolicy {
            port: None,
            load_balancer: load_balancer.clone(),
            connection_pool: connection_pool.clone(),
            outlier_detection: outlier_detection.clone(),
            tls: tls.clone(),
        };
        let header = proxy_protocol.as_ref();
        let header =
            header.and_then(|it| self.proxy_protocol(&format!("{within}.proxyProtocol"), it));
        let mut rest = self.policy(within, &rest);
        self.put_header(&mut rest, header);
        let mut ports = BTreeMap::new();
        for (index, settings) in port_level_settings.iter().enumerate() {
            let within = format!("{within}.portLevelSettings[{index}]");
            let number = settings.port.as_ref().and_then(|port| port.number);
            let Some(number) = number.filter(|number| *number != 0) else {
                let reason =
                    "is missing: it says which port the settings are for; they have no effect";
                self.error(&format!("{within}.port.number"), reason);
                continue;
            };
            if ports.contains_key(&number) {
                let reason = format!("{number} has settings already; these have no effect");
                self.error(&format!("{within}.port.number"), reason);
                continue;
            }
            let mut policy = self.policy(&within, settings);
            // Of the whole rule: ports have no field of their own for it.
            self.put_header(&mut policy, header);
            ports.insert(number, policy);
        }
        let mut said = Said { rest, ports, subsets: Vec::new() };
        if let Some(written) = retry_budget {
            let budget = self.budget(&format!("{within}.retryBudget"), written);
            said.budget(&budget);
        }
        said
    }

    fn policy(&mut self, within: &str, written: &PortTrafficPolicy) -> Policy {
        // TLS is read elsewhere, from whatever stands there.
        let PortTrafficPolicy {
            port: _,
            load_balancer,
            connection_pool,
            outlier_detection,
            tls: _,
        } = written;
        let of_balancer = format!("{within}.loadBalancer");
        let balancer = load_balancer.as_ref();
        let mut balancer = balancer.and_then(|it| self.balancer(&of_balancer, it));
        if self.is_ewma && matches!(balancer, None | Some(Balancer::LeastRequest)) {
            balancer = Some(Balancer::PeakEwma);
        }
        let warmup = load_balancer.as_ref();
        let warmup = warmup.and_then(|it| self.warmup(&of_balancer, it, balancer.as_ref()));
        // A block that a rule has replaces the whole one of the mesh, also where it asks for nothing.
        let outliers = match outlier_detection {
            Some(it) => self.outliers(&format!("{within}.outlierDetection"), it),
            None => self.baseline.outliers.clone(),
        };
        let setting = load_balancer.as_ref().and_then(|it| it.locality_lb_setting.as_ref());
        let setting = setting.map(|it| self.locality(&of_balancer, it, outliers.is_some()));
        let locality = setting.map(Box::new);
        let own_limits = connection_pool.as_ref();
        let own_limits = own_limits.map(|it| self.limits(&format!("{within}.connectionPool"), it));
        let of_mesh = own_limits.is_none() && self.baseline.limits.is_some();
        let limits = own_limits.unwrap_or_else(|| self.baseline.limits.clone());
        let baseline = self.baseline.policy();
        let by = baseline.by.clone();
        let policy = Policy { by, balancer, outliers, limits, locality, warmup, budget: None };
        if of_mesh || policy == baseline {
            return policy;
        }
        // Whoever is over a limit is told who set it.
        Policy { by: format!("{} {}", self.kind, self.key).into(), ..policy }
    }

    /// `None` where nothing is limited.
    pub(super) fn limits(&mut self, within: &str, written: &ConnectionPool) -> Option<Box<Limits>> {
        let limits = self.pool(within, written);
        (limits != Limits::default()).then(|| Box::new(limits))
    }

    /// Connections begin with this header.
    fn put_header(&self, policy: &mut Policy, header: Option<ProxyProtocol>) {
        if header.is_some() {
            if policy.by.is_empty() {
                policy.by = format!("{} {}", self.kind, self.key).into();
            }
            policy.limits.get_or_insert_default().proxy_protocol = header;
        }
    }

    /// A duration of at least one millisecond.
    pub(super) fn duration(&mut self, field: &str, text: Option<&str>) -> Option<Duration> {
        let text = text?;
        let read = parse_istio_duration(text).filter(|read| *read >= Duration::from_millis(1));
        if read.is_none() {
            let reason =
                format!("{text:?} is not a duration such as 500ms, 10s or 1h; it is left out");
            self.error(field, reason);
        }
        read
    }

    /// The field is known and not carried out.
    pub(super) fn no_effect(&mut self, field: &str, instead: &str) {
        self.warn(field, format!("is not carried out: {instead}"));
    }

    pub(super) fn warn(&mut self, field: &str, reason: impl Into<String>) {
        self.complain(Severity::Warning, field, reason.into());
    }

    pub(super) fn error(&mut self, field: &str, reason: impl Into<String>) {
        self.complain(Severity::Error, field, reason.into());
    }

    fn complain(&mut self, severity: Severity, field: &str, reason: String) {
        self.cx.complain(severity, self.kind, self.key, field.to_owned(), reason);
    }
}
