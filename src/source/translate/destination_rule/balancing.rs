//! `loadBalancer`.

use std::fmt::Write;
use std::ops::RangeInclusive;

use http::HeaderName;

use super::locality;
use super::reading::Reading;
use crate::base::schema::parse_istio_duration;
use crate::source::objects::{
    ConsistentHash, HttpCookie, LoadBalancer, LocalitySetting, Warmup as RawWarmup,
};
use crate::traffic::{Balancer, Cookie, HashKey, LocalityPolicy, Warmup};

impl Reading<'_, '_> {
    pub(super) fn balancer(&mut self, within: &str, written: &LoadBalancer) -> Option<Balancer> {
        let LoadBalancer {
            simple,
            consistent_hash,
            zone_aware_lb_setting,
            locality_lb_setting: _,
            warmup_duration_secs: _,
            warmup: _,
        } = written;
        if zone_aware_lb_setting.is_some() {
            let instead = "Istio has it for sidecars only; localityLbSetting, or the Service's trafficDistribution, prefer near \
                           endpoints";
            self.no_effect(&format!("{within}.zoneAwareLbSetting"), instead);
        }
        if let Some(hash) = consistent_hash {
            if simple.is_some() {
                let reason = "must not stand beside consistentHash, which holds";
                self.error(&format!("{within}.simple"), reason);
            }
            return self.hash(&format!("{within}.consistentHash"), hash).map(Balancer::Hash);
        }
        match simple.as_deref()? {
            "UNSPECIFIED" => None,
            "LEAST_REQUEST" | "LEAST_CONN" => Some(Balancer::LeastRequest),
            "RANDOM" => Some(Balancer::Random),
            "ROUND_ROBIN" => Some(Balancer::RoundRobin),
            "PASSTHROUGH" => Some(Balancer::Passthrough),
            other => {
                let reason = format!(
                    "{other:?} is none of LEAST_REQUEST, ROUND_ROBIN, RANDOM and PASSTHROUGH; LEAST_REQUEST holds"
                );
                self.error(&format!("{within}.simple"), reason);
                None
            }
        }
    }

    /// The setting, which may still lack what it needs of the service.
    pub(super) fn locality(
        &mut self,
        within: &str,
        written: &LocalitySetting,
        has_outliers: bool,
    ) -> LocalityPolicy {
        let mut faults = Vec::new();
        let setting = locality::read(written, &mut faults);
        for (field, reason) in faults {
            self.error(&format!("{within}.localityLbSetting.{field}"), reason);
        }
        if !has_outliers && matches!(setting, LocalityPolicy::Failover(_)) {
            let reason = "has no effect without outlierDetection, as in Istio: nothing else finds an endpoint unhealthy that \
                          is ready. The Service's trafficDistribution has none beside it either";
            self.warn(&format!("{within}.localityLbSetting"), reason);
        }
        setting
    }

    pub(super) fn warmup(
        &mut self,
        within: &str,
        written: &LoadBalancer,
        balancer: Option<&Balancer>,
    ) -> Option<Warmup> {
        let (field, warmup) = match (&written.warmup, &written.warmup_duration_secs) {
            (Some(warmup), older) => {
                if older.is_some() {
                    let reason = "must not stand beside warmup, which holds";
                    self.error(&format!("{within}.warmupDurationSecs"), reason);
                }
                ("warmup", warmup.clone())
            }
            (None, Some(duration)) => {
                let reason = "is deprecated; write warmup.duration instead";
                self.warn(&format!("{within}.warmupDurationSecs"), reason);
                let warmup = RawWarmup { duration: Some(duration.clone()), ..RawWarmup::default() };
                ("warmupDurationSecs", warmup)
            }
            (None, None) => return None,
        };
        let at = format!("{within}.{field}");
        let of_duration = if field == "warmup" { format!("{at}.duration") } else { at.clone() };
        if warmup.duration.is_none() {
            self.error(&of_duration, "is missing; a new endpoint gets its whole share at once");
        }
        let duration = self.duration(&of_duration, warmup.duration.as_deref())?;
        let least =
            self.number(&format!("{at}.minimumPercent"), warmup.minimum_percent, 0.0..=100.0);
        let aggression = self.number(&format!("{at}.aggression"), warmup.aggression, 0.0..=1e6);
        if matches!(balancer, Some(Balancer::Random | Balancer::Passthrough | Balancer::Hash(_))) {
            let reason = "has no effect with this balancer, as in Istio: only with ROUND_ROBIN and LEAST_REQUEST";
            self.warn(&at, reason);
            return None;
        }
        // Istio's defaults. Envoy takes an aggression of next to nothing for what it is: the least share until the end.
        let least = least.map_or(0.1, |percent| percent / 100.0) as f32;
        let aggression = aggression.map_or(1.0, |it| it.max(1e-3)) as f32;
        Some(Warmup { duration, least, aggression })
    }

