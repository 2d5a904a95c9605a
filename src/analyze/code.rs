//! The codes of findings. A code keeps its number and its meaning; a finding that is given up leaves its number unused.

use std::fmt;

/// How bad a finding is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Traffic is refused or answered with an error because of it.
    Error,
    /// Something does not do what it seems to say.
    Warning,
    /// Right, and worth a look.
    Info,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Info => "info",
        })
    }
}

/// A code, and what the documentation says of it.
#[derive(Clone, Copy, Debug)]
pub struct Described {
    pub code: Code,
    /// As users see it.
    pub id: &'static str,
    pub level: Level,
    /// What is found.
    pub finds: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// What to do.
    pub mend: &'static str,
}

/// Declares the codes and their table together, so that none is without words.
macro_rules! codes {
    ($($code:ident = $id:literal, $level:ident: $finds:literal, $why:literal, $mend:literal;)*) => {
        /// What is found.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($code,)* }

        /// All of them, by number.
        pub const CODES: &[Described] = &[$(Described {
            code: Code::$code,
            id: $id,
            level: Level::$level,
            finds: $finds,
            why: $why,
            mend: $mend,
        },)*];
    };
}

impl Code {
    /// Its row of the table.
    pub fn described(self) -> &'static Described {
        // The table has the codes in the order of their declaration.
        &CODES[self as usize]
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.described().id)
    }
}

impl<'de> serde::Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let id = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        let row = CODES.iter().find(|row| row.id == id);
        row.map(|row| row.code).ok_or_else(|| serde::de::Error::custom(format!("no code {id}")))
    }
}

