//! Who the user is, by the real API server: a token, keys at an address, an external authorizer that MeshConfig or a route names.
//! The manifests without a text here are those of the demo.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::cluster::{
    Answer, answers, apply, apply_file, curl, delete, get, kubectl, pod, root, until,
};
use crate::guide::meshed;
use crate::issuer::Issuer;
use crate::listener::{self, answer, listen};
use crate::statuses::{condition, has};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const HEADERS: &str = "http://details.bookinfo:9080/headers";
const ROOT_NAMESPACE: &str = "\
apiVersion: v1
kind: Namespace
metadata: { name: istio-system }
";

/// When the tokens expire, in seconds since 1970: in the year 2096.
const LATE: u64 = 4_000_000_000;

fn manifest(name: &str) -> Result<String> {
    Ok(std::fs::read_to_string(root().join("config/bookinfo/mesh").join(name))?)
}

/// Whom the application was told of.
fn user(answer: &Answer) -> Result<String> {
    let echo: Value = serde_json::from_str(&answer.body)?;
    Ok(echo["headers"]["x-user"].as_str().unwrap_or_default().to_owned())
}

/// Does it with a waypoint in Bookinfo, and takes everything away again.
pub fn guarded(documents: &str, judge: impl FnOnce() -> Result<()>) -> Result<()> {
    meshed()?;
    apply_file("config/bookinfo/mesh/waypoint.yaml")?;
    kubectl(&["label", "namespace", "bookinfo", "istio.io/use-waypoint=waypoint", "--overwrite"])?;
    let outcome = apply(documents).and_then(|()| judge());
    let ended =
        outcome.and(delete(documents)).and_then(|()| answers("curl", &[DETAILS], 200).map(drop));
    kubectl(&["label", "namespace", "bookinfo", "istio.io/use-waypoint-"])?;
    kubectl(&["delete", "-n", "bookinfo", "gateway", "waypoint"])?;
    ended
}

#[test]
fn a_token_says_who_the_user_is() -> Result<()> {
    let issuer = Issuer::new()?;
    let documents = manifest("details-token.yaml")?.replace("JWKS", &issuer.jwks()?.to_string());
    guarded(&documents, || {
        answers("curl", &[DETAILS], 403)?;
        for (signer, groups, status) in [
            (&issuer, "readers", 200),
            (&issuer, "writers", 403),
            (&Issuer::new()?, "readers", 401),
        ] {
            let claims = json!({
                "iss": "https://issuer.example", "sub": "alice", "aud": "details", "exp": LATE, "groups": [groups],
            });
            let token = signer.token(&json!({ "alg": "ES256", "kid": "k" }), &claims)?;
            let bearer = format!("authorization: Bearer {token}");
            let answer = answers("curl", &["-H", &bearer, "-H", "x-user: root", HEADERS], status)?;
            if status == 200 {
                ensure!(user(&answer)? == "alice", "{answer:?}");
            }
        }
        let object = ["requestauthentication", "-n", "bookinfo", "details-token"];
        has(&object, "Accepted", "True", "Accepted").map(drop)
    })
}

#[test]
fn an_external_authorizer_says_who_the_user_is() -> Result<()> {
    let documents = format!("{ROOT_NAMESPACE}---\n{}", manifest("details-authorizer.yaml")?);
    guarded(&documents, || {
        // Until the agents know of the provider, the policy denies.
        until("the authorizer's own refusal", || {
            Ok((curl("curl", &[DETAILS])?.body == "no token").then_some(()))
        })?;
        let good = ["-H", "x-token: good", "-H", "x-user: root", HEADERS];
        let answer = answers("curl", &good, 200)?;
        ensure!(user(&answer)? == "alice", "{answer:?}");
        let object = ["authorizationpolicy", "-n", "bookinfo", "details-authorizer"];
        has(&object, "WaypointAccepted", "True", "Accepted")?;
        // A provider that MeshConfig does not name any more permits nothing.
        kubectl(&["delete", "-n", "istio-system", "configmap", "istio"])?;
        answers("curl", &good, 403)?;
        let denies = has(&object, "WaypointAccepted", "False", "Invalid")?;
        ensure!(denies["message"].to_string().contains("MeshConfig"), "{denies}");
        apply(&documents)?;
        answers("curl", &good, 200)?;
        has(&object, "WaypointAccepted", "True", "Accepted").map(drop)
    })
}

