//! Properties of every row of the table.

use std::collections::HashSet;

use http::{HeaderValue, Method};

use super::*;

/// A rule that matches by one prefix, and whose references lead somewhere.
struct AnyRule;

impl RuleContext for AnyRule {
    fn prefix(&self) -> Option<Str> {
        Some("/sent".into())
    }

    fn backend(&self, _: &str, object: &BackendObject, _: &str) -> Option<BackendRef> {
        let service = ObjectKey::new("shop", object.name.as_str());
        Some(BackendRef::Service { service, port: object.port? })
    }
}

/// All samples, each read by itself, with the field they stand in.
fn filters() -> Vec<(&'static str, HttpFilter)> {
    let of_routes = samples().into_iter().map(|(row, sample)| (row.field, read(row, sample)));
    let of_policies = policy_samples().into_iter().flat_map(|(field, sample)| {
        let target = serde_json::json!({"kind": "Service", "name": "a"});
        let spec = serde_json::json!({"targetRefs": [target], field: sample});
        judge_spec(Some(&spec)).unwrap();
        let spec: PolicySpec = serde_json::from_value(spec).unwrap();
        spec.check().unwrap();
        spec.filters(&AnyRule).into_iter().map(move |read| (field, read.unwrap()))
    });
    of_routes.chain(of_policies).chain(virtual_samples(&AnyRule)).collect()
}

fn read(row: &Row, sample: serde_json::Value) -> HttpFilter {
    let written = serde_json::json!({"type": row.name, row.field: sample});
    schema::judge(&schema::Rule::Fields(SCHEMAS), Some(&written), "").unwrap();
    let written: Manifest = serde_json::from_value(written).unwrap();
    assert_eq!(written.row().unwrap().name, row.name);
    written.read(&AnyRule).unwrap()
}

fn heads() -> Vec<(Method, Uri, HeaderMap)> {
    let pairs = [("host", "a"), ("origin", "https://a.example"), ("x-sent", "1")];
    let asked = ("access-control-request-method", "PUT");
    let headers = |pairs: &[(&'static str, &'static str)]| {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        HeaderMap::from_iter(pairs)
    };
    let question = headers(&[pairs[0], pairs[1], asked]);
    vec![
        (Method::GET, "/sent/a?b=c".parse().unwrap(), headers(&pairs)),
        (Method::OPTIONS, "/sent".parse().unwrap(), question),
        (Method::POST, "/".parse().unwrap(), HeaderMap::new()),
    ]
}

fn changed(before: &HeaderMap, after: &HeaderMap) -> HashSet<HeaderName> {
    let same = |name: &&HeaderName| before.get_all(*name).iter().eq(after.get_all(*name).iter());
    before.keys().chain(after.keys()).filter(|name| !same(name)).cloned().collect()
}

/// Headers that the destination would find changed without knowing why; `request` and `volatile` are the filter's.
fn undeclared(
    request: impl Fn(&mut RequestHead<'_>, &Cx<'_>) -> Flow,
    volatile: &[HeaderName],
) -> HashSet<HeaderName> {
    let mut found = HashSet::new();
    for (method, uri, before) in heads() {
        let mut headers = before.clone();
        let mut head = RequestHead { method: &method, uri: &uri, headers: &mut headers };
        request(&mut head, &Cx::fixture());
        found.extend(changed(&before, &headers));
    }
    found.retain(|name| !volatile.contains(name));
    found
}

#[test]
fn every_row_has_samples_and_differs_from_the_others() {
    let policies = policy_samples();
    for (field, _) in POLICY_SCHEMAS {
        assert!(policies.iter().any(|(of, _)| of == field), "{field}");
    }
    for row in ROWS {
        let samples = samples().into_iter().filter(|(of, _)| of.name == row.name);
        assert!(samples.count() > 0, "{}", row.name);
        let alike = ROWS.iter().filter(|it| it.name == row.name || it.field == row.field);
        assert_eq!(alike.count(), 1, "{}", row.name);
        assert!(!row.on.is_empty(), "{} may stand nowhere", row.name);
        for other in row.never_beside {
            assert!(Row::named(other).is_some(), "{}: {other}", row.name);
        }
    }
}

