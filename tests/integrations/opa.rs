//! The Open Policy Agent as external authorizer over gRPC: a policy in Rego that reads the request's line, headers, token and body.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::issuer::Issuer;
use crate::programs::{meshed_with, program, start_in_pod};
use crate::settle;
use crate::support::lab::Lab;

const PORT: u16 = 9191;
const HEADERS: &str = "http://details.bookinfo:9080/headers";
const DETAILS: &str = "http://details.bookinfo:9080/details/0";
/// Far from now, in seconds since 1970.
const LATE: u64 = 4_000_000_000;
/// Less than curl's own patience, more than the provider's timeout.
const QUICK: Duration = Duration::from_secs(9);

const MANIFESTS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - name: opa
      envoyExtAuthzGrpc:
        service: auth/opa.auth.svc.cluster.local
        port: 9191
        timeout: 5s
        includeRequestBodyInCheck: {maxRequestBytes: 1024}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: opa, namespace: bookinfo}
spec:
  selector: {matchLabels: {app: details}}
  action: CUSTOM
  provider: {name: opa}
  rules: [{}]
";

/// Readers may get, and be told of; whoever is of the shop may order less than ten copies.
const POLICY: &str = r#"
package envoy.authz

request := input.attributes.request.http

token := trim_prefix(request.headers.authorization, "Bearer ")

claims := payload if {
	[valid, _, payload] := io.jwt.decode_verify(token, {"cert": `JWKS`, "iss": "https://issuer.example"})
	valid
}

default allow := {
	"allowed": false,
	"http_status": 401,
	"headers": {"www-authenticate": "Bearer"},
	"body": "who are you?",
}

allow := {
	"allowed": true,
	"headers": {"x-user": claims.sub},
	"request_headers_to_remove": ["x-internal"],
	"response_headers_to_add": {"x-decided-by": "opa"},
} if permitted

allow := {"allowed": false, "http_status": 403, "body": "not you"} if {
	claims
	not permitted
}

permitted if {
	request.method == "GET"
	input.parsed_path[0] in {"headers", "details"}
	"readers" in claims.groups
}

permitted if {
	request.method == "POST"
	request.headers["x-tenant"] == "shop"
	input.parsed_body.copies < 10
	claims
}
"#;

fn bearer(issuer: &Issuer, group: &str) -> Result<String> {
    let claims = json!({
        "iss": "https://issuer.example", "sub": "alice", "exp": LATE, "groups": [group],
    });
    Ok(format!("authorization: Bearer {}", issuer.good(&claims)?))
}

/// What the policy says of methods, paths, headers and tokens, and what it adds and removes.
fn decides_by_the_head(lab: &Lab, trusted: &Issuer) -> Result<()> {
    let nobody = settle(lab, "curl", &[HEADERS], 401)?;
    ensure!(nobody.body == "who are you?", "{nobody:?}");
    ensure!(nobody.header("www-authenticate") == Some("Bearer"), "{nobody:?}");
    let forged = bearer(&Issuer::new()?, "readers")?;
    settle(lab, "curl", &["-H", &forged, HEADERS], 401)?;

    let reader = bearer(trusted, "readers")?;
    let preset = ["-H", "x-user: root", "-H", "x-internal: yes"];
    let pod = format!("http://{}:9080/headers", lab.address("details-v1")?);
    for url in [HEADERS, &pod] {
        let answer = settle(lab, "curl", &[&["-H", &reader, url], &preset[..]].concat(), 200)?;
        ensure!(answer.header("x-decided-by") == Some("opa"), "{answer:?}");
        let told: Value = answer.json();
        ensure!(told["headers"]["x-user"] == "alice", "{told}");
        ensure!(told["headers"]["x-internal"].is_null(), "{told}");
    }
    let writer = bearer(trusted, "writers")?;
    for refused in [
        &["-H", &writer, HEADERS][..],
        &["-H", &reader, "-X", "PUT", HEADERS],
        &["-H", &reader, "http://details.bookinfo:9080/health"],
    ] {
        let denied = settle(lab, "curl", refused, 403)?;
        ensure!(denied.body == "not you", "{refused:?}: {denied:?}");
    }
    Ok(())
}

/// Orders of a writer, who may not read.
fn decides_by_the_body(lab: &Lab, trusted: &Issuer) -> Result<()> {
    let writer = bearer(trusted, "writers")?;
    let order = |tenant: &str, body: &str, status| {
        let tenant = format!("x-tenant: {tenant}");
        let json = "content-type: application/json";
        let arguments = ["-H", &writer, "-H", &tenant, "-H", json, "-d", body, DETAILS];
        settle(lab, "curl", &arguments, status)
    };
    order("shop", r#"{"copies": 3}"#, 200)?;
    order("shop", r#"{"copies": 30}"#, 403)?;
    order("other", r#"{"copies": 3}"#, 403)?;
    // A body that OPA cannot read, and one that it would see in part.
    order("shop", "three", 403)?;
    order("shop", &format!("{{\"copies\": 3, \"note\": \"{}\"}}", "x".repeat(1024)), 413)?;
    Ok(())
}

#[test]
fn a_policy_in_rego_decides_and_nobody_passes_without_it() -> Result<()> {
    let trusted = Issuer::new()?;
    let lab = meshed_with("opa", PORT, MANIFESTS)?;
    let policy = lab.logs().join("policy.rego");
    std::fs::write(&policy, POLICY.replace("JWKS", &trusted.jwks()?.to_string()))?;
    let arguments = [&format!("0.0.0.0:{PORT}"), policy.to_str().context("a path of UTF-8")?];
    let opa = start_in_pod(&lab, "opa", &program("opa")?, &arguments, PORT)?;
    decides_by_the_head(&lab, &trusted)?;
    decides_by_the_body(&lab, &trusted)?;

    drop(opa);
    let reader = bearer(&trusted, "readers")?;
    for _ in 0..10 {
        let denied = lab.curl("curl", &["-H", &reader, HEADERS])?;
        ensure!(denied.status == 403, "without OPA: {denied:?}");
        ensure!(denied.time < QUICK, "{:?}", denied.time);
    }
    let _opa = start_in_pod(&lab, "opa", &program("opa")?, &arguments, PORT)?;
    settle(&lab, "curl", &["-H", &reader, HEADERS], 200).map(drop)
}
