//! What DestinationRules and BackendTLSPolicies want encrypted. TLS to applications is not carried out yet, and what they
//! would have encrypted must not go out in the clear: the data path refuses it ([`model::Encryption`]).
//!
//! Whose word counts for whom: a BackendTLSPolicy stands in its Service's own namespace. Of DestinationRules, as in Istio, the
//! one with the most specific host of a namespace counts: the service's own namespace's for all clients (as far as
//! `exportTo` goes), without one the root namespace's; that of any other namespace for that namespace's own clients, to
//! whom it adds.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::by_host::{self, ByHost};
use super::{Context, is_of_other_revision};
use crate::base::{ObjectKey, Str};
use crate::model::{self, Demand, Encryption, Wish};
use crate::source::objects::{BackendTlsPolicy, DestinationRule, Kind, TargetRef, Typed};
use crate::source::{Condition, ConditionReason, ConditionType, Severity};
use crate::world::Attached;

/// Every wish, to be looked up by service.
#[derive(Default, PartialEq)]
pub(super) struct Encryptions {
    root_namespace: Str,
    rules: ByHost<DestinationTls>,
    /// BackendTLSPolicies.
    targets: Attached<Target>,
}

/// What one DestinationRule says of TLS, which may be nothing.
#[derive(PartialEq)]
struct DestinationTls {
    wish: Arc<Wish>,
    /// Namespaces of clients that may see it; `None`: all.
    exported: Option<Vec<Str>>,
}

/// One target of a BackendTLSPolicy.
#[derive(PartialEq)]
struct Target {
    by: Str,
    /// The name of the only port that is meant.
    port: Option<Str>,
}

impl Encryptions {
    pub(super) fn collect(cx: &mut Context<'_>) -> Self {
        let root_namespace = cx.settings.root_namespace.clone();
        let mut all = Self { root_namespace, ..Self::default() };
        let objects = cx.objects;
        for (key, rule) in objects.all::<DestinationRule>() {
            if !is_of_other_revision(cx.settings, rule) {
                all.add_rule(cx, key, &rule.spec);
            }
        }
        for (key, policy) in objects.all::<BackendTlsPolicy>() {
            if !is_of_other_revision(cx.settings, policy) {
                all.add_policy(key, &policy.spec);
            }
        }
        all
    }

    fn add_rule(&mut self, cx: &mut Context<'_>, key: &ObjectKey, spec: &Value) {
        let wish = wish_of(key, spec);
        if wish.is_anything() {
            complain(cx, key, &wish);
        }
        let Some(host) = spec.get("host").and_then(Value::as_str) else { return };
        let to = spec.get("exportTo").and_then(Value::as_array).into_iter().flatten();
        let to = to.filter_map(Value::as_str);
        let exported = by_host::exported(cx, Kind::DestinationRule, key, to);
        let host = by_host::full_host(cx, key, host);
        self.rules.add(&host, &key.namespace, DestinationTls { wish: Arc::new(wish), exported });
    }

    fn add_policy(&mut self, key: &ObjectKey, spec: &Value) {
        for target in spec.get("targetRefs").and_then(Value::as_array).into_iter().flatten() {
            let text = |field: &str| target.get(field).and_then(Value::as_str);
            let written = TargetRef {
                group: text("group").unwrap_or_default().to_owned(),
                kind: text("kind").unwrap_or_default().to_owned(),
                name: text("name").unwrap_or_default().to_owned(),
                namespace: None,
            };
            let Some(target) = written.target() else { continue };
            let by = format!("{} {key}", Kind::BackendTLSPolicy).into();
            let port = text("sectionName").map(Str::from);
            self.targets.on_target(&key.namespace, &target).push(Target { by, port });
        }
    }

