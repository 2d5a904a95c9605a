//! Tokens as attackers make them, against a RequestAuthentication with an issuer's real key: what the application sees is what
//! counts.

use anyhow::{Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

use crate::support::lab::Lab;
use crate::ways::{DETAILS, seen};
use crate::{besieged, settle};

/// Far from now.
pub(crate) const LATE: u64 = 4_000_000_000;

/// With the name of its key.
pub(crate) struct Issuer(EncodingKey, &'static str);

impl Issuer {
    fn new() -> Result<Self> {
        Self::named("k")
    }

    pub(crate) fn named(key: &'static str) -> Result<Self> {
        let pair = rcgen::KeyPair::generate()?;
        Ok(Self(EncodingKey::from_ec_der(&pair.serialize_der()), key))
    }

    pub(crate) fn key(&self) -> Result<Value> {
        let mut key = serde_json::to_value(Jwk::from_encoding_key(&self.0, Algorithm::ES256)?)?;
        key["kid"] = json!(self.1);
        Ok(key)
    }

    fn jwks(&self) -> Result<Value> {
        Ok(json!({ "keys": [self.key()?] }))
    }

    pub(crate) fn token(&self, claims: &Value) -> Result<String> {
        self.sign(&json!({"alg": "ES256", "kid": self.1}), claims)
    }

    fn sign(&self, header: &Value, claims: &Value) -> Result<String> {
        let signed = unsigned(header, claims);
        let signature = crypto::sign(signed.as_bytes(), &self.0, Algorithm::ES256)?;
        Ok(format!("{signed}.{signature}"))
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let encode = |it: &Value| BASE64URL.encode(it.to_string());
    format!("{}.{}", encode(header), encode(claims))
}

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
    let good = issuer.sign(&header, &claims)?;
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
            (forger.sign(&header, &claims)?, 401),
            (
                forger.sign(
                    &json!({"alg": "ES256", "kid": "k", "jwk": forger.jwks()?["keys"][0]}),
                    &claims,
                )?,
                401,
            ),
            (issuer.sign(&json!({"alg": "ES256", "kid": "../k"}), &claims)?, 401),
            (issuer.sign(&header, &with("exp", json!(1_000_000_000)))?, 401),
            (issuer.sign(&header, &with("nbf", json!(LATE)))?, 401),
            (issuer.sign(&header, &with("iss", json!("https://evil")))?, 401),
            (issuer.sign(&header, &with("aud", json!("ratings")))?, 403),
            (issuer.sign(&header, &with("sub", json!("bob")))?, 403),
            (issuer.sign(&header, &with("long", json!("x".repeat(14_000))))?, 401),
        ] {
            settle(&lab, client, &["-H", &bearer(&token), &forged], status)?;
        }
        let other = issuer.sign(&header, &with("sub", json!("bob")))?;
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
