//! External authorization: nobody reaches an application that a CUSTOM policy guards without the authorizer's consent, by no way
//! and whatever the client sends; and an authorizer that is away, hangs or lies opens nothing.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use tokio::time::Instant;

use crate::authority::service;
use crate::support::lab::PORT;
use crate::support::lab::manifests::Key;
use crate::ways::{VICTIM, seen};
use crate::{besieged, settle};

/// `ratings` is the authorizer (lab/bookinfo/authorize.rs); nothing listens on port 9999 of it.
fn guarded(provider: &str, port: u16, more: &str) -> String {
    format!(
        "
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data:
  mesh: |
    extensionProviders:
    - name: auth
      envoyExtAuthzHttp:
        service: bookinfo/ratings.bookinfo.svc.cluster.local
        port: {port}
        timeout: 1s
        pathPrefix: /check
        includeRequestHeadersInCheck: [x-token]
        headersToUpstreamOnAllow: [x-user, x-role, x-forwarded-client-cert]
        {more}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: ask, namespace: bookinfo}}
spec:
  selector: {{matchLabels: {{app: details}}}}
  action: CUSTOM
  provider: {{name: {provider}}}
  rules: [{{}}]
"
    )
}

const WAYPOINT: &str = include_str!("../../config/bookinfo/mesh/waypoint.yaml");
const CHECKS: &str = "isthmus_external_authorizations_total";
const HOST: &str = "http://details.bookinfo:9080";

#[test]
fn nobody_passes_an_authorizer_and_nobody_says_what_it_says() -> Result<()> {
    let lab = besieged(&[&guarded("auth", 9080, "")])?;
    let pod = format!("http://{}", SocketAddr::new(lab.address(VICTIM)?, PORT));
    let preset = [
        "x-user: root",
        "x-role: admin",
        "x_user: root",
        "x.role: admin",
        "x_forwarded_client_cert: URI=root",
    ]
    .map(|header| ["-H", header]);
    let preset = preset.as_flattened();
    for client in ["attacker", "accomplice", "curl", "outsider"] {
        for host in [HOST, &pod] {
            let forged = format!("{host}/details/0?forged");
            settle(&lab, client, &[&[&*forged][..], preset].concat(), 403)?;
            for token in ["x-token: bad", "X-Token: good, good", "x-token: GOOD", "x_token: good"] {
                settle(&lab, client, &["-H", token, &forged], 403)?;
            }
            let headers = format!("{host}/headers");
            let allowed = [&["-H", "x-token: good", &headers][..], preset].concat();
            let answer = settle(&lab, client, &allowed, 200)?;
            let arrived: Value = serde_json::from_str(&answer.body)?;
            let arrived = &arrived["headers"];
            ensure!(arrived["x-user"] == "alice", "{arrived}");
            let clients = ["x-role", "x_user", "x.role"];
            ensure!(clients.iter().all(|name| arrived[name].is_null()), "{arrived}");
            let named = ["x-forwarded-client-cert", "x_forwarded_client_cert"];
            ensure!(named.iter().all(|name| arrived[name].is_null()), "{arrived}");
        }
    }
    let forged = seen(&lab, "forged")?;
    ensure!(forged.is_empty(), "a request passed the authorizer: {forged:?}");
    settle(&lab, "curl", &["-H", "x-token: good", &format!("{HOST}/details/0?innocent")], 200)?;
    ensure!(!seen(&lab, "innocent")?.is_empty(), "the application says what it sees");
    Ok(())
}

/// CUSTOM, DENY, ALLOW: an ALLOW sees what the authorizer made of a request, and so not what a client says in its stead.
#[test]
fn what_an_allow_wants_the_authorizer_must_have_said() -> Result<()> {
    let allow = |header: &str, value: &str| {
        format!(
            "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: allow, namespace: bookinfo}}
spec:
  selector: {{matchLabels: {{app: details}}}}
  action: ALLOW
  rules: [{{when: [{{key: 'request.headers[{header}]', values: [{value}]}}]}}]
"
        )
    };
    let url = format!("{HOST}/details/0?forged");
    let preset = ["-H", "x-user: root", "-H", "x-role: admin"];
    let good = [&["-H", "x-token: good", &url][..], &preset].concat();
    for (header, value) in [("x-role", "admin"), ("x-user", "root")] {
        let lab = besieged(&[&guarded("auth", 9080, ""), &allow(header, value)])?;
        for client in ["attacker", "curl"] {
            let denied = settle(&lab, client, &good, 403)?;
            ensure!(denied.body.contains("RBAC"), "{header}: {}", denied.body);
            // The authorizer's answer comes first.
            let denied = settle(&lab, client, &[&[&*url][..], &preset].concat(), 403)?;
            ensure!(denied.body.contains("no token"), "{header}: {}", denied.body);
        }
        ensure!(seen(&lab, "forged")?.is_empty(), "{header}");
    }
    let lab = besieged(&[&guarded("auth", 9080, ""), &allow("x-user", "alice")])?;
    let innocent = format!("{HOST}/details/0?innocent");
    settle(&lab, "curl", &[&["-H", "x-token: good", &innocent][..], &preset].concat(), 200)?;
    ensure!(!seen(&lab, "innocent")?.is_empty(), "the application says what it sees");
    Ok(())
}