    /// What is wanted of connections to a service.
    pub(super) fn of(&self, service: &model::Service) -> Encryption {
        let mut encryption = Encryption::default();
        if self.rules.is_empty() && self.targets.is_empty() {
            return encryption;
        }
        let namespace = &service.key.namespace;
        for target in self.targets.to_service(service) {
            if let Some(wish) = target.wish(service) {
                encryption.add(None, Arc::new(wish));
            }
        }
        let by_namespace = self.rules.most_specific(&service.hostname);
        let spoken = by_namespace.contains_key(namespace);
        for (of, rules) in by_namespace {
            let speaks = of == namespace || *of == self.root_namespace && !spoken;
            for rule in rules.into_iter().filter(|rule| rule.wish.is_anything()) {
                let wish = || rule.wish.clone();
                match &rule.exported {
                    None if speaks => encryption.add(None, wish()),
                    Some(clients) if speaks => {
                        clients.iter().for_each(|it| encryption.add(Some(it), wish()));
                    }
                    _ => encryption.add(Some(of), wish()),
                }
            }
        }
        encryption
    }
}

impl Target {
    /// `None` where the service has no port of that name.
    fn wish(&self, service: &model::Service) -> Option<Wish> {
        let (rest, ports) = match &self.port {
            None => (Demand::Application, BTreeMap::new()),
            Some(name) => {
                let port = service.ports.iter().find(|port| port.name == *name)?.port;
                (Demand::Nothing, [(port, Demand::Application)].into())
            }
        };
        Some(Wish { by: self.by.clone(), rest, ports })
    }
}

/// By the policies for all traffic, for ports, and for subsets: where routes lead to subsets, all may be meant.
fn wish_of(key: &ObjectKey, spec: &Value) -> Wish {
    let subsets = spec.get("subsets").and_then(Value::as_array).into_iter().flatten();
    let policies = [Some(spec)].into_iter().chain(subsets.map(Some)).flatten();
    let by: Str = format!("{} {key}", Kind::DestinationRule).into();
    let nothing = Wish { by: by.clone(), rest: Demand::Nothing, ports: BTreeMap::new() };
    policies.fold(nothing, |all, holder| {
        let Some(policy) = holder.get("trafficPolicy") else { return all };
        let of_ports = policy.get("portLevelSettings").and_then(Value::as_array);
        let ports = of_ports.into_iter().flatten().filter_map(|setting| {
            let number = setting.get("port")?.get("number")?.as_u64()?;
            Some((u16::try_from(number).ok()?, demand(setting.get("tls"))))
        });
        all.and(&Wish { by: by.clone(), rest: demand(policy.get("tls")), ports: ports.collect() })
    })
}

/// ClientTLSSettings; without a mode they say DISABLE. A mode that is not known asks for no less than any other.
fn demand(tls: Option<&Value>) -> Demand {
    match tls {
        None | Some(Value::Null) => Demand::Nothing,
        Some(tls) => match tls.get("mode") {
            None | Some(Value::Null) if tls.is_object() => Demand::Nothing,
            Some(mode) if mode == "DISABLE" => Demand::Nothing,
            Some(mode) if mode == "ISTIO_MUTUAL" => Demand::Mesh,
            _ => Demand::Application,
        },
    }
}

fn complain(cx: &mut Context<'_>, key: &ObjectKey, wish: &Wish) {
    let all = || wish.ports.values().chain([&wish.rest]);
    let (severity, reason) = if all().any(|demand| *demand == Demand::Application) {
        let reason = "TLS to applications is not carried out: what is addressed to the host is refused rather than sent \
                      without it, for all clients if the host is of this namespace, else for this namespace's clients. \
                      Let clients speak TLS themselves, and remove this or say DISABLE";
        (Severity::Error, reason)
    } else {
        let reason = "the tunnels of the mesh are what ISTIO_MUTUAL asks for; where no tunnel leads, traffic for the host is \
                      refused rather than sent in the clear. Remove this, or say DISABLE, if that is not meant";
        (Severity::Warning, reason)
    };
    let field = "spec.trafficPolicy.tls".to_owned();
    cx.complain(severity, DestinationRule::KIND, key, field, reason.to_owned());
    if let Some(complaint) = cx.complaints.last_mut().filter(|_| severity == Severity::Error) {
        let reason = ConditionReason::NotSupported;
        complaint.condition = Some(Condition::of(ConditionType::Accepted, reason));
    }
}
