//! BackendTLSPolicy (Gateway API, GEP-1897): TLS to the servers of a Service or ServiceEntry of its own namespace.
//!
//! A policy holds for its targets, those with a `sectionName` for one port. Of two for the same target and port the oldest holds; the
//! other is `Conflicted`. One that cannot be carried out has its targets' traffic refused.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::super::Context;
use crate::base::{ObjectKey, Str};
use crate::model::{self, Demand, PolicyTarget, Wish};
use crate::source::objects::{BackendTlsPolicy, ConfigMap, Kind, TargetRef, Typed};
use crate::source::{Condition, ConditionReason, ConditionType};
use crate::tls::{Origin, Roots, SubjectName, TlsSettings};
use crate::world::Attached;

/// By target.
#[derive(Default, PartialEq)]
pub(super) struct Policies(Attached<Target>);

/// One target of a policy.
#[derive(Clone, PartialEq)]
struct Target {
    by: Str,
    /// The name of the only port that is meant.
    port: Option<Str>,
    demand: Demand,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    /// Read by itself, whatever else is wrong.
    #[serde(rename = "targetRefs")]
    _target_refs: IgnoredAny,
    validation: Validation,
    #[serde(default)]
    options: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Validation {
    #[serde(default, rename = "caCertificateRefs")]
    ca_certificate_refs: Vec<CaRef>,
    #[serde(default, rename = "wellKnownCACertificates")]
    well_known: Option<String>,
    hostname: String,
    #[serde(default)]
    subject_alt_names: Vec<AltName>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CaRef {
    #[serde(default)]
    group: String,
    kind: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AltName {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    uri: Option<String>,
}

/// Why a policy cannot be carried out, and what its status says.
struct Fault {
    field: String,
    why: String,
    conditions: &'static [(ConditionType, ConditionReason)],
}

const INVALID: &[(ConditionType, ConditionReason)] =
    &[(ConditionType::Accepted, ConditionReason::Invalid)];
const CONFLICTED: &[(ConditionType, ConditionReason)] =
    &[(ConditionType::Accepted, ConditionReason::Conflicted)];
const NO_CA: &[(ConditionType, ConditionReason)] = &[
    (ConditionType::ResolvedRefs, ConditionReason::InvalidCaCertificateRef),
    (ConditionType::Accepted, ConditionReason::NoValidCaCertificate),
];
const NO_KIND: &[(ConditionType, ConditionReason)] = &[
    (ConditionType::ResolvedRefs, ConditionReason::InvalidKind),
    (ConditionType::Accepted, ConditionReason::NoValidCaCertificate),
];

impl Policies {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, cx: &mut Context<'_>, key: &ObjectKey, spec: &Value) {
        let by: Str = format!("{} {key}", Kind::BackendTLSPolicy).into();
        let (demand, faults) = match read(cx, key, &by, spec) {
            Ok((settings, faults)) => (Demand::Tls(Arc::new(Origin::new(settings))), faults),
            Err(fault) => (Demand::Impossible(fault.why.as_str().into()), vec![fault]),
        };
        let is_refused = matches!(demand, Demand::Impossible(_));
        // Of a spec that cannot be read as a whole, too: what the targets are sent must not go out in the clear.
        let targets = spec.get("targetRefs").and_then(Value::as_array);
        for (index, target) in targets.into_iter().flatten().enumerate() {
            let field = format!("spec.targetRefs[{index}]");
            for fault in &faults {
                let outcome = match is_refused {
                    true => {
                        "what is addressed to the target is refused rather than sent without TLS"
                    }
                    false => "the others hold",
                };
                complain(cx, key, index, fault, outcome);
            }
            let Some((target, port)) = target_of(target) else {
                let why =
                    "is neither a Service nor a ServiceEntry of the policy's namespace".into();
                let fault = Fault { field, why, conditions: INVALID };
                complain(cx, key, index, &fault, "the target is ignored");
                continue;
            };
            let known = self.0.to_target(&key.namespace, &target);
            if let Some(older) = known.iter().find(|it| it.port == port) {
                let why = format!("{} is older and holds for the target", older.by);
                let fault = Fault { field, why, conditions: CONFLICTED };
                complain(cx, key, index, &fault, "this policy has no effect there");
                continue;
            }
            let of_target = Target { by: by.clone(), port, demand: demand.clone() };
            self.0.on_target(&key.namespace, &target).push(of_target);
        }
    }

    /// What is said of a service, of single ports first.
    pub(super) fn of(&self, service: &model::Service) -> impl Iterator<Item = Wish> {
        let mut targets: Vec<&Target> = self.0.to_service(service).iter().collect();
        targets.sort_by_key(|target| target.port.is_none());
        targets.into_iter().filter_map(|target| target.wish(service))
    }
}

impl Target {
    /// `None` where the service has no port of that name.
    fn wish(&self, service: &model::Service) -> Option<Wish> {
        let (rest, ports) = match &self.port {
            None => (self.demand.clone(), BTreeMap::new()),
            Some(name) => {
                let port = service.ports.iter().find(|port| port.name == *name)?.port;
                (Demand::Nothing, [(port, self.demand.clone())].into())
            }
        };
        Some(Wish { by: self.by.clone(), rest, ports, subsets: BTreeMap::new() })
    }
}

/// A target of a policy, and the name of the only port that is meant there.
pub(super) fn target_of(written: &Value) -> Option<(PolicyTarget, Option<Str>)> {
    let text = |field: &str| written.get(field).and_then(Value::as_str);
    let reference = TargetRef {
        group: text("group").unwrap_or_default().to_owned(),
        kind: text("kind").unwrap_or_default().to_owned(),
        name: text("name").unwrap_or_default().to_owned(),
        namespace: None,
    };
    let target = reference.target()?;
    let is_service = matches!(target, PolicyTarget::Service(_) | PolicyTarget::ServiceEntry(_));
    let port = text("sectionName").filter(|name| !name.is_empty()).map(Str::from);
    is_service.then_some((target, port))
}

/// The settings, and faults of parts that others make up for.
fn read(
    cx: &Context<'_>,
    key: &ObjectKey,
    by: &Str,
    spec: &Value,
) -> Result<(TlsSettings, Vec<Fault>), Fault> {
    let fault = |field: &str, why: String| Fault { field: field.into(), why, conditions: INVALID };
    let spec: Spec =
        serde_json::from_value(spec.clone()).map_err(|error| fault("spec", error.to_string()))?;
    let Spec { validation, options, .. } = spec;
    if let Some(name) = options.keys().next() {
        return Err(fault("spec.options", format!("{name:?} is not known")));
    }
    let hostname = validation.hostname.to_ascii_lowercase();
    let is_name = !hostname.is_empty()
        && hostname.parse::<IpAddr>().is_err()
        && rustls::pki_types::DnsName::try_from(hostname.as_str()).is_ok();
    if !is_name {
        return Err(fault("spec.validation.hostname", format!("{hostname:?} is not a DNS name")));
    }
    let names = validation.subject_alt_names.iter().enumerate().map(|(index, name)| {
        let found = match (name.kind.as_str(), &name.hostname, &name.uri) {
            ("Hostname", Some(name), None) => SubjectName::Dns(name.to_ascii_lowercase().into()),
            ("URI", None, Some(uri)) => SubjectName::Uri(uri.as_str().into()),
            _ => {
                let why = "needs `hostname` with the type Hostname, or `uri` with the type URI";
                let field = format!("spec.validation.subjectAltNames[{index}]");
                return Err(fault(&field, why.into()));
            }
        };
        Ok(found)
    });
    let names = names.collect::<Result<Vec<_>, _>>()?;
    let (roots, faults) = roots(cx, key, &validation)?;
    let sni = Some(hostname.into());
    Ok((TlsSettings { by: by.clone(), sni, names, roots, client: None, crl: None }, faults))
}

/// Of several references that cannot be used some are left out; without any that can, there is nobody to vouch for the server.
fn roots(
    cx: &Context<'_>,
    key: &ObjectKey,
    validation: &Validation,
) -> Result<(Roots, Vec<Fault>), Fault> {
    let Validation { ca_certificate_refs: references, well_known, .. } = validation;
    let field = |name: &str| format!("spec.validation.{name}");
    match (well_known.as_deref(), references.is_empty()) {
        (Some("System"), true) => return Ok((Roots::System, Vec::new())),
        (None, false) => {}
        (Some("System") | None, _) => {
            let why = "needs either caCertificateRefs or wellKnownCACertificates".to_owned();
            return Err(Fault { field: "spec.validation".into(), why, conditions: INVALID });
        }
        (Some(other), _) => {
            let why = format!("{other:?} is not known; System is");
            let field = field("wellKnownCACertificates");
            return Err(Fault { field, why, conditions: INVALID });
        }
    }
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    for (index, CaRef { group, kind, name }) in references.iter().enumerate() {
        let field = field(&format!("caCertificateRefs[{index}]"));
        if (group.as_str(), kind.as_str()) != ("", "ConfigMap") {
            let why = format!("{kind:?} of group {group:?} is not read; a ConfigMap is");
            faults.push(Fault { field, why, conditions: NO_KIND });
            continue;
        }
        let config = ObjectKey::new(key.namespace.clone(), name.as_str());
        match cx.objects.get::<ConfigMap>(&config).and_then(|config| config.ca.clone()) {
            Some(ca) => found.push(ca),
            None => {
                let why = format!(
                    "there is no ConfigMap {config} with certificates under the key ca.crt; agents on a cluster read none"
                );
                faults.push(Fault { field, why, conditions: NO_CA });
            }
        }
    }
    match (found.is_empty(), faults.pop()) {
        (true, Some(fault)) => Err(fault),
        (_, last) => {
            faults.extend(last);
            Ok((Roots::Of(found), faults))
        }
    }
}

fn complain(
    cx: &mut Context<'_>,
    key: &ObjectKey,
    index: usize,
    Fault { field, why, conditions }: &Fault,
    outcome: &str,
) {
    let reason = format!("{why}; {outcome}");
    for (kind, of) in *conditions {
        // A part that others make up for does not make the policy invalid.
        if outcome == "the others hold" && *kind == ConditionType::Accepted {
            continue;
        }
        let condition = Condition::of_parent(*kind, *of, index);
        cx.error_of(BackendTlsPolicy::KIND, key, field.clone(), reason.clone(), condition);
    }
}
