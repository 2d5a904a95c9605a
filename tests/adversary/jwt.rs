//! Tokens as attackers make them, against a RequestAuthentication with an issuer's real key: what the application sees is what
//! counts.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::support::issuer::{Issuer, unsigned};
use crate::support::lab::Lab;
use crate::ways::{DETAILS, seen};
use crate::{besieged, settle};

/// Far from now.
const LATE: u64 = 4_000_000_000;

/// Only alice may, and the application is told who asks.
fn policies(jwks: &Value) -> String {
    format!(
        "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: users, namespace: bookinfo}}
spec:
  selector: {{matchLabels: {{app: details}}}}
  jwtRules:
  - issuer: https://issuer
    audiences: [details]
    jwks: '{jwks}'
    outputClaimToHeaders: [{{header: x-user, claim: sub}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: users, namespace: bookinfo}}
spec:
  selector: {{matchLabels: {{app: details}}}}
  rules:
  - from: [{{source: {{requestPrincipals: ['https://issuer/alice']}}}}]
    when: [{{key: 'request.headers[x-user]', values: [alice]}}]
"
    )
}

#[test]
fn forged_tokens_and_claims_reach_no_application() -> Result<()> {
    let (issuer, forger) = (Issuer::new()?, Issuer::new()?);
    let lab = besieged(&[&policies(&issuer.jwks()?)])?;
    let header = json!({"alg": "ES256", "kid": "k"});
    let claims = json!({"iss": "https://issuer", "sub": "alice", "aud": "details", "exp": LATE});
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    let good = issuer.token(&header, &claims)?;
    let signature = good.rsplit('.').next().unwrap_or_default();
    let none = unsigned(&json!({"alg": "none"}), &claims);
    let secret = json!({"alg": "HS256", "kid": "k"});
    let forged = format!("{DETAILS}?forged");
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    for client in ["attacker", "curl", "outsider"] {
        settle(&lab, client, &["-H", &bearer(&good), &format!("{DETAILS}?innocent")], 200)?;
        for (token, status) in [
            (format!("{none}."), 401),
            (format!("{none}.{signature}"), 401),
            (format!("{}.{signature}", unsigned(&secret, &claims)), 401),
            (format!("{}.{signature}", unsigned(&header, &with("sub", json!("root")))), 401),
            (forger.token(&header, &claims)?, 401),
            (
                forger.token(
                    &json!({"alg": "ES256", "kid": "k", "jwk": forger.jwks()?["keys"][0]}),
                    &claims,
                )?,
                401,
            ),
            (issuer.token(&json!({"alg": "ES256", "kid": "../k"}), &claims)?, 401),
            (issuer.token(&header, &with("exp", json!(1_000_000_000)))?, 401),
            (issuer.token(&header, &with("nbf", json!(LATE)))?, 401),
            (issuer.token(&header, &with("iss", json!("https://evil")))?, 401),
            (issuer.token(&header, &with("aud", json!("ratings")))?, 403),
            (issuer.token(&header, &with("sub", json!("bob")))?, 403),
            (issuer.token(&header, &with("long", json!("x".repeat(14_000))))?, 401),
        ] {
            settle(&lab, client, &["-H", &bearer(&token), &forged], status)?;
        }
        let other = issuer.token(&header, &with("sub", json!("bob")))?;
        are_not_mixed(&lab, client, [&bearer(&good), &bearer(&other)], &other)?;
    }
    let forged = seen(&lab, "forged")?;
    ensure!(forged.is_empty(), "a forged token reached the application: {forged:?}");
    ensure!(!seen(&lab, "innocent")?.is_empty(), "the application says what it sees");
    Ok(())
}

/// A good token beside another one, and headers that only the agent may send.
fn are_not_mixed(lab: &Lab, client: &str, [good, other]: [&str; 2], token: &str) -> Result<()> {
    let forged = format!("{DETAILS}?forged");
    settle(lab, client, &["-H", good, &format!("{forged}&access_token={token}")], 401)?;
    settle(lab, client, &["-H", good, "-H", other, &forged], 401)?;
    settle(lab, client, &["-H", "x-user: alice", &forged], 403)?;
    settle(lab, client, &["-H", other, "-H", "x-user: alice", &forged], 403).map(drop)
}
