//! What routes make of requests, as the application and the client see it. The official suite looks at statuses and
//! headers; here are path, host, `location`, and what policies see of a request that a route changed.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::{Answer, answers, apply, apply_file, curl, delete, get, kubectl, until};
use crate::guide::meshed;

const DETAILS: &str = "http://details.bookinfo:9080";

/// Nobody may ask for `/headers`; a route leads there from other paths.
const ROUTES: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: filters, namespace: bookinfo}
spec:
  parentRefs: [{group: "", kind: Service, name: details, sectionName: http}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /redirect}}]
    filters:
    - type: RequestRedirect
      requestRedirect: {hostname: example.org, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}, statusCode: 308}
  - matches: [{path: {type: PathPrefix, value: /full}}]
    filters: [{type: URLRewrite, urlRewrite: {hostname: inner.example.org, path: {type: ReplaceFullPath, replaceFullPath: /headers}}}]
    backendRefs: [{name: details, port: 9080}]
  - matches: [{path: {type: PathPrefix, value: /moved}}]
    backendRefs:
    - name: details
      port: 9080
      filters:
      - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /headers}}}
      - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-backend, value: details}]}}
  - matches: [{path: {type: PathPrefix, value: /browser}}]
    filters: [{type: CORS, cors: {allowOrigins: ["https://*.example.org"], allowMethods: [PUT]}}]
    backendRefs: [{name: details, port: 9080}]
  - matches: [{path: {type: PathPrefix, value: /unknown}}]
    filters: [{type: ExtensionRef, extensionRef: {group: example.org, kind: Filter, name: none}}]
    backendRefs: [{name: details, port: 9080}]
  - matches: [{path: {type: Exact, value: /headers}}, {path: {type: PathPrefix, value: /details}}]
    timeouts: {request: 5s}
    retry: {codes: [503], attempts: 2}
    backendRefs: [{name: details, port: 9080}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-headers, namespace: bookinfo}
spec:
  action: DENY
  targetRefs: [{group: "", kind: Service, name: details}]
  rules: [{to: [{operation: {paths: [/headers]}}]}]
"#;

#[test]
fn routes_change_requests_and_policies_see_what_was_sent() -> Result<()> {
    meshed()?;
    apply_file("config/bookinfo/mesh/waypoint.yaml")?;
    kubectl(&["label", "namespace", "bookinfo", "istio.io/use-waypoint=waypoint", "--overwrite"])?;
    apply(ROUTES)?;
    let outcome = requests().and_then(|()| status());
    delete(ROUTES)?;
    kubectl(&["label", "namespace", "bookinfo", "istio.io/use-waypoint-"])?;
    kubectl(&["delete", "-n", "bookinfo", "gateway", "waypoint"])?;
    outcome
}

fn requests() -> Result<()> {
    let redirected = answers("curl", &[&format!("{DETAILS}/redirect/a?b=c")], 308)?;
    let location = "location: http://example.org:9080/new/a?b=c";
    ensure!(redirected.head.to_lowercase().contains(location), "{redirected:?}");

    let answer = answers("curl", &["-X", "PUT", &format!("{DETAILS}/full/a?b=c")], 200)?;
    let seen = seen(&answer)?;
    ensure!((&seen["method"], &seen["uri"]) == (&"PUT".into(), &"/headers?b=c".into()), "{seen}");
    ensure!(seen["headers"]["host"] == "inner.example.org", "{seen}");

    let answer = answers("curl", &[&format!("{DETAILS}/moved?b=c")], 200)?;
    let seen = self::seen(&answer)?;
    ensure!(seen["uri"] == "/headers?b=c" && seen["headers"]["x-backend"] == "details", "{seen}");
    ensure!(seen["headers"].get("x-isthmus-original").is_none(), "{seen}");

    // The policy denies what is asked for by that name, on whichever node client and server are.
    for client in ["curl", "far"] {
        answers(client, &[&format!("{DETAILS}/headers")], 403)?;
        answers(client, &[&format!("{DETAILS}/moved")], 200)?;
        answers(client, &[&format!("{DETAILS}/details/0")], 200)?;
    }
    answers("curl", &[&format!("{DETAILS}/nothing")], 404)?;
    answers("curl", &[&format!("{DETAILS}/unknown")], 500)?;

    let asks = ["-X", "OPTIONS", "-H", "Access-Control-Request-Method: PUT"];
    let browser = format!("{DETAILS}/browser");
    for (origin, allowed) in [("https://a.example.org", true), ("https://example.com", false)] {
        let header = format!("Origin: {origin}");
        let answer = curl("curl", &[&asks[..], &["-H", &header, &browser]].concat())?;
        let given = answer.head.to_lowercase().contains("access-control-allow-origin: https://a.");
        ensure!(answer.status == 204 && given == allowed, "{origin}: {answer:?}");
    }
    Ok(())
}

/// What the application says of the request that it got.
fn seen(answer: &Answer) -> Result<Value> {
    serde_json::from_str(&answer.body).with_context(|| format!("{answer:?}"))
}

/// One rule is dropped, and the route holds.
fn status() -> Result<()> {
    let condition = until("the route's status to tell of the dropped rule", || {
        let route = get(&["httproute", "filters", "-n", "bookinfo"])?;
        let conditions = route["status"]["parents"][0]["conditions"].as_array().cloned();
        let mut conditions = conditions.unwrap_or_default().into_iter();
        Ok(conditions.find(|it| it["type"] == "PartiallyInvalid"))
    })?;
    let message = condition["message"].as_str().unwrap_or_default();
    ensure!(condition["reason"] == "UnsupportedValue", "{condition}");
    ensure!(message.starts_with("Dropped Rule") && message.contains("rules[4]"), "{condition}");
    Ok(())
}
