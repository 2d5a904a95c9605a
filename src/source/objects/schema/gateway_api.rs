//! Gateway API: HTTPRoute, GRPCRoute, Gateway (the experimental channel, which allows the most).

use serde_json::Value;

use crate::base::schema::forms::{
    DURATION, GROUP, HEADER_NAME, HEADER_VALUE, HOST, KIND, LABEL, METHOD, NAME, ORIGIN, SERVICE,
    SUBDOMAIN, any,
};
use crate::base::schema::{Rule, items, parse_duration, repeated, text};
use Rule::{Code, Fields, List, Number, OneOf, Text, With};

const PORT: Rule = Number(1, 65535);
/// The largest number of the format `int32`.
const INT32: i64 = 2_147_483_647;
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

const BACKEND_FIELDS: [(&str, Rule); 5] = [
    ("group", Text(GROUP)),
    ("kind", Text(KIND)),
    ("name", Text(NAME)),
    ("namespace", Text(LABEL)),
    ("port", PORT),
];
const BACKEND: Rule = With(&Fields(&BACKEND_FIELDS), &[services_have_ports]);

const HEADERS: Rule = With(
    &List(0, 16, &Fields(&[("name", Text(HEADER_NAME)), ("value", Text(HEADER_VALUE))])),
    &[names_differ],
);
const HEADER_FILTER: Rule =
    Fields(&[("set", HEADERS), ("add", HEADERS), ("remove", List(0, 16, &Text(any(256))))]);

const PATH_MODIFIER: Rule = Fields(&[
    ("type", OneOf(&["ReplaceFullPath", "ReplacePrefixMatch"])),
    ("replaceFullPath", Text(any(1024))),
    ("replacePrefixMatch", Text(any(1024))),
]);
const CHECKED_PATH: Rule = With(&PATH_MODIFIER, &[path_goes_with_type]);

const FILTER: Rule = With(
    &Fields(&[
        (
            "type",
            OneOf(&[
                "RequestHeaderModifier",
                "ResponseHeaderModifier",
                "RequestMirror",
                "RequestRedirect",
                "URLRewrite",
                "ExtensionRef",
                "CORS",
                "ExternalAuth",
            ]),
        ),
        ("requestHeaderModifier", HEADER_FILTER),
        ("responseHeaderModifier", HEADER_FILTER),
        ("requestRedirect", REDIRECT),
        ("urlRewrite", Fields(&[("hostname", Text(SUBDOMAIN)), ("path", CHECKED_PATH)])),
        ("requestMirror", MIRROR),
        ("cors", CORS),
    ]),
    &[filter_goes_with_type],
);
const REDIRECT: Rule = Fields(&[
    ("scheme", OneOf(&["http", "https"])),
    ("hostname", Text(SUBDOMAIN)),
    ("path", CHECKED_PATH),
    ("port", PORT),
    ("statusCode", Code(&[301, 302, 303, 307, 308])),
]);
const MIRROR: Rule = With(
    &Fields(&[
        ("backendRef", BACKEND),
        ("percent", Number(0, 100)),
        ("fraction", Fields(&[("numerator", Number(0, INT32)), ("denominator", Number(1, INT32))])),
    ]),
    &[is_a_share],
);
const TOKENS: Rule = With(&List(0, 64, &Text(HEADER_NAME)), &[all_or_some]);
const CORS: Rule = Fields(&[
    ("allowOrigins", With(&List(0, 64, &Text(ORIGIN)), &[all_or_some])),
    (
        "allowMethods",
        With(
            &List(
                0,
                9,
                &OneOf(&[
                    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
                    "*",
                ]),
            ),
            &[all_or_some],
        ),
    ),
    ("allowHeaders", TOKENS),
    ("exposeHeaders", List(0, 64, &Text(HEADER_NAME))),
    ("maxAge", Number(1, INT32)),
]);
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

