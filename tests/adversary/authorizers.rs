//! External authorization: nobody reaches an application that a CUSTOM policy guards without the authorizer's consent, by no way
//! and whatever the client sends; and an authorizer that is away, hangs or lies opens nothing.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use tokio::time::Instant;

use crate::support::lab::PORT;
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

const HOST: &str = "http://details.bookinfo:9080";

#[test]
fn nobody_passes_an_authorizer_and_nobody_says_what_it_says() -> Result<()> {
    let lab = besieged(&[&guarded("auth", 9080, "")])?;
    let pod = format!("http://{}", SocketAddr::new(lab.address(VICTIM)?, PORT));
    let preset =
        ["-H", "x-user: root", "-H", "x-role: admin", "-H", "x_forwarded_client_cert: URI=root"];
    for client in ["attacker", "accomplice", "curl", "outsider"] {
        for host in [HOST, &pod] {
            let forged = format!("{host}/details/0?forged");
            settle(&lab, client, &[&[&*forged][..], &preset].concat(), 403)?;
            for token in ["x-token: bad", "X-Token: good, good", "x-token: GOOD", "x_token: good"] {
                settle(&lab, client, &["-H", token, &forged], 403)?;
            }
            let headers = format!("{host}/headers");
            let allowed = [&["-H", "x-token: good", &headers][..], &preset].concat();
            let answer = settle(&lab, client, &allowed, 200)?;
            let arrived: Value = serde_json::from_str(&answer.body)?;
            let arrived = &arrived["headers"];
            ensure!(arrived["x-user"] == "alice", "{arrived}");
            ensure!(arrived["x-role"].is_null(), "the client's own: {arrived}");
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