    fn number(
        &mut self,
        field: &str,
        written: Option<f64>,
        range: RangeInclusive<f64>,
    ) -> Option<f64> {
        let written = written?;
        if !range.contains(&written) {
            let (least, most) = (range.start(), range.end());
            self.error(field, format!("{written} is not from {least} to {most}; it is left out"));
            return None;
        }
        Some(written)
    }

    fn hash(&mut self, within: &str, written: &ConsistentHash) -> Option<HashKey> {
        let ConsistentHash {
            http_header_name,
            http_cookie,
            use_source_ip,
            http_query_parameter_name,
            ring_hash,
            maglev,
            minimum_ring_size,
        } = written;
        let ring = ring_hash.as_ref().and_then(|ring| ring.minimum_ring_size);
        let table = maglev.as_ref().and_then(|maglev| maglev.table_size);
        for (field, given) in [
            ("minimumRingSize", minimum_ring_size.is_some()),
            ("ringHash.minimumRingSize", ring.is_some()),
            ("maglev.tableSize", table.is_some()),
        ] {
            if given {
                let instead = "endpoints are selected by rendezvous hashing, which is exact without a ring or table";
                self.no_effect(&format!("{within}.{field}"), instead);
            }
        }
        let header = http_header_name.as_deref().map(|name| self.header(within, name));
        let cookie = http_cookie.as_ref().map(|cookie| self.cookie(within, cookie));
        let source = use_source_ip.filter(|it| *it).map(|_| Some(HashKey::SourceIp));
        let query = http_query_parameter_name.as_deref();
        let query = query.map(|name| Some(HashKey::Query(name.into())));
        let mut keys = [header, cookie, source, query].into_iter().flatten();
        let (first, second) = (keys.next(), keys.next());
        if first.is_none() || second.is_some() {
            let reason = "needs exactly one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName; the rest is \
                          left out";
            self.error(within, reason);
        }
        first.flatten()
    }

    fn header(&mut self, within: &str, name: &str) -> Option<HashKey> {
        let read = HeaderName::try_from(name).ok();
        if read.is_none() {
            let reason = format!("{name:?} is not a header's name; requests are not hashed");
            self.error(&format!("{within}.httpHeaderName"), reason);
        }
        read.map(HashKey::Header)
    }

    fn cookie(&mut self, within: &str, written: &HttpCookie) -> Option<HashKey> {
        let HttpCookie { name, path, ttl, attributes } = written;
        let at = |field: &str| format!("{within}.httpCookie.{field}");
        let ttl = match ttl.as_deref() {
            Some(text) => {
                let read = parse_istio_duration(text);
                if read.is_none() {
                    let reason = format!(
                        "{text:?} is not a duration such as 0s, 10s or 1h; no cookie is set"
                    );
                    self.error(&at("ttl"), reason);
                }
                read
            }
            None => None,
        };
        let mut written = String::new();
        for attribute in attributes {
            if !is_of_cookie(&attribute.name) || !is_of_cookie(&attribute.value) {
                self.error(&at("attributes"), format!("{:?} cannot be written", attribute.name));
                continue;
            }
            let _ = match attribute.value.as_str() {
                "" => write!(written, "; {}", attribute.name),
                value => write!(written, "; {}={value}", attribute.name),
            };
        }
        if HeaderName::try_from(name.as_str()).is_err() || !is_of_cookie(path) {
            let reason = "is not the name or the path of a cookie; requests are not hashed";
            self.error(&at("name"), reason);
            return None;
        }
        let (name, path) = (name.as_str().into(), path.as_str().into());
        Some(HashKey::Cookie(Cookie { name, path, ttl, attributes: written.into() }))
    }
}

/// Nothing that would end an attribute, or the header.
fn is_of_cookie(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';' || byte == b' ')
}
