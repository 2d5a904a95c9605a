//! Every label and annotation that Istio reads in ambient mode, and those of sidecars and gateways that people have beside
//! them: what it means here.

use std::fmt;

use crate::source::objects::Kind;

/// One name.
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) place: Place,
    /// The kinds on which it means something.
    pub(super) on: &'static [Kind],
    pub(super) meaning: Meaning,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Label,
    Annotation,
}

/// What a name means here.
pub(super) enum Meaning {
    /// Carried out; whoever reads it says which values it does not understand.
    Any,
    /// Carried out, with these values.
    OneOf(&'static [&'static str]),
    /// Others write or read it; nothing of the mesh's behaviour depends on it.
    Silent,
    /// Istio acts upon it and we do not, unless it has one of the values that ask for nothing.
    Not { harmless: &'static [&'static str], instead: &'static str },
}

use Kind::{
    AuthorizationPolicy, DestinationRule, Gateway, GatewayClass, Namespace, Pod, Service,
    ServiceEntry, WorkloadEntry,
};
use Meaning::{Any, Not, OneOf, Silent};
use Place::{Annotation, Label};

impl Place {
    pub(super) fn other(self) -> Self {
        match self {
            Label => Annotation,
            Annotation => Label,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Label => "a label",
            Annotation => "an annotation",
        })
    }
}

const fn row(name: &'static str, place: Place, on: &'static [Kind], meaning: Meaning) -> Known {
    Known { name, place, on, meaning }
}

const fn silent(name: &'static str, place: Place) -> Known {
    row(name, place, &[], Silent)
}

const FLAG: Meaning = OneOf(&["true", "false"]);
const NETWORKS: Meaning = Not {
    harmless: &[""],
    instead: "all pods are taken to be on one network; pods of other networks are reached only where their addresses can be",
};
const SIDECAR: Meaning = Not {
    harmless: &["false", "disabled"],
    instead: "no sidecar is injected; label the namespace or pod with istio.io/dataplane-mode: ambient. A pod that Istio's \
              injector has given a sidecar is left to it",
};
const SANDWICH: Meaning = Not {
    harmless: &[""],
    instead: "a waypoint is no process of its own here, so nothing can be bound into it",
};
const GATEWAY_NAMES: Meaning = Not {
    harmless: &[""],
    instead: "a waypoint's principal is the service account that is named like its Gateway; name that one in policies",
};

