//! Istio: AuthorizationPolicy, PeerAuthentication, RequestAuthentication, ServiceEntry, Telemetry, VirtualService, WorkloadEntry.

use serde_json::Value;

use crate::base::schema::forms::{
    CLAIM_HEADER, GROUP, KIND, NAME, NOT_EMPTY, PORT_KEY, SELECTOR_KEY, SELECTOR_VALUE, any,
};
use crate::base::schema::{FieldError, Rule, items, judge, repeated, text};
use crate::filter::VIRTUAL_SCHEMAS;
use Rule::{Fields, List, Map, Number, OneOf, Text, With};

const PORT: Rule = Number(1, 65535);
/// Where the schema says nothing.
const MANY: usize = usize::MAX;

const SELECTOR: Rule = Fields(&[("matchLabels", Map(4096, SELECTOR_KEY, &Text(SELECTOR_VALUE)))]);
const TARGET: Rule = With(
    &Fields(&[("group", Text(GROUP)), ("kind", Text(KIND)), ("name", Text(NAME))]),
    &[target_is_near],
);
const ACCOUNTS: Rule = List(0, 16, &Text(any(320)));

pub(in super::super) const AUTHORIZATION_POLICY: Rule = With(
    &Fields(&[
        ("action", OneOf(&["ALLOW", "DENY", "AUDIT", "CUSTOM"])),
        ("selector", SELECTOR),
        ("targetRef", TARGET),
        ("targetRefs", List(0, 16, &TARGET)),
        (
            "rules",
            List(
                0,
                512,
                &Fields(&[(
                    "from",
                    List(
                        0,
                        512,
                        &Fields(&[(
                            "source",
                            With(
                                &Fields(&[
                                    ("serviceAccounts", ACCOUNTS),
                                    ("notServiceAccounts", ACCOUNTS),
                                ]),
                                &[accounts_stand_alone],
                            ),
                        )]),
                    ),
                )]),
            ),
        ),
    ]),
    &[one_way_to_apply],
);

