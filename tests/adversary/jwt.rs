//! Tokens as attackers make them, against a RequestAuthentication with an issuer's real key: what the application sees is what
//! counts.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::http::{Siege, WAYS};
use crate::recorder::status;
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

/// Nobody has to bring a token, and it may stand in many places.
fn everywhere(jwks: &Value) -> String {
    format!(
        "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: users, namespace: vault}}
spec:
  jwtRules:
  - issuer: https://issuer
    jwks: '{jwks}'
    fromHeaders: [{{name: x-jwt}}, {{name: authorization, prefix: 'Bearer '}}]
    fromParams: [t]
    fromCookies: [sid]
    forwardOriginalToken: true
    outputPayloadToHeader: x-payload
    outputClaimToHeaders: [{{header: x-user, claim: sub}}]
"
    )
}

/// The application believes what looks like a token or like the agent's word, however it is written: `FORGED` stands for a token that
/// nobody signed, and `GOOD` for the client's own.
#[test]
fn no_way_of_writing_hides_a_token_or_a_claim() -> Result<()> {
    let issuer = Issuer::new()?;
    let siege = Siege::new(&everywhere(&issuer.jwks()?))?;
    let good = issuer.good(&json!({"iss": "https://issuer", "sub": "alice", "exp": LATE}))?;
    let chunked = "Transfer-Encoding: chunked\r\nTrailer: x-jwt, x_jwt, x-user, x_user, x-payload";
    let trailers = "1\r\nx\r\n0\r\nx-jwt: FORGED\r\nx_jwt: FORGED\r\nx-user: ROOT\r\nx_user: ROOT\r\nX.Payload: ROOT\r\n\r\n";
    for way in WAYS {
        for (target, head, body) in [
            ("/", "X-JWT: FORGED", ""),
            ("/", "x_jwt: FORGED", ""),
            ("/", "x.jwt: FORGED", ""),
            ("/", "x-jwt: GOOD\r\nx_jwt: FORGED", ""),
            ("/", "x-jwt: GOOD, FORGED", ""),
            ("/", "x-jwt:\r\n FORGED", ""),
            ("/", "x-jwt : FORGED", ""),
            ("/", "x-jwt\t: FORGED", ""),
            ("/", "Authorization: bearer FORGED", ""),
            ("/", "Authorization: Bearer\tFORGED", ""),
            ("/", "Authorization: Basic eDp5, Bearer FORGED", ""),
            ("/", "Authorization: Bearer GOOD\r\nAuthorization: Bearer FORGED", ""),
            ("/", "Cookie: sid=GOOD; sid=FORGED", ""),
            ("/", "Cookie: sid=GOOD\r\nCookie: sid=FORGED", ""),
            ("/", "Cookie: a=\"; sid=FORGED; b=\"", ""),
            ("/", "Cookie: a=b, sid=FORGED", ""),
            ("/", "Cookie: a=b;sid =FORGED", ""),
            ("/?t=GOOD&t=FORGED", "a: b", ""),
            ("/?a=b;t=FORGED", "a: b", ""),
            ("/?%74=FORGED", "a: b", ""),
            ("http://vault/?t=FORGED", "a: b", ""),
            ("/", "x-user: ROOT", ""),
            ("/", "X_User: ROOT\r\nx-Payload: ROOT", ""),
            ("/", "x-jwt: GOOD\r\nx-user: ROOT\r\nx_user: ROOT\r\nx.payload: ROOT", ""),
            ("/", "x-jwt: GOOD\r\nConnection: x-user, x-jwt\r\nx-user: ROOT", ""),
            ("/", chunked, trailers),
            ("/", &*format!("x-jwt: GOOD\r\n{chunked}"), trailers),
        ] {
            for version in ["1.1", "1.0"] {
                let request =
                    format!("POST {target} HTTP/{version}\r\nHost: vault\r\n{head}\r\n\r\n{body}");
                siege.ask(way, request.replace("GOOD", &good).as_bytes())?;
                let saw = siege.saw(way.pod);
                ensure!(
                    !saw.contains("forged") && !saw.contains("root"),
                    "{way:?} {request:?}: {saw}"
                );
            }
        }
        let request = format!(
            "GET /?innocent HTTP/1.1\r\nHost: vault\r\nx-jwt: {good}\r\nConnection: close\r\n\r\n"
        );
        ensure!(status(&siege.ask(way, request.as_bytes())?) == 200, "{way:?}");
        let saw = siege.saw(way.pod);
        ensure!(saw.contains("x-user: alice") && saw.contains("innocent"), "{way:?}: {saw}");
    }
    Ok(())
}