#[test]
fn an_authorizer_that_is_away_or_hangs_or_is_unknown_opens_nothing() -> Result<()> {
    let token = ["-H", "x-token: good"];
    // A policy that names nobody denies the connection, as every policy that cannot be carried out.
    for (provider, port, status) in [("auth", 9999, 403), ("nobody", 9080, 0)] {
        let lab = besieged(&[&guarded(provider, port, "")])?;
        let url = format!("{HOST}/details/0?forged");
        settle(&lab, "curl", &[&[&*url][..], &token].concat(), status)?;
        let start = Instant::now();
        for _ in 0..20 {
            settle(&lab, "curl", &[&[&*url][..], &token].concat(), status)?;
        }
        ensure!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        ensure!(seen(&lab, "forged")?.is_empty(), "{provider} {port}");
    }
    let lab = besieged(&[&guarded("auth", 9080, "statusOnError: '503'")])?;
    let innocent = format!("{HOST}/details/0?innocent");
    settle(&lab, "curl", &[&[&*innocent][..], &token].concat(), 200)?;
    settle(&lab, "curl", &[&[&*format!("{HOST}/hang?forged")][..], &token].concat(), 503)?;
    ensure!(seen(&lab, "forged")?.is_empty(), "a hanging authorizer");
    Ok(())
}

/// Authorizers that guard each other in a circle: a check that led to checks without end would take what all others need, for as long
/// as the providers' timeouts permit, which are ten minutes here.
#[test]
fn authorizers_that_guard_each_other_are_not_asked_without_end() -> Result<()> {
    let provider = |name: &str, service: &str| {
        format!(
            "    - name: {name}
      envoyExtAuthzHttp: {{service: bookinfo/{service}.bookinfo.svc.cluster.local, port: 9080, pathPrefix: /check}}
"
        )
    };
    let ask = |app: &str, provider: &str| {
        format!(
            "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: ask-{app}, namespace: bookinfo}}
spec:
  selector: {{matchLabels: {{app: {app}}}}}
  action: CUSTOM
  provider: {{name: {provider}}}
  rules: [{{to: [{{operation: {{notPaths: [/innocent]}}}}]}}]
"
        )
    };
    let config = format!(
        "
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data:
  mesh: |
    extensionProviders:
{}{}{}",
        provider("one", "ratings"),
        provider("two", "reviews"),
        ask("details", "one") + &ask("ratings", "two") + &ask("reviews", "one"),
    );
    let lab = besieged(&[&config])?;
    let checks = || Ok::<_, anyhow::Error>(lab.metrics()?.sum(CHECKS, &[]));
    for client in ["attacker", "curl"] {
        settle(&lab, client, &[&format!("{HOST}/innocent")], 404)?;
        settle(&lab, client, &[&format!("{HOST}/details/0?forged")], 403)?;
        let before = checks()?;
        settle(&lab, client, &[&format!("{HOST}/details/0?forged")], 403)?;
        let led = checks()? - before;
        ensure!(led <= 4.0, "one request led to {led} checks");
    }
    ensure!(seen(&lab, "forged")?.is_empty(), "a request passed the authorizers");
    for asked in ["ratings-v1", "reviews-v1"] {
        let log = lab.pod_log(asked)?;
        ensure!(!log.contains("/check"), "{asked} was asked past its own authorizer: {log}");
    }
    Ok(())
}

