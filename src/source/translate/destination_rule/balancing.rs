//! `loadBalancer`.

use std::fmt::Write;
use std::time::Duration;

use http::HeaderName;

use super::reading::Reading;
use crate::base::schema::parse_duration;
use crate::source::objects::{ConsistentHash, HttpCookie, LoadBalancer};
use crate::traffic::{Balancer, Cookie, HashKey};

impl Reading<'_, '_> {
    pub(super) fn balancer(&mut self, within: &str, written: &LoadBalancer) -> Option<Balancer> {
        let LoadBalancer {
            simple,
            consistent_hash,
            locality_lb_setting,
            zone_aware_lb_setting,
            warmup_duration_secs,
            warmup,
        } = written;
        const DISTRIBUTION: &str = "set the Service's trafficDistribution to prefer near endpoints";
        const WARMUP: &str = "a new endpoint gets its whole share at once";
        for (field, given, instead) in [
            ("localityLbSetting", locality_lb_setting.is_some(), DISTRIBUTION),
            ("zoneAwareLbSetting", zone_aware_lb_setting.is_some(), DISTRIBUTION),
            ("warmupDurationSecs", warmup_duration_secs.is_some(), WARMUP),
            ("warmup", warmup.is_some(), WARMUP),
        ] {
            if given {
                self.no_effect(&format!("{within}.{field}"), instead);
            }
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
            // Without a unit, as Istio writes zero.
            Some("0") => Some(Duration::ZERO),
            Some(text) => {
                let read = parse_duration(text);
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
