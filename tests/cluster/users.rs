//! Who the user is, by the real API server: a token, and an external authorizer that MeshConfig names. The manifests are those of
//! the demo.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{Answer, answers, apply, apply_file, curl, delete, kubectl, root, until};
use crate::guide::meshed;
use crate::issuer::Issuer;
use crate::statuses::has;

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
fn guarded(documents: &str, judge: impl FnOnce() -> Result<()>) -> Result<()> {
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