codes! {
    Refused = "ISA0001", Error: "an object, or a part of one, is refused",
        "The object or the part is not in force. A security policy that cannot be understood denies what it may apply to; the \
         requests of a rule that cannot be carried out are answered with an error.",
        "Change the field that is named. `isthmus check DIR` tells the same before the object is applied.";
    NoEffect = "ISA0002", Warning: "a field, label or annotation has no effect, or another one than it has elsewhere",
        "The object says something that Isthmus, or ambient mode, does not do. Whoever reads the manifest believes that it holds.",
        "Remove the field, or write what the message names instead.";
    NotCarriedOut = "ISA0003", Warning: "an object of a kind that is not carried out",
        "Nothing of the object is in force. What it would have checked is not checked.",
        "Use what the message names instead; [resources](resources.md#unsupported-kinds) lists these kinds.";

    RouteWithoutWaypoint = "ISA0101", Warning: "a route of requests is for a service without a waypoint",
        "Requests are parsed only for services that have a waypoint. Without one, connections to the service go on at layer 4, and the \
         route is not looked at.",
        "Label the Service, or its namespace, with `istio.io/use-waypoint`, and write the Gateway of class `istio-waypoint` that the \
         label names.";
    RouteOnTcpPort = "ISA0102", Warning: "a route of requests is for a port that is not HTTP",
        "The port's `appProtocol`, or the prefix of its name, says that it speaks something else. Nobody parses requests on it.",
        "Set `appProtocol: http` (or `http2`, `grpc`), or name the port `http-...`. For bytes, write a TCPRoute.";
    RouteUnaddressed = "ISA0103", Warning: "a route is for a service that nobody addresses",
        "Clients of a headless Service connect to its pods. A route holds for what is addressed to the Service.",
        "Attach the route to a Service with a clusterIP.";
    ParentMissing = "ISA0104", Error: "the parent of a route does not exist, or has no such port",
        "The route is not attached there, so that requests go where they would go without it.",
        "Correct the name, namespace, group or port in `parentRefs`.";
    BackendMissing = "ISA0105", Error: "a rule leads to what does not exist",
        "The backend keeps its share of the requests, and these are answered with an error (500, 503 or UNAVAILABLE; a connection is \
         closed).",
        "Correct the name, namespace or port, or apply the Service or ServiceEntry first.";
    NoBackend = "ISA0106", Warning: "a rule has no backend with a weight above 0",
        "All requests that the rule takes are answered with an error.",
        "Give one backend a weight, or delete the rule, so that another one takes its requests.";
    NeverReached = "ISA0107", Warning: "a match is never reached: another one takes all of its requests before",
        "The rule's backends and filters are never used. In a VirtualService the first match holds; in an HTTPRoute or GRPCRoute the \
         most specific one does, and a regular expression is tried after every exact path and prefix.",
        "Delete the match, put it before the other one (VirtualService), or make it more specific.";
    Outdone = "ISA0108", Warning: "several routes say something for the same requests of one service, and another one holds",
        "Of several kinds of routes on a port only one holds, and of equal matches the oldest route's. Which of them that is does not \
         show in the manifest.",
        "Merge the routes, give them matches that differ, or delete one.";
    BackendElsewhere = "ISA0109", Info: "a rule leads to another namespace that has no ReferenceGrant for it",
        "Isthmus asks for no ReferenceGrant in the mesh (GEP-1294), because clients keep their identity and the destination judges \
         them. Other implementations may refuse the backend; and where the namespace is neither the client's nor the route's, the \
         policies there must permit the waypoint, too.",
        "Nothing has to be done. For portable manifests, write a ReferenceGrant in the backend's namespace.";
    VirtualServiceField = "ISA0110", Warning: "a field of a VirtualService has no effect, or another one than in Istio",
        "The rest of the VirtualService is in force. [VirtualService](virtual-services.md#fields) tells what each field does.",
        "Remove the field, or write what the message names instead.";
    SubsetMissing = "ISA0111", Error: "a VirtualService leads to a subset that no DestinationRule names",
        "The requests of that destination are answered with 503.",
        "Add the subset to the DestinationRule of the host, or correct its name. `exportTo` of the rule must admit the namespace.";

    SelectsNothing = "ISA0201", Warning: "the selector of a policy selects no workload",
        "The policy does nothing. What it was to guard is not guarded.",
        "Compare the labels with those of the pods (of their template, for a Deployment), and the namespace of the policy with theirs.";
    TargetMissing = "ISA0202", Warning: "a target of a policy does not exist, or has no waypoint",
        "A policy with `targetRefs` is enforced for what is bound to a waypoint. It is not enforced for this target.",
        "Correct the name, or give the target a waypoint (`istio.io/use-waypoint`). A policy with a selector needs no waypoint.";
    AllowAdmitsNobody = "ISA0203", Warning: "an ALLOW rule names only identities that no workload has",
        "The rule admits nobody. If no other rule matches, the ALLOW denies everything that it applies to.",
        "Compare service account, namespace and trust domain with those of the clients: `isthmus status` prints the identity of each \
         workload.";
    AllowNothing = "ISA0204", Info: "an ALLOW policy without rules denies everything that it applies to",
        "This is how everything is denied that no other ALLOW permits. It is meant as often as it is a rest of an edit.",
        "Nothing, if it is meant. To allow everything, write one empty rule: `rules: [{}]`.";
    NeverMatches = "ISA0205", Warning: "a value of a policy can never match",
        "No connection and no request has the value. An ALLOW admits less than it seems to; a DENY is a hole.",
        "Write the value as the message says.";
    DenyRefusesNobody = "ISA0206", Warning: "a DENY rule names only identities that no workload has",
        "The rule refuses nobody. Whoever was meant gets through.",
        "Compare service account, namespace and trust domain with those of the clients.";
    DisablesMutualTls = "ISA0207", Warning: "a PeerAuthentication says DISABLE",
        "Traffic inside of the mesh is always mutual TLS, so DISABLE is ignored, and what the next wider level says holds.",
        "Say PERMISSIVE to accept plaintext from outside of the mesh; leave a workload out of it with \
         `istio.io/dataplane-mode: none`.";
    NobodyJudges = "ISA0208", Warning: "a policy is for workloads that are not in the mesh",
        "Policies are judged on the node of the destination, for captured workloads. Nobody judges what arrives at the others, and \
         nobody looks at requests for the policy's HTTP fields.",
        "Label the pods or their namespace with `istio.io/dataplane-mode: ambient`. A pod in its node's network is never captured.";
    HttpOnTcpPort = "ISA0209", Warning: "a policy has HTTP fields, and the ports that it is about do not speak HTTP",
        "Nobody parses requests on a port that is said to speak TCP. There an ALLOW rule with HTTP fields admits nothing, and a DENY \
         rule holds without these fields.",
        "Set `appProtocol: http` on the port of the Service, or take the HTTP fields out of the rule.";

    WaypointUnused = "ISA0301", Warning: "nothing uses a waypoint",
        "The Gateway is ready, and no Service, ServiceEntry or workload is bound to it: no route and no policy for it has an effect.",
        "Label what it is for, or the namespace, with `istio.io/use-waypoint`; or delete the Gateway.";
    WaypointMissing = "ISA0302", Error: "a waypoint is named that does not exist, or cannot be used from there",
        "Traffic that should go through the waypoint is refused (with the setting `missing_waypoint = \"layer4\"` it goes on at layer 4).",
        "Correct the label `istio.io/use-waypoint` or `istio.io/use-waypoint-namespace`, or apply the Gateway; its listener must be \
         HBONE on port 15008, and its `allowedRoutes` must admit the namespace.";
    WaypointOfOtherTraffic = "ISA0303", Warning: "a waypoint is named that does not take traffic of this kind",
        "The object has no waypoint, whatever its label says.",
        "Set `istio.io/waypoint-for` of the Gateway to `service`, `workload` or `all`.";
    ServiceOutside = "ISA0304", Warning: "a service has a waypoint, and none of its workloads is in the mesh",
        "The waypoint's routes hold for captured clients. Its policies are judged on the client's node only, and whoever is not in the \
         mesh reaches the pods past them.",
        "Label the pods or their namespace with `istio.io/dataplane-mode: ambient`.";

    HostMissing = "ISA0401", Warning: "no service has the host of a VirtualService or DestinationRule",
        "The object holds for nothing.",
        "Correct the host: a name without dots means a Service of the object's own namespace. For a host outside of the cluster, write a \
         ServiceEntry.";
    RuleOutdone = "ISA0402", Warning: "several DestinationRules of a namespace have the same host",
        "The oldest one holds. Of the others only subsets are taken, if all are for the same clients.",
        "Merge the rules.";
    SubsetSelectsNothing = "ISA0403", Warning: "a subset of a DestinationRule selects no workload",
        "Whatever is led to the subset is answered with 503.",
        "Compare the labels with those of the pods behind the host.";
    EntryWithoutEndpoint = "ISA0404", Warning: "a ServiceEntry has no endpoint",
        "Connections to its hosts are refused.",
        "List `endpoints`, correct `workloadSelector`, or say `resolution: DNS`, so that the host itself is looked up.";
    ServiceWithoutEndpoint = "ISA0405", Info: "no workload is behind a Service",
        "Connections to it are refused until there is one.",
        "Compare the selector with the labels of the pods. A Service that is scaled to nothing is right as it is.";

    TlsUnusable = "ISA0501", Error: "TLS that an object asks for cannot be carried out",
        "Traffic for the host is refused rather than sent without TLS.",
        "Write what the message names; [TLS to applications](tls-origination.md) lists what is supported.";
    FileMissing = "ISA0502", Error: "a file of certificates or keys does not exist, or cannot be read",
        "Connections that need it fail.",
        "Put the file below the directory of the object's namespace (setting `tls.directory`) on every node.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_in_order() {
        assert!(CODES.is_sorted_by(|one, other| one.id < other.id));
        for row in CODES {
            assert_eq!(row.code.described().id, row.id);
            assert!(row.id.len() == 7 && row.id.starts_with("ISA"), "{}", row.id);
        }
    }
}
