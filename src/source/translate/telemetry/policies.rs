//! XTelemetryPolicies (Gateway API, GEP-4768): how requests to the services of a waypoint are traced.
//!
//! One policy holds for a Gateway: the oldest, then the first by namespace and name. With `mode: Enabled` it says all of tracing that
//! it has fields for, so that nothing of them is inherited but the rate; `Disabled` ends it; `ImplementationDefault` says nothing.
//! Tenants write these policies, so their collectors are Services alone, and the agent connects to those of them only that
//! [`reachable`](crate::base::reachable) permits.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::super::waypoint::CLASS;
use super::super::{Context, is_of_other_revision};
use super::level::Level;
use super::providers::{Collectors, MAX_TAG_LENGTH};
use super::tracing::{MOST_TAGS, More, Tags, Traced, text};
use crate::base::{ObjectKey, Str};
use crate::model::{AppProtocol, Mesh, PolicyTarget, Service};
use crate::source::objects::{
    AttributeSource, Fraction, GATEWAY_X_GROUP, Gateway, GatewayTracing, Kind, PolicyMode,
    ReferenceGrant, SpanAttribute, TracingProvider, XTelemetryPolicy, created,
};
use crate::source::{Condition, ConditionReason, ConditionType, Severity};
use crate::telemetry::is_attribute;
use crate::trace::{Parent, Protocol, Provider, Rate, Tag, TagValue};

/// Where OTLP over HTTP is received (OTLP, "Default port").
const HTTP_PORT: u16 = 4318;
/// The API's bound.
const MOST_HEADERS: usize = 16;

/// The policy of each Gateway.
#[derive(Default)]
pub(super) struct Policies(BTreeMap<ObjectKey, Held>);

struct Held {
    policy: ObjectKey,
    level: Level,
}

impl Policies {
    pub(super) fn read(cx: &mut Context<'_>, mesh: &Mesh) -> Self {
        let mut all = Self::default();
        let objects = cx.objects;
        let mut policies: Vec<_> = objects.all::<XTelemetryPolicy>().collect();
        policies.sort_by_key(|(key, policy)| (created(&policy.metadata), *key));
        for (key, policy) in policies {
            if is_of_other_revision(cx.settings, policy) {
                continue;
            }
            let mut gateways = Vec::new();
            for (index, target) in policy.spec.target_refs.iter().enumerate() {
                let Some(PolicyTarget::Gateway(name)) = target.target() else {
                    let field = format!("spec.targetRefs[{index}]");
                    let reason = "is no Gateway, which the policy is for; the target is ignored";
                    cx.warn::<XTelemetryPolicy>(key, field, reason);
                    continue;
                };
                let gateway = ObjectKey::new(key.namespace.clone(), name);
                if all.may_have(cx, mesh, (key, index), &gateway) {
                    gateways.push(gateway);
                }
            }
            let tracing = policy.spec.tracing.as_ref().filter(|_| !gateways.is_empty());
            let Some(tracing) = tracing else { continue };
            let reader = Reader { key, mesh };
            let level = Level::of_tracing(reader.read(cx, tracing));
            for gateway in gateways {
                let held = Held { policy: key.clone(), level: level.clone() };
                all.0.insert(gateway, held);
            }
        }
        all
    }

    /// Whether the policy is the Gateway's. Says why not, of the waypoints of this mesh; others are another controller's.
    fn may_have(
        &self,
        cx: &mut Context<'_>,
        mesh: &Mesh,
        (policy, index): (&ObjectKey, usize),
        gateway: &ObjectKey,
    ) -> bool {
        let (reason, why) = match (
            self.0.get(gateway),
            mesh.waypoints.iter().any(|it| it.key == *gateway),
        ) {
            (None, true) => return true,
            (Some(held), _) if held.policy == *policy => return true,
            (Some(held), _) => (
                ConditionReason::Conflicted,
                format!("the XTelemetryPolicy {} is older and holds for this Gateway", held.policy),
            ),
            (None, false) => {
                let known = cx.objects.get::<Gateway>(gateway);
                if known.is_some_and(|it| it.spec.gateway_class_name != CLASS) {
                    return false;
                }
                let why = format!(
                    "the Gateway {gateway} does not exist or is no waypoint that can be used; the policy is not in force for it"
                );
                (ConditionReason::TargetNotFound, why)
            }
        };
        let field = format!("spec.targetRefs[{index}]");
        cx.complain(Severity::Warning, Kind::XTelemetryPolicy, policy, field, why);
        if let Some(complaint) = cx.complaints.last_mut() {
            let condition = Condition::of_parent(ConditionType::Accepted, reason, index);
            complaint.condition = Some(condition);
        }
        false
    }

