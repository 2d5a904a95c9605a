//! Gateway API: HTTPRoute, GRPCRoute, TCPRoute, TLSRoute, Gateway (the experimental channel, which allows the most).

use serde_json::Value;

use crate::base::nearest;
use crate::base::schema::forms::{
    DURATION, GROUP, HEADER_NAME, HEADER_VALUE, HOST, KIND, LABEL, METHOD, NAME, SERVICE,
    SUBDOMAIN, any,
};
use crate::base::schema::{Objection, Rule, items, parse_duration, repeated, text};
use crate::filter::backend::{PORT, services_have_ports};
use crate::filter::{self, Often};
use Rule::{Fields, List, Number, OneOf, Text, With};

const METHODS: Rule =
    OneOf(&["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]);
const MATCH_TYPE: Rule = OneOf(&["Exact", "RegularExpression"]);

const PARENTS: Rule = With(
    &List(
        0,
        32,
        &Fields(&[
            ("group", Text(GROUP)),
            ("kind", Text(KIND)),
            ("name", Text(NAME)),
            ("namespace", Text(LABEL)),
            ("port", PORT),
            ("sectionName", Text(SUBDOMAIN)),
        ]),
    ),
    &[parents_differ],
);

/// GEP-3388.
pub(in super::super) const BACKEND_TRAFFIC_POLICY: Rule = Fields(&[
    (
        "targetRefs",
        List(1, 16, &Fields(&[("group", Text(GROUP)), ("kind", Text(KIND)), ("name", Text(NAME))])),
    ),
    (
        "retryConstraint",
        Fields(&[
            (
                "budget",
                With(
                    &Fields(&[("percent", Number(0, 100)), ("interval", Text(DURATION))]),
                    &[lasts_from_a_second_to_an_hour],
                ),
            ),
            (
                "minRetryRate",
                With(
                    &Fields(&[("count", Number(1, 1_000_000)), ("interval", Text(DURATION))]),
                    &[lasts_up_to_an_hour],
                ),
            ),
        ]),
    ),
]);

const FILTER: Rule = With(&Fields(filter::SCHEMAS), &[type_is_known, filter_goes_with_type]);
const FILTERS: Rule = With(&List(0, 16, &FILTER), &[filters_go_together]);

const BACKENDS: Rule = List(
    0,
    16,
    &With(
        &Fields(&[
            ("group", Text(GROUP)),
            ("kind", Text(KIND)),
            ("name", Text(NAME)),
            ("namespace", Text(LABEL)),
            ("port", PORT),
            ("weight", Number(0, 1_000_000)),
            ("filters", FILTERS),
        ]),
        &[services_have_ports],
    ),
);

const HTTP_MATCH: Rule = Fields(&[
    (
        "path",
        With(
            &Fields(&[
                ("type", OneOf(&["Exact", "PathPrefix", "RegularExpression"])),
                ("value", Text(any(1024))),
            ]),
            &[path_can_be_sent],
        ),
    ),
    (
        "headers",
        With(
            &List(
                0,
                16,
                &Fields(&[
                    ("type", MATCH_TYPE),
                    ("name", Text(HEADER_NAME)),
                    ("value", Text(HEADER_VALUE)),
                ]),
            ),
            &[names_differ],
        ),
    ),
    (
        "queryParams",
        With(
            &List(
                0,
                16,
                &Fields(&[
                    ("type", MATCH_TYPE),
                    ("name", Text(HEADER_NAME)),
                    ("value", Text(any(1024))),
                ]),
            ),
            &[names_differ],
        ),
    ),
    ("method", METHODS),
]);

const GRPC_MATCH: Rule = Fields(&[
    ("method", With(&Fields(&[("type", MATCH_TYPE)]), &[grpc_names])),
    (
        "headers",
        With(
            &List(
                0,
                16,
                &Fields(&[
                    ("type", MATCH_TYPE),
                    ("name", Text(HEADER_NAME)),
                    ("value", Text(any(4096))),
                ]),
            ),
            &[names_differ],
        ),
    ),
]);

pub(in super::super) const HTTP_ROUTE: Rule = Fields(&[
    ("hostnames", List(0, 16, &Text(HOST))),
    ("parentRefs", PARENTS),
    (
        "rules",
        With(
            &List(
                1,
                16,
                &With(
                    &Fields(&[
                        ("name", Text(SUBDOMAIN)),
                        ("matches", List(0, 64, &HTTP_MATCH)),
                        ("filters", FILTERS),
                        ("backendRefs", BACKENDS),
                        (
                            "timeouts",
                            With(
                                &Fields(&[
                                    ("request", Text(DURATION)),
                                    ("backendRequest", Text(DURATION)),
                                ]),
                                &[attempts_fit],
                            ),
                        ),
                        (
                            "retry",
                            Fields(&[
                                ("codes", List(0, usize::MAX, &Number(400, 599))),
                                ("attempts", Number(0, i64::MAX)),
                                ("backoff", Text(DURATION)),
                            ]),
                        ),
                    ]),
                    &[redirects_go_nowhere, prefixes_are_matched],
                ),
            ),
            &[names_differ, few_matches],
        ),
    ),
    ("useDefaultGateways", OneOf(&["All", "None"])),
]);

pub(in super::super) const GRPC_ROUTE: Rule = Fields(&[
    ("hostnames", List(0, 16, &Text(HOST))),
    ("parentRefs", PARENTS),
    (
        "rules",
        With(
            &List(
                0,
                16,
                &Fields(&[
                    ("name", Text(SUBDOMAIN)),
                    ("matches", List(0, 64, &GRPC_MATCH)),
                    ("filters", FILTERS),
                    ("backendRefs", BACKENDS),
                ]),
            ),
            &[names_differ, few_matches],
        ),
    ),
    ("useDefaultGateways", OneOf(&["All", "None"])),
]);

/// Of a TCPRoute or a TLSRoute; the older versions allow a TCPRoute more rules.
const STREAM_BACKENDS: Rule = List(
    1,
    16,
    &With(
        &Fields(&[
            ("group", Text(GROUP)),
            ("kind", Text(KIND)),
            ("name", Text(NAME)),
            ("namespace", Text(LABEL)),
            ("port", PORT),
            ("weight", Number(0, 1_000_000)),
        ]),
        &[services_have_ports],
    ),
);
const STREAM_RULE: Rule =
    With(&Fields(&[("name", Text(SUBDOMAIN)), ("backendRefs", STREAM_BACKENDS)]), &[has_backends]);

pub(in super::super) const TCP_ROUTE: Rule = With(
    &Fields(&[
        ("parentRefs", PARENTS),
        ("rules", List(1, 16, &STREAM_RULE)),
        ("useDefaultGateways", OneOf(&["All", "None"])),
    ]),
    &[has_rules],
);

pub(in super::super) const TLS_ROUTE: Rule = With(
    &Fields(&[
        ("parentRefs", PARENTS),
        ("hostnames", List(1, 1024, &With(&Text(HOST), &[no_address]))),
        ("rules", List(1, 16, &STREAM_RULE)),
        ("useDefaultGateways", OneOf(&["All", "None"])),
    ]),
    &[has_rules, has_hostnames],
);

pub(in super::super) const GATEWAY: Rule = Fields(&[
    ("gatewayClassName", Text(NAME)),
    (
        "listeners",
        With(
            &List(
                1,
                64,
                &Fields(&[
                    ("name", Text(SUBDOMAIN)),
                    ("port", PORT),
                    ("protocol", Text(any(255))),
                    ("hostname", Text(HOST)),
                ]),
            ),
            &[names_differ],
        ),
    ),
]);

fn parents_differ(value: &Value) -> Option<Objection> {
    let list = value.as_array()?;
    let whose = |parent: &Value| {
        let or = |field: &str, default: &str| {
            parent.get(field).and_then(Value::as_str).unwrap_or(default).to_owned()
        };
        (
            or("group", super::super::GATEWAY_GROUP),
            or("kind", "Gateway"),
            or("namespace", ""),
            or("name", ""),
        )
    };
    let part = |parent: &Value| {
        let port = parent.get("port").and_then(Value::as_u64).filter(|port| *port != 0);
        (text(parent, "sectionName").map(str::to_owned), port)
    };
    for (at, one) in list.iter().enumerate() {
        for other in list.iter().skip(at + 1).filter(|other| whose(one) == whose(other)) {
            let (this, that) = (part(one), part(other));
            let alike =
                (this.0.is_some(), this.1.is_some()) == (that.0.is_some(), that.1.is_some());
            if this == that || !alike {
                let reason =
                    "name one parent twice; both then need a sectionName, or a port, that differs";
                return Some(("", reason.to_owned()));
            }
        }
    }
    None
}

pub(super) fn names_differ(value: &Value) -> Option<Objection> {
    let twice = repeated(value.as_array()?, "name")?;
    Some(("", format!("name {twice:?} twice")))
}

fn has_rules(value: &Value) -> Option<Objection> {
    value.get("rules").is_none().then(|| ("rules", "is missing".to_owned()))
}

fn has_backends(value: &Value) -> Option<Objection> {
    value.get("backendRefs").is_none().then(|| ("backendRefs", "is missing".to_owned()))
}

fn has_hostnames(value: &Value) -> Option<Objection> {
    value.get("hostnames").is_none().then(|| ("hostnames", "is missing".to_owned()))
}

/// No client sends an address as the server's name (RFC 6066, 3).
fn no_address(value: &Value) -> Option<Objection> {
    let name = value.as_str()?;
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    is_address.then(|| ("", format!("{name:?} is an address, and not a name")))
}

/// Types of filters and their members.
fn members() -> impl Iterator<Item = (&'static str, &'static str)> {
    let rows = filter::ROWS.iter().map(|row| (row.name, row.field));
    rows.chain(filter::UNSUPPORTED)
}

fn type_is_known(value: &Value) -> Option<Objection> {
    let kind = text(value, "type")?;
    if members().any(|(name, _)| name == kind) {
        return None;
    }
    let meant = nearest(kind, members().map(|(name, _)| name));
    let meant = meant.map(|name| format!("; is {name:?} meant?")).unwrap_or_default();
    Some(("type", format!("Gateway API defines no filter of type {kind:?}{meant}")))
}

fn filter_goes_with_type(value: &Value) -> Option<Objection> {
    let kind = text(value, "type")?;
    let mut members = members();
    let found = members.find(|(name, field)| (kind == *name) != value.get(field).is_some());
    found.map(|(name, field)| (field, format!("goes with the type {name}, and with no other")))
}

fn filters_go_together(value: &Value) -> Option<Objection> {
    let list = value.as_array()?;
    let of = |kind: &str| list.iter().filter(|it| text(it, "type") == Some(kind)).count();
    for row in filter::ROWS.iter().filter(|row| of(row.name) > 0) {
        if let Some(other) = row.never_beside.iter().find(|other| of(other) > 0) {
            return Some(("", format!("have both {} and {other}", row.name)));
        }
    }
    let mut once = filter::ROWS.iter().filter(|row| row.often == Often::Once);
    let twice = once.find(|row| of(row.name) > 1)?;
    Some(("", format!("have {} more than once", twice.name)))
}

/// What a path may not hold (HTTPPathMatch), and where it may not end.
fn path_can_be_sent(value: &Value) -> Option<Objection> {
    let path = text(value, "value")?;
    if text(value, "type") == Some("RegularExpression") {
        return None;
    }
    let never = ["//", "/./", "/../", "%2f", "%2F", "#"].iter().find(|part| path.contains(**part));
    let end = ["/.", "/.."].iter().find(|end| path.ends_with(**end));
    if let Some(part) = never.or(end) {
        return Some(("value", format!("{path:?} must not have {part:?}")));
    }
    let hex = |at: usize| path.as_bytes().get(at).is_some_and(u8::is_ascii_hexdigit);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(&byte);
    let mut bytes = path.bytes().enumerate();
    let can = |(at, byte)| plain(byte) || byte == b'%' && hex(at + 1) && hex(at + 2);
    (!path.starts_with('/') || !bytes.all(can))
        .then(|| ("value", format!("{path:?} is not a path that a request can have")))
}

fn grpc_names(value: &Value) -> Option<Objection> {
    if text(value, "type") == Some("RegularExpression") {
        return None;
    }
    [("service", SERVICE), ("method", METHOD)]
        .into_iter()
        .find_map(|(field, form)| Some((field, form.objection(text(value, field)?)?)))
}

fn attempts_fit(value: &Value) -> Option<Objection> {
    let of = |field: &str| text(value, field).and_then(parse_duration);
    let (request, backend) = (of("request")?, of("backendRequest")?);
    (!request.is_zero() && backend > request)
        .then(|| ("backendRequest", "must not be longer than request".to_owned()))
}

fn redirects_go_nowhere(value: &Value) -> Option<Objection> {
    let redirects = items(value, "filters").iter().any(|it| it.get("requestRedirect").is_some());
    (redirects && !items(value, "backendRefs").is_empty())
        .then(|| ("backendRefs", "must not stand beside a RequestRedirect".to_owned()))
}

fn prefixes_are_matched(value: &Value) -> Option<Objection> {
    let backends = items(value, "backendRefs").iter();
    let filters = backends.flat_map(|it| items(it, "filters")).chain(items(value, "filters"));
    let replaces = |filter: &Value| {
        ["requestRedirect", "urlRewrite"].iter().any(|member| {
            let path = filter.get(member).and_then(|it| it.get("path"));
            path.and_then(|path| text(path, "type")) == Some("ReplacePrefixMatch")
        })
    };
    let is_prefix = |it: &Value| {
        it.get("path").is_none_or(|path| text(path, "type").is_none_or(|kind| kind == "PathPrefix"))
    };
    let matched = match items(value, "matches") {
        // The API server's default.
        [] => true,
        [one] => is_prefix(one),
        _ => false,
    };
    (filters.into_iter().any(replaces) && !matched).then(|| {
        let reason = "ReplacePrefixMatch needs exactly one match, of type PathPrefix".to_owned();
        ("matches", reason)
    })
}

/// Of all rules together.
fn few_matches(value: &Value) -> Option<Objection> {
    let all: usize = value.as_array()?.iter().map(|rule| items(rule, "matches").len()).sum();
    (all > 128).then(|| ("", format!("have {all} matches, more than 128")))
}

fn lasts_from_a_second_to_an_hour(value: &Value) -> Option<Objection> {
    let interval = parse_duration(text(value, "interval")?)?;
    let seconds = interval.as_secs_f64();
    (!(1.0..=3600.0).contains(&seconds)).then(|| ("interval", "is not from 1s to 1h".to_owned()))
}

fn lasts_up_to_an_hour(value: &Value) -> Option<Objection> {
    let interval = parse_duration(text(value, "interval")?)?;
    (interval.is_zero() || interval.as_secs_f64() > 3600.0)
        .then(|| ("interval", "is not above 0s and up to 1h".to_owned()))
}