const MTLS: Rule = Fields(&[("mode", OneOf(&["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]))]);

pub(in super::super) const PEER_AUTHENTICATION: Rule = With(
    &Fields(&[
        ("selector", SELECTOR),
        ("mtls", MTLS),
        ("portLevelMtls", Map(MANY, any(MANY), &MTLS)),
    ]),
    &[ports_are_of_workloads],
);

const NAMES: Rule = List(0, MANY, &Text(NOT_EMPTY));
pub(in super::super) const REQUEST_AUTHENTICATION: Rule = With(
    &Fields(&[
        ("selector", SELECTOR),
        ("targetRef", TARGET),
        ("targetRefs", List(0, 16, &TARGET)),
        (
            "jwtRules",
            List(
                0,
                4096,
                &With(
                    &Fields(&[
                        ("issuer", Text(NOT_EMPTY)),
                        ("audiences", NAMES),
                        ("fromHeaders", List(0, MANY, &Fields(&[("name", Text(NOT_EMPTY))]))),
                        ("fromParams", NAMES),
                        ("fromCookies", NAMES),
                        (
                            "outputClaimToHeaders",
                            List(
                                0,
                                MANY,
                                &Fields(&[
                                    ("header", Text(CLAIM_HEADER)),
                                    ("claim", Text(NOT_EMPTY)),
                                ]),
                            ),
                        ),
                    ]),
                    &[keys_come_from_one_place],
                ),
            ),
        ),
    ]),
    &[one_way_to_apply],
);

pub(in super::super) const TELEMETRY: Rule = With(
    &Fields(&[
        ("selector", SELECTOR),
        ("targetRef", TARGET),
        ("targetRefs", List(0, 16, &TARGET)),
        (
            "tracing",
            List(
                0,
                MANY,
                &Fields(&[(
                    "customTags",
                    Map(MANY, any(MANY), &With(&Fields(&[]), &[tag_has_a_value])),
                )]),
            ),
        ),
    ]),
    &[one_way_to_apply],
);

const WORKLOAD_FIELDS: Rule = Fields(&[
    ("address", Text(any(256))),
    ("labels", Map(256, any(MANY), &Text(any(MANY)))),
    ("locality", Text(any(2048))),
    ("network", Text(any(2048))),
    ("ports", Map(128, PORT_KEY, &PORT)),
    ("serviceAccount", Text(any(253))),
    ("weight", Number(0, 4_294_967_295)),
]);
pub(in super::super) const WORKLOAD_ENTRY: Rule = With(&WORKLOAD_FIELDS, &[workload_is_somewhere]);

pub(in super::super) const SIDECAR: Rule = Fields(&[
    ("workloadSelector", Fields(&[("labels", Map(256, any(MANY), &Text(SELECTOR_VALUE)))])),
    ("outboundTrafficPolicy", Fields(&[("mode", OneOf(&["REGISTRY_ONLY", "ALLOW_ANY"]))])),
]);

pub(in super::super) const SERVICE_ENTRY: Rule = With(
    &Fields(&[
        ("hosts", With(&List(1, 256, &Text(any(MANY))), &[not_every_host])),
        ("addresses", List(0, 256, &Text(any(64)))),
        (
            "ports",
            With(
                &List(
                    0,
                    256,
                    &Fields(&[
                        ("name", Text(any(256))),
                        ("number", PORT),
                        ("protocol", Text(any(256))),
                        ("targetPort", PORT),
                    ]),
                ),
                &[ports_differ],
            ),
        ),
        ("location", OneOf(&["MESH_EXTERNAL", "MESH_INTERNAL"])),
        ("resolution", OneOf(&["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"])),
        ("endpoints", List(0, 4096, &WORKLOAD_ENTRY)),
        ("workloadSelector", Fields(&[("labels", Map(256, any(MANY), &Text(SELECTOR_VALUE)))])),
    ]),
    &[entry_goes_together],
);

const ROUTE_WEIGHT: Rule = Number(0, crate::base::schema::INT32);

/// As far as Istio's definition goes; its webhook refuses more, which the translation says.
pub(in super::super) fn judge_virtual_service(spec: Option<&Value>) -> Result<(), FieldError> {
    const FILTERS: Rule = Fields(&[("http", List(0, MANY, &Fields(VIRTUAL_SCHEMAS)))]);
    judge(&VIRTUAL_SERVICE, spec, "spec")?;
    judge(&FILTERS, spec, "spec")
}

const VIRTUAL_SERVICE: Rule = Fields(&[(
    "http",
    List(0, MANY, &Fields(&[("route", List(0, MANY, &Fields(&[("weight", ROUTE_WEIGHT)])))])),
)]);

fn target_is_near(value: &Value) -> Option<(&'static str, String)> {
    text(value, "namespace")?;
    Some(("namespace", "must be empty: a policy targets what is in its own namespace".to_owned()))
}

fn accounts_stand_alone(value: &Value) -> Option<(&'static str, String)> {
    let has = |field: &&str| value.get(field).is_some();
    let accounts = ["serviceAccounts", "notServiceAccounts"].into_iter().find(has)?;
    let others = ["principals", "notPrincipals", "namespaces", "notNamespaces"];
    let beside = others.into_iter().find(has)?;
    Some((accounts, format!("must not stand beside {beside}")))
}

fn one_way_to_apply(value: &Value) -> Option<(&'static str, String)> {
    let ways = ["selector", "targetRef", "targetRefs"];
    let mut given = ways.into_iter().filter(|field| value.get(field).is_some());
    let (_, second) = (given.next()?, given.next()?);
    Some((second, "must not stand beside another of selector, targetRef and targetRefs".to_owned()))
}

fn keys_come_from_one_place(value: &Value) -> Option<(&'static str, String)> {
    let has = |field: &str| value.get(field).is_some();
    let twice = has("jwks") && (has("jwksUri") || has("jwks_uri"));
    twice.then(|| ("jwks", "must not stand beside jwksUri".to_owned()))
}

fn tag_has_a_value(value: &Value) -> Option<(&'static str, String)> {
    let ways = ["literal", "environment", "header", "formatter"];
    let mut given = ways.into_iter().filter(|field| value.get(field).is_some());
    let (_, second) = (given.next()?, given.next()?);
    Some((second, "must not stand beside another source of the value".to_owned()))
}

fn ports_are_of_workloads(value: &Value) -> Option<(&'static str, String)> {
    let ports = value.get("portLevelMtls")?.as_object()?;
    let labels = value.get("selector").and_then(|selector| selector.get("matchLabels"));
    if labels.and_then(Value::as_object).is_none_or(|labels| labels.is_empty()) {
        return Some(("portLevelMtls", "needs a selector with labels".to_owned()));
    }
    if ports.is_empty() {
        return Some(("portLevelMtls", "is empty".to_owned()));
    }
    let bad = ports.keys().find(|port| !port.parse::<u16>().is_ok_and(|port| port != 0))?;
    Some(("portLevelMtls", format!("{bad:?} is not a port")))
}

fn workload_is_somewhere(value: &Value) -> Option<(&'static str, String)> {
    let missing = value.get("address").is_none() && value.get("network").is_none();
    missing.then(|| ("address", "is missing".to_owned()))
}

fn not_every_host(value: &Value) -> Option<(&'static str, String)> {
    let every = value.as_array()?.iter().any(|host| host == "*");
    every.then(|| ("", "have \"*\", which would take every name".to_owned()))
}

fn ports_differ(value: &Value) -> Option<(&'static str, String)> {
    let list = value.as_array()?;
    if let Some(name) = repeated(list, "name") {
        return Some(("", format!("name {name:?} twice")));
    }
    let mut seen = std::collections::HashSet::new();
    let numbers = list.iter().filter_map(|port| port.get("number")?.as_i64());
    let twice = numbers.into_iter().find(|number| !seen.insert(*number))?;
    Some(("", format!("have {twice} twice")))
}

fn entry_goes_together(value: &Value) -> Option<(&'static str, String)> {
    let resolution = text(value, "resolution").unwrap_or("NONE");
    let endpoints = value.get("endpoints").is_some();
    if endpoints && value.get("workloadSelector").is_some() {
        return Some(("workloadSelector", "must not stand beside endpoints".to_owned()));
    }
    if endpoints && resolution == "NONE" {
        return Some(("endpoints", "have no meaning with the resolution NONE".to_owned()));
    }
    if resolution == "DNS_ROUND_ROBIN" && items(value, "endpoints").len() > 1 {
        return Some(("endpoints", "are several; DNS_ROUND_ROBIN takes one".to_owned()));
    }
    let networks = items(value, "addresses").iter().filter_map(Value::as_str);
    let any = networks.into_iter().any(|address| address.contains('/'));
    (any && !["STATIC", "NONE"].contains(&resolution)).then(|| {
        ("addresses", format!("have a network, which the resolution {resolution} does not allow"))
    })
}