    pub(super) fn gateways(&self) -> impl Iterator<Item = &ObjectKey> {
        self.0.keys()
    }

    /// What the policy of a Gateway says.
    pub(super) fn of(&self, gateway: &ObjectKey) -> Option<&Level> {
        self.0.get(gateway).map(|held| &held.level)
    }
}

/// Reads one policy, and complains of it.
struct Reader<'a> {
    key: &'a ObjectKey,
    mesh: &'a Mesh,
}

impl Reader<'_> {
    fn read(&self, cx: &mut Context<'_>, tracing: &GatewayTracing) -> Traced {
        match tracing.mode {
            PolicyMode::ImplementationDefault => return Traced::default(),
            PolicyMode::Disabled => return Traced { disabled: Some(true), ..Traced::default() },
            PolicyMode::Enabled => {}
        }
        let provider = tracing.provider.as_ref().and_then(|it| self.provider(cx, it));
        let max_path = Some(MAX_TAG_LENGTH as usize);
        let parent = tracing.parent_based_sampling.as_ref();
        let parent = parent.map_or(Parent::Holds, |it| match (it.mode, it.sampling_rate) {
            (PolicyMode::Disabled, _) => Parent::Ignored,
            (PolicyMode::Enabled, Some(share)) => Parent::Limited(rate(share)),
            (PolicyMode::Enabled | PolicyMode::ImplementationDefault, _) => Parent::Holds,
        });
        let name = |written: &Option<String>| written.as_deref().map(text);
        Traced {
            // Without one that can be used, nothing is recorded, rather than sent to the collector of a wider level.
            providers: Some(Collectors { providers: provider.into_iter().collect(), max_path }),
            rate: tracing.sampling_rate.map(rate),
            disabled: Some(false),
            tags: Some(self.tags(cx, &tracing.attributes)),
            more: Some(More {
                parent,
                span_name: name(&tracing.span_name),
                service_name: name(&tracing.service_name),
            }),
            ..Traced::default()
        }
    }

    fn tags(&self, cx: &mut Context<'_>, attributes: &[SpanAttribute]) -> Tags {
        let (mut read, mut copies) = (Vec::new(), Vec::new());
        if attributes.len() > MOST_TAGS {
            let reason = format!("are more than {MOST_TAGS}; the first hold");
            cx.warn::<XTelemetryPolicy>(self.key, "spec.tracing.attributes", reason);
        }
        for (index, it) in attributes.iter().take(MOST_TAGS).enumerate() {
            let (name, field) = (text(&it.name), format!("spec.tracing.attributes[{index}]"));
            let fault =
                match (it.source_type, &it.header_name, &it.literal_value, &it.attribute_key) {
                    (AttributeSource::Header, Some(header), ..) => {
                        match HeaderName::try_from(header.as_str()) {
                            Ok(header) => {
                                let value = TagValue::Header { name: header, default: None };
                                read.push(Tag { name, value });
                                continue;
                            }
                            Err(_) => format!("{header:?} is not the name of a header"),
                        }
                    }
                    (AttributeSource::Literal, _, Some(literal), _) => {
                        read.push(Tag { name, value: TagValue::Literal(text(literal)) });
                        continue;
                    }
                    (AttributeSource::Attribute, .., Some(key)) if is_attribute(key) => {
                        copies.push((name, text(key)));
                        continue;
                    }
                    (AttributeSource::Attribute, .., Some(key)) => {
                        format!("{key} is no attribute that spans of requests have here")
                    }
                    _ => "has no value of its sourceType".to_owned(),
                };
            cx.warn::<XTelemetryPolicy>(self.key, field, format!("{fault}; it is left out"));
        }
        Tags { read: read.into(), copies: copies.into(), ..Tags::default() }
    }

    /// The collector; `None`, with a complaint, where it cannot be used.
    fn provider(&self, cx: &mut Context<'_>, written: &TracingProvider) -> Option<Arc<Provider>> {
        let (service, port) = match self.service(cx, written) {
            Ok(found) => found,
            Err((reason, why)) => {
                let reason = Condition::of(ConditionType::ResolvedRefs, reason);
                let field = "spec.tracing.provider.backendRef".to_owned();
                let why = format!("{why}; nothing is recorded");
                cx.error_of(Kind::XTelemetryPolicy, self.key, field, why, reason);
                return None;
            }
        };
        let mut headers = Vec::new();
        for (index, header) in written.headers.iter().take(MOST_HEADERS).enumerate() {
            if HeaderName::try_from(header.name.as_str()).is_err()
                || HeaderValue::from_str(&header.value).is_err()
            {
                let field = format!("spec.tracing.provider.headers[{index}]");
                let reason = "has a name or a value that no header has; it is left out";
                cx.warn::<XTelemetryPolicy>(self.key, field, reason);
                continue;
            }
            headers.push((header.name.to_ascii_lowercase().into(), header.value.as_str().into()));
        }
        let protocol = service.port(port).map(|it| it.protocol);
        let protocol = match (protocol, port) {
            (Some(AppProtocol::Http2), _) => Protocol::Grpc,
            (Some(AppProtocol::Http), _) | (_, HTTP_PORT) => {
                Protocol::Http { path: Protocol::PATH }
            }
            _ => Protocol::Grpc,
        };
        Some(Arc::new(Provider {
            name: format!("{} {}", Kind::XTelemetryPolicy, self.key).into(),
            host: service.hostname.clone(),
            namespace: Some(service.key.namespace.clone()),
            port,
            protocol,
            timeout: Provider::TIMEOUT,
            tenant: Some(self.key.namespace.clone()),
            headers,
        }))
    }

    fn service(
        &self,
        cx: &Context<'_>,
        written: &TracingProvider,
    ) -> Result<(&Service, u16), (ConditionReason, String)> {
        let backend = &written.backend_ref;
        if !matches!(backend.group.as_str(), "" | "core") || backend.kind != "Service" {
            let why = format!(
                "{:?} of group {:?} cannot be a collector, only a Service can",
                backend.kind, backend.group
            );
            return Err((ConditionReason::InvalidKind, why));
        }
        let namespace = backend.namespace.as_deref().unwrap_or(&self.key.namespace);
        let wanted = ObjectKey::new(namespace, backend.name.as_str());
        // Before it is told whether it exists.
        if !is_granted(cx, &self.key.namespace, &wanted) {
            let why = format!(
                "no ReferenceGrant of the namespace {namespace:?} permits XTelemetryPolicies of {:?} to name the Service {wanted}",
                self.key.namespace
            );
            return Err((ConditionReason::RefNotPermitted, why));
        }
        let services = &self.mesh.services;
        let service = services.iter().find(|it| it.entry.is_none() && it.key == wanted);
        let not_found = |why: String| (ConditionReason::BackendNotFound, why);
        let service = service.ok_or_else(|| {
            not_found(format!(
                "the Service {wanted} does not exist, was refused, or is of type ExternalName"
            ))
        })?;
        let port = backend.port.filter(|port| service.port(*port).is_some());
        let port = port.ok_or_else(|| {
            not_found(format!("port: is missing, or the Service {wanted} has no such TCP port"))
        })?;
        Ok((service, port))
    }
}

/// Whether policies of a namespace may name a Service (Gateway API, ReferenceGrant).
fn is_granted(cx: &Context<'_>, from: &Str, to: &ObjectKey) -> bool {
    if *from == to.namespace {
        return true;
    }
    cx.objects.all_in::<ReferenceGrant>(&to.namespace).any(|(_, grant)| {
        let by = grant.spec.from.iter().any(|it| {
            (it.group.as_str(), it.kind.as_str())
                == (GATEWAY_X_GROUP, Kind::XTelemetryPolicy.name())
                && *from == *it.namespace
        });
        by && grant.spec.to.iter().any(|it| {
            (it.group.as_str(), it.kind.as_str()) == ("", "Service")
                && it.name.as_ref().is_none_or(|name| to.name == **name)
        })
    })
}

fn rate(Fraction { numerator, denominator }: Fraction) -> Rate {
    Rate::of_fraction(numerator, denominator)
}