/// The members of HTTPRouteFilter and GRPCRouteFilter (Gateway API, v1): the API server rejects a route with another one.
#[test]
fn filters_of_routes_are_those_of_gateway_api() {
    let mut defined = vec![
        ("RequestHeaderModifier", "requestHeaderModifier"),
        ("ResponseHeaderModifier", "responseHeaderModifier"),
        ("RequestMirror", "requestMirror"),
        ("RequestRedirect", "requestRedirect"),
        ("URLRewrite", "urlRewrite"),
        ("CORS", "cors"),
        ("ExternalAuth", "externalAuth"),
        ("ExtensionRef", "extensionRef"),
    ];
    let rows = ROWS.iter().map(|row| (row.name, row.field));
    let mut known: Vec<_> = rows.chain(UNSUPPORTED).collect();
    defined.sort_unstable();
    known.sort_unstable();
    assert_eq!(known, defined, "a filter that Gateway API does not define belongs to `policies`");
}

/// The destination takes a request for what the client sent only where it can compute what arrived. A filter that sets
/// what cannot be computed, and does not say so, would have policies judged on the rewritten path.
#[test]
fn what_the_destination_cannot_compute_is_declared() {
    for (field, filter) in filters() {
        let found = undeclared(|head, cx| filter.request(head, cx), filter.volatile());
        assert!(found.is_empty(), "{field} sets {found:?}, which `volatile` does not name");
    }
    let stamp = HeaderName::from_static("x-stamp");
    let stamps = |head: &mut RequestHead<'_>, _: &Cx<'_>| {
        head.headers.insert(stamp.clone(), HeaderValue::from_static("1"));
        Flow::Next
    };
    assert_eq!(undeclared(stamps, &[]), HashSet::from([stamp.clone()]));
    assert!(undeclared(stamps, std::slice::from_ref(&stamp)).is_empty());
}

/// Neither half looks for such headers among the filters of a Service.
#[test]
fn filters_of_policies_leave_the_request_as_it_is() {
    let of_policies = |field: &str| POLICY_SCHEMAS.iter().any(|(of, _)| *of == field);
    for (field, filter) in filters().into_iter().filter(|(field, _)| of_policies(field)) {
        assert!(filter.volatile().is_empty(), "{field} sets {:?}", filter.volatile());
    }
}

#[test]
fn changes_are_announced_and_always_the_same() {
    // Another node has read them by itself.
    for ((field, filter), (_, again)) in filters().into_iter().zip(filters()) {
        for (_, uri, headers) in heads() {
            let change = |filter: &HttpFilter| {
                let mut made = (uri.clone(), headers.clone());
                filter.change(&mut made.0, &mut made.1);
                made
            };
            let made = change(&filter);
            assert!(filter.changes() || made == (uri.clone(), headers.clone()), "{field}");
            assert_eq!(change(&again), made, "{field}");
            assert_eq!(change(&filter), made, "{field}");
        }
    }
}

#[test]
fn filters_that_answer_always_say_so() {
    for (row, sample) in samples() {
        let filter = read(row, sample);
        let answers = heads().into_iter().filter(|(method, uri, headers)| {
            let mut headers = headers.clone();
            let mut head = RequestHead { method, uri, headers: &mut headers };
            matches!(filter.request(&mut head, &Cx::fixture()), Flow::Answer(_))
        });
        assert!(!row.answers || answers.count() == heads().len(), "{}", row.name);
    }
}

#[test]
fn a_changed_route_goes_on_with_its_shares() {
    let mirror = |share: Share| {
        let sample = serde_json::json!({"backendRef": {"name": "a", "port": 80}, "fraction":
            {"numerator": share.numerator, "denominator": share.denominator}});
        read(Row::named("RequestMirror").unwrap(), sample)
    };
    let share = Share { numerator: 1, denominator: 3 };
    let turn = |filter: &HttpFilter| match filter {
        HttpFilter::Mirror(mirror) => std::sync::Arc::as_ptr(&mirror.turn),
        other => panic!("{other:?}"),
    };
    let before = mirror(share);
    let mut same = mirror(share);
    inherit(std::slice::from_mut(&mut same), std::slice::from_ref(&before));
    assert_eq!(turn(&same), turn(&before));
    let mut other = mirror(Share { numerator: 1, denominator: 2 });
    inherit(std::slice::from_mut(&mut other), std::slice::from_ref(&before));
    assert_ne!(turn(&other), turn(&before));
}
