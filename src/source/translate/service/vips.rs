//! The virtual addresses of Services: those that they say, or, as nobody has given one to a manifest in a file, those that are
//! allotted as to ServiceEntries. In a cluster every Service has its own.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::ServiceSpec;

use super::super::Context;
use super::super::service_entry::Allotment;
use crate::base::ObjectKey;
use crate::source::objects::{Service, ServiceEntry, created};
use crate::source::{Objects, Severity, objects::Kind};

/// What each Service got that says nothing.
#[derive(Default)]
pub(in crate::source::translate) struct Allotted(HashMap<ObjectKey, [IpAddr; 2]>);

impl Allotted {
    /// Looks at all Services when one of these wants an address, which in a cluster none does.
    pub(in crate::source::translate) fn of<'a>(
        objects: &Objects,
        cluster_domain: &str,
        mut concerned: impl Iterator<Item = &'a ObjectKey>,
    ) -> Self {
        let wants = |service: &Service| service.spec.as_ref().is_some_and(wants_address);
        if !concerned.any(|key| objects.get::<Service>(key).is_some_and(wants)) {
            return Self::default();
        }
        let mut taken: HashSet<IpAddr> = HashSet::new();
        for (_, service) in objects.all::<Service>() {
            let texts = service.spec.iter().flat_map(texts);
            taken.extend(texts.filter_map(|text| text.parse::<IpAddr>().ok()));
        }
        for (_, entry) in objects.all::<ServiceEntry>() {
            let texts = entry.spec.addresses.iter();
            taken.extend(texts.filter_map(|text| text.parse::<IpAddr>().ok()));
        }
        let mut wanting: Vec<_> = objects.all::<Service>().filter(|(_, it)| wants(it)).collect();
        // The oldest first, and those of unknown age last, as ServiceEntries.
        wanting.sort_by_key(|(key, service)| {
            let age = created(&service.metadata);
            (Reverse(age != 0), age, *key)
        });
        let mut allotment = Allotment::without(taken);
        let allotted = wanting.into_iter().filter_map(|(key, _)| {
            let host = format!("{}.{}.svc.{cluster_domain}", key.name, key.namespace);
            Some((key.clone(), allotment.next(&key.namespace, &host)?))
        });
        Self(allotted.collect())
    }

    /// None for a headless service.
    pub(super) fn vips(
        &self,
        cx: &mut Context<'_>,
        key: &ObjectKey,
        spec: &ServiceSpec,
    ) -> Vec<IpAddr> {
        let mut vips = Vec::new();
        for text in texts(spec).filter(|text| *text != "None") {
            match text.parse() {
                Ok(vip) if !vips.contains(&vip) => vips.push(vip),
                Ok(_) => {}
                Err(_) => {
                    let reason = format!("{text:?} is not an IP address; it is left out");
                    cx.error::<Service>(key, "spec.clusterIP", reason);
                }
            }
        }
        if wants_address(spec) {
            vips = self.allotted(cx, key, spec);
        }
        vips
    }

    fn allotted(&self, cx: &mut Context<'_>, key: &ObjectKey, spec: &ServiceSpec) -> Vec<IpAddr> {
        let field = "spec.clusterIP".to_owned();
        let Some(pair) = self.0.get(key) else {
            cx.error::<Service>(
                key,
                field,
                "is missing, and no address is left to allot; give one",
            );
            return Vec::new();
        };
        let families: Vec<&str> = spec.ip_families.iter().flatten().map(String::as_str).collect();
        // A cluster gives one of its first family, unless both are asked for.
        let both = matches!(
            spec.ip_family_policy.as_deref(),
            Some("PreferDualStack" | "RequireDualStack")
        );
        let is_wanted = |vip: &IpAddr| {
            let family = if vip.is_ipv4() { "IPv4" } else { "IPv6" };
            families.contains(&family) || both || families.is_empty() && vip.is_ipv4()
        };
        let vips: Vec<IpAddr> = pair.iter().copied().filter(is_wanted).collect();
        let named: Vec<String> = vips.iter().map(IpAddr::to_string).collect();
        let reason = format!(
            "is not given; {} allotted (\"None\" makes the service headless)",
            match named.as_slice() {
                [one] => format!("{one} is"),
                several => format!("{} are", several.join(" and ")),
            }
        );
        cx.complain(Severity::Note, Kind::Service, key, field, reason);
        vips
    }
}

/// It says no address, nor that it wants none.
fn wants_address(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() != Some("ExternalName") && texts(spec).next().is_none()
}

fn texts(spec: &ServiceSpec) -> impl Iterator<Item = &str> {
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    all.map(String::as_str).filter(|text| !text.is_empty())
}