pub(super) const HTTP_ROUTE: Rule = Fields(&[
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

pub(super) const GRPC_ROUTE: Rule = Fields(&[
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

pub(super) const GATEWAY: Rule = Fields(&[
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

fn parents_differ(value: &Value) -> Option<(&'static str, String)> {
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

fn services_have_ports(value: &Value) -> Option<(&'static str, String)> {
    let is_service =
        text(value, "group").is_none() && text(value, "kind").is_none_or(|it| it == "Service");
    let missing = is_service && value.get("port").is_none();
    missing.then(|| ("port", "is missing: a Service as a backend needs it".to_owned()))
}

fn names_differ(value: &Value) -> Option<(&'static str, String)> {
    let twice = repeated(value.as_array()?, "name")?;
    Some(("", format!("name {twice:?} twice")))
}

fn path_goes_with_type(value: &Value) -> Option<(&'static str, String)> {
    let kind = text(value, "type")?;
    let has = |field: &str| value.get(field).is_some();
    [("ReplaceFullPath", "replaceFullPath"), ("ReplacePrefixMatch", "replacePrefixMatch")]
        .into_iter()
        .find(|(name, field)| (kind == *name) != has(field))
        .map(|(name, field)| (field, format!("goes with the type {name}, and with no other")))
}

/// The members of a filter, by its type.
const MEMBERS: [(&str, &str); 8] = [
    ("RequestHeaderModifier", "requestHeaderModifier"),
    ("ResponseHeaderModifier", "responseHeaderModifier"),
    ("RequestMirror", "requestMirror"),
    ("RequestRedirect", "requestRedirect"),
    ("URLRewrite", "urlRewrite"),
    ("ExtensionRef", "extensionRef"),
    ("CORS", "cors"),
    ("ExternalAuth", "externalAuth"),
];

fn filter_goes_with_type(value: &Value) -> Option<(&'static str, String)> {
    let kind = text(value, "type")?;
    let found = MEMBERS.iter().find(|(name, field)| (kind == *name) != value.get(field).is_some());
    found.map(|(name, field)| (*field, format!("goes with the type {name}, and with no other")))
}

fn filters_go_together(value: &Value) -> Option<(&'static str, String)> {
    let list = value.as_array()?;
    let of = |kind: &str| list.iter().filter(|it| text(it, "type") == Some(kind)).count();
    if of("RequestRedirect") > 0 && of("URLRewrite") > 0 {
        return Some(("", "have both RequestRedirect and URLRewrite".to_owned()));
    }
    let once = [
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestRedirect",
        "URLRewrite",
        "CORS",
    ];
    let twice = once.into_iter().find(|kind| of(kind) > 1)?;
    Some(("", format!("have {twice} more than once")))
}

fn is_a_share(value: &Value) -> Option<(&'static str, String)> {
    let fraction = value.get("fraction")?;
    if value.get("percent").is_some() {
        return Some((
            "fraction",
            "stands beside percent; only one of both may be given".to_owned(),
        ));
    }
    let of = |field: &str| fraction.get(field).and_then(Value::as_i64);
    let (numerator, denominator) = (of("numerator")?, of("denominator").unwrap_or(100));
    (numerator > denominator)
        .then(|| ("fraction", format!("{numerator} of {denominator} is not a share")))
}

fn all_or_some(value: &Value) -> Option<(&'static str, String)> {
    let list = value.as_array()?;
    let all = list.len() > 1 && list.iter().any(|it| it == "*");
    all.then(|| ("", "have * beside others".to_owned()))
}

/// What a path may not hold (HTTPPathMatch), and where it may not end.
fn path_can_be_sent(value: &Value) -> Option<(&'static str, String)> {
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

fn grpc_names(value: &Value) -> Option<(&'static str, String)> {
    if text(value, "type") == Some("RegularExpression") {
        return None;
    }
    [("service", SERVICE), ("method", METHOD)]
        .into_iter()
        .find_map(|(field, form)| Some((field, form.objection(text(value, field)?)?)))
}

fn attempts_fit(value: &Value) -> Option<(&'static str, String)> {
    let of = |field: &str| text(value, field).and_then(parse_duration);
    let (request, backend) = (of("request")?, of("backendRequest")?);
    (!request.is_zero() && backend > request)
        .then(|| ("backendRequest", "must not be longer than request".to_owned()))
}

fn redirects_go_nowhere(value: &Value) -> Option<(&'static str, String)> {
    let redirects = items(value, "filters").iter().any(|it| it.get("requestRedirect").is_some());
    (redirects && !items(value, "backendRefs").is_empty())
        .then(|| ("backendRefs", "must not stand beside a RequestRedirect".to_owned()))
}

fn prefixes_are_matched(value: &Value) -> Option<(&'static str, String)> {
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
fn few_matches(value: &Value) -> Option<(&'static str, String)> {
    let all: usize = value.as_array()?.iter().map(|rule| items(rule, "matches").len()).sum();
    (all > 128).then(|| ("", format!("have {all} matches, more than 128")))
}