/// An authorizer that lets requests pass when it is away lets nobody say what only it may.
#[test]
fn nobody_speaks_for_an_authorizer_that_fails_open() -> Result<()> {
    let lab = besieged(&[&guarded("auth", 9999, "failOpen: true")])?;
    let preset = ["-H", "x-user: root", "-H", "x_role: admin", "-H", "x-token: good"];
    let headers = format!("{HOST}/headers");
    for client in ["attacker", "curl"] {
        let passed = settle(&lab, client, &[&[&*headers][..], &preset].concat(), 200)?;
        let arrived: Value = serde_json::from_str(&passed.body)?;
        let arrived = &arrived["headers"];
        ensure!(arrived["x-token"] == "good", "it is the client's: {arrived}");
        ensure!(arrived["x-user"].is_null() && arrived["x_role"].is_null(), "{arrived}");
    }
    Ok(())
}

/// A route of `namespace` that has `ratings` asked about all requests to the Service, by this path.
fn route(namespace: &str, service: &str, path: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: authorized, namespace: {namespace}}}
spec:
  parentRefs: [{{group: '', kind: Service, name: {service}}}]
  rules:
  - filters:
    - type: ExternalAuth
      externalAuth:
        protocol: HTTP
        backendRef: {{name: ratings, namespace: bookinfo, port: 9080}}
        http: {{path: {path}, allowedHeaders: [x-token], allowedResponseHeaders: [x-user, x-role]}}
    backendRefs: [{{name: {service}, port: 9080}}]
---
"
    )
}

#[test]
fn no_way_leads_past_the_authorizer_of_a_route() -> Result<()> {
    let mut lab = besieged(&[])?;
    lab.manifests.apply(WAYPOINT)?;
    let bookinfo = Key::new("Namespace", "", "bookinfo");
    lab.manifests.label(&bookinfo, &["istio.io/use-waypoint=waypoint"])?;
    lab.manifests.apply(&route("bookinfo", "details", "/check"))?;
    // A consumer's route, which leads there without asking, lifts nothing.
    lab.manifests.apply(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: past, namespace: evil}
spec:
  parentRefs: [{group: '', kind: Service, name: details, namespace: bookinfo}]
  rules: [{backendRefs: [{name: details, namespace: bookinfo, port: 9080}]}]
",
    )?;
    let pod = format!("http://{}", SocketAddr::new(lab.address(VICTIM)?, PORT));
    let preset = ["-H", "x-user: root", "-H", "x-role: admin"];
    let ways = ["attacker", "accomplice", "curl", "outsider"]
        .map(|client| [(client, HOST), (client, &*pod)]);
    // Once every node knows of the route.
    for (client, host) in ways.as_flattened() {
        settle(&lab, client, &[&format!("{host}/details/0?early")], 403)?;
    }
    for (client, host) in ways.as_flattened() {
        let forged = format!("{host}/details/0?forged");
        settle(&lab, client, &[&[&*forged][..], &preset].concat(), 403)?;
        settle(&lab, client, &["-H", "x-token: bad", &forged], 403)?;
        let headers = format!("{host}/headers");
        let allowed = [&["-H", "x-token: good", &headers][..], &preset].concat();
        let answer = settle(&lab, client, &allowed, 200)?;
        let arrived: Value = serde_json::from_str(&answer.body)?;
        let arrived = &arrived["headers"];
        ensure!(arrived["x-user"] == "alice" && arrived["x-role"].is_null(), "{arrived}");
    }
    ensure!(seen(&lab, "forged")?.is_empty(), "a request passed the authorizer");
    Ok(())
}

/// A route of `evil` whose authorizer is somebody's service: neither the pod that it leads to nor the client that comes by it
/// sends the service what the route's owner likes, in its own name.
#[test]
fn no_route_has_others_ask_in_their_own_name() -> Result<()> {
    let mut lab = besieged(&[])?;
    lab.manifests.apply(&WAYPOINT.replace("bookinfo", "evil"))?;
    let bound = "istio.io/use-waypoint: waypoint";
    let pods = ["details-v1", "accomplice"].map(|pod| lab.address(pod));
    for (number, pod) in pods.into_iter().enumerate() {
        let (name, vip) = (format!("trap{number}"), format!("10.96.66.{}", number + 1));
        let trap = service(&name, &vip, bound, &pod?.to_string());
        lab.manifests.apply(&trap)?;
        let asking =
            route("evil", &name, "/confused").replace("name: authorized", &format!("name: {name}"));
        lab.manifests.apply(&asking)?;
    }
    // The pod is another's, and so is the client.
    settle(&lab, "curl", &["http://10.96.66.1:9080/details/0"], 500)?;
    let asked = lab.pod_log("ratings-v1")?;
    ensure!(!asked.contains("/confused"), "{asked}");
    // What is evil's alone is asked as evil.
    settle(&lab, "curl", &["http://10.96.66.2:9080/details/0"], 404)?;
    Ok(())
}