pub(super) const TABLE: &[Known] = &[
    // Carried out.
    row("istio.io/dataplane-mode", Label, &[Namespace, Pod], Any),
    row("istio.io/use-waypoint", Label, &[Namespace, Service, ServiceEntry, Pod], Any),
    row("istio.io/use-waypoint-namespace", Label, &[Namespace, Service, ServiceEntry, Pod], Any),
    row("istio.io/ingress-use-waypoint", Label, &[Namespace, Service, ServiceEntry], FLAG),
    row("istio.io/use-waypoint-canary", Label, &[Namespace, Service, ServiceEntry], Any),
    row("istio.io/use-waypoint-canary-namespace", Label, &[Namespace, Service, ServiceEntry], Any),
    row(
        "istio.io/use-waypoint-canary-weight",
        Annotation,
        &[Namespace, Service, ServiceEntry],
        Any,
    ),
    row("istio.io/waypoint-for", Label, &[Gateway, GatewayClass], Any),
    row("istio.io/dry-run", Annotation, &[AuthorizationPolicy], Any),
    row("ambient.istio.io/xfcc-include-client-identity", Annotation, &[Gateway, GatewayClass], Any),
    row("ambient.istio.io/dns-capture", Annotation, &[Pod], Any),
    row("ambient.istio.io/bypass-inbound-capture", Annotation, &[Pod], Any),
    row("networking.istio.io/enable-autoallocate-ip", Label, &[ServiceEntry], FLAG),
    row(
        "networking.istio.io/traffic-distribution",
        Annotation,
        &[Service, ServiceEntry, Namespace],
        Any,
    ),
    row("isthmus.io/load-balancer", Annotation, &[DestinationRule], Any),
    row("istio.io/connect-strategy", Annotation, &[ServiceEntry], Any),
    row("isthmus.io/network-namespace", Annotation, &[Pod], Any),
    row("isthmus.io/node", Annotation, &[Pod], Any),
    // Read by Istio in ambient mode, and not carried out.
    row("istio.io/global", Label, &[Service, ServiceEntry], NETWORKS_OF_SERVICES),
    row(
        "topology.istio.io/network",
        Label,
        &[Namespace, Pod, Service, Gateway, WorkloadEntry],
        NETWORKS,
    ),
    row("networking.istio.io/gatewayPort", Label, &[Service, Gateway], NETWORKS),
    row(
        "networking.istio.io/tunnel",
        Label,
        &[Pod, WorkloadEntry],
        Not {
            harmless: &[""],
            instead: "only pods that an agent captures are spoken to in tunnels; this one is reached in the clear unless it is \
                      enrolled",
        },
    ),
    row(
        "networking.istio.io/exportTo",
        Annotation,
        &[Service],
        Not {
            harmless: &["*"],
            instead: "hiding a name keeps nobody out; write an AuthorizationPolicy",
        },
    ),
    row(
        "istio.io/reroute-virtual-interfaces",
        Annotation,
        &[Pod],
        Not {
            harmless: &[""],
            instead: "what virtual machines or containers behind the pod open to elsewhere is refused (docs/ports.md, Pods that \
                      forward)",
        },
    ),
    row(
        "ambient.istio.io/waypoint-inbound-binding",
        Annotation,
        &[Gateway, GatewayClass],
        SANDWICH,
    ),
    row(
        "istio.io/for-service-account",
        Annotation,
        &[Gateway],
        Not {
            harmless: &[""],
            instead: "waypoints for service accounts are gone from Istio, too; label Services or Pods with istio.io/use-waypoint",
        },
    ),
    row("gateway.istio.io/service-account", Annotation, &[Gateway], GATEWAY_NAMES),
    row("gateway.istio.io/name-override", Annotation, &[Gateway], GATEWAY_NAMES),
    row(
        "ambient.istio.io/redirection",
        Annotation,
        &[Pod],
        Not {
            harmless: &["enabled", "pending"],
            instead: "to keep a pod out of the mesh, label it with istio.io/dataplane-mode: none",
        },
    ),
    row("istio-injection", Label, &[Namespace], SIDECAR),
    row("sidecar.istio.io/inject", Label, &[Pod], SIDECAR),
    row("sidecar.istio.io/inject", Annotation, &[Pod], SIDECAR),
    // Read, or written, by others.
    silent("istio.io/rev", Label),
    silent("istio.io/rev", Annotation),
    silent("istio.io/tag", Label),
    silent("istio.io/description", Annotation),
    silent("istio.io/owned-by", Label),
    silent("istio.io/gateway-name", Label),
    silent("istio.io/mesh-controller", Label),
    silent("istio.io/ignore-policy-attachment", Annotation),
    silent("istio.io/autoRegistrationGroup", Annotation),
    silent("istio.io/workloadController", Annotation),
    silent("istio.io/connectedAt", Annotation),
    silent("istio.io/disconnectedAt", Annotation),
    silent("service.istio.io/canonical-name", Label),
    silent("service.istio.io/canonical-revision", Label),
    silent("service.istio.io/workload-name", Label),
    silent("topology.istio.io/subzone", Label),
    silent("topology.istio.io/cluster", Label),
    silent("topology.istio.io/controlPlaneClusters", Annotation),
    silent("gateway.istio.io/managed", Label),
    silent("gateway.istio.io/controller-version", Annotation),
    silent("gateway.istio.io/alias-for", Annotation),
    silent("gateway.istio.io/defaults-for-class", Label),
    silent("gateway.istio.io/deployment", Annotation),
    silent("gateway.istio.io/internal-service", Annotation),
    silent("gateway.istio.io/tls-terminate-mode", Annotation),
    silent("gateway.networking.k8s.io/gateway-name", Label),
    silent("gateway.networking.k8s.io/gateway-class-name", Label),
    silent("gateway.networking.k8s.io/policy", Label),
    silent("gateway.networking.k8s.io/bundle-version", Annotation),
    silent("gateway.networking.k8s.io/channel", Annotation),
    silent("networking.istio.io/service-type", Annotation),
    silent("networking.istio.io/address-type", Annotation),
];

const NETWORKS_OF_SERVICES: Meaning = Not {
    harmless: &["false"],
    instead: "a Service is one of this cluster; give the other cluster's endpoints in an EndpointSlice or a ServiceEntry",
};