/// Whoever has a token of the issuer reaches details.
const KEYS_AT_AN_ADDRESS: &str = "\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: { name: details-keys, namespace: bookinfo }
spec:
  selector: { matchLabels: { app: details } }
  jwtRules:
  - issuer: https://issuer.example
    jwksUri: http://outsider.default.svc.cluster.local/keys
    timeout: 9s
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: details-keys, namespace: bookinfo }
spec:
  selector: { matchLabels: { app: details } }
  rules: [{ from: [{ source: { requestPrincipals: ['https://issuer.example/*'] } }] }]
";

#[test]
fn keys_are_fetched_from_a_pod_and_may_change() -> Result<()> {
    meshed()?;
    let (old, new) = (Issuer::named("old")?, Issuer::named("new")?);
    let served = Arc::new(Mutex::new(old.jwks()?.to_string()));
    answer(listen(listener::KEYS)?, served.clone());
    apply(listener::SERVICE)?;
    answers("curl", &["http://outsider.default/keys"], 200)?;
    let claims = json!({ "iss": "https://issuer.example", "sub": "alice", "exp": LATE });
    let bearer = |issuer: &Issuer| {
        Ok::<_, anyhow::Error>(format!("authorization: Bearer {}", issuer.good(&claims)?))
    };
    let (with_old, with_new) = (bearer(&old)?, bearer(&new)?);
    let stranger = bearer(&Issuer::named("old")?)?;
    guarded(KEYS_AT_AN_ADDRESS, || {
        answers("curl", &[DETAILS], 403)?;
        answers("curl", &["-H", &with_old, DETAILS], 200)?;
        answers("curl", &["-H", &stranger, DETAILS], 401)?;
        // The issuer signs with another key from now on, and publishes both for a while.
        let (mut both, next) = (old.jwks()?, new.jwks()?);
        let keys = both["keys"].as_array_mut().context("keys")?;
        keys.extend(next["keys"].as_array().cloned().unwrap_or_default());
        *served.lock() = both.to_string();
        for bearer in [&with_new, &with_old, &with_new] {
            let answer = curl("curl", &["-H", bearer, DETAILS])?;
            ensure!(answer.status == 200, "after the change of keys: {answer:?}");
        }
        Ok(())
    })?;
    delete(listener::SERVICE)
}

/// The authorizer is a Service of the route's namespace.
const ROUTE_THAT_ASKS: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: details-asks, namespace: bookinfo }
spec:
  parentRefs: [{ group: '', kind: Service, name: details }]
  rules:
  - filters:
    - type: ExternalAuth
      externalAuth:
        protocol: HTTP
        backendRef: { name: ratings, port: 9080 }
        http: { path: /check, allowedHeaders: [x-token], allowedResponseHeaders: [x-user] }
    backendRefs: [{ name: details, port: 9080 }]
";

#[test]
fn a_route_asks_an_authorizer() -> Result<()> {
    guarded(ROUTE_THAT_ASKS, || {
        let details = pod("bookinfo", "app=details")?;
        let address = details["status"]["podIP"].as_str().context("an address")?;
        // The destination asks, so that a pod's address leads past nothing.
        for url in [HEADERS, &format!("http://{address}:9080/headers")] {
            let denied = answers("curl", &[url], 403)?;
            ensure!(denied.body == "no token", "{url}: {denied:?}");
            let good = ["-H", "x-token: good", "-H", "x-user: root", url];
            let answer = answers("curl", &good, 200)?;
            ensure!(user(&answer)? == "alice", "{answer:?}");
        }
        let route = get(&["httproute", "-n", "bookinfo", "details-asks"])?;
        let conditions = &route["status"]["parents"][0]["conditions"];
        for kind in ["Accepted", "ResolvedRefs"] {
            let found = condition(conditions, kind);
            ensure!(found["status"] == "True", "{kind}: {conditions}");
        }
        Ok(())
    })
}
