//! Who the user is: by a token, and by an external authorizer.

use anyhow::Result;
use serde_json::{Value, json};

use crate::stage::Stage;
use crate::support::issuer::Issuer;

const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const HEADERS: &str = "http://details.bookinfo:9080/headers";

/// When the tokens expire, in seconds since 1970: in the year 2096.
const LATE: u64 = 4_000_000_000;

pub fn token(stage: &mut Stage) -> Result<()> {
    let (issuer, other) = (Issuer::new()?, Issuer::new()?);
    let keys = issuer.jwks()?.to_string();
    stage.apply_with("details-token.yaml", |text| text.replace("JWKS", &keys))?;
    stage.report.say("without a token, or with one that does not name the group:");
    stage.settle("curl", &[DETAILS], 403)?;
    bring(stage, DETAILS, &issuer, "writers", 403)?;
    stage.report.say("with a token that somebody else signed:");
    bring(stage, DETAILS, &other, "readers", 401)?;
    stage.report.say("with the issuer's, while the client pretends to be somebody else:");
    let answer = bring(stage, HEADERS, &issuer, "readers", 200)?;
    let user = told(stage, &answer)?;
    stage.check(user == "alice", "the application was not told of the token's subject")?;
    stage.report.figure("without", 403);
    stage.report.figure("forged", 401);
    stage.report.figure("with", 200);
    stage.delete("AuthorizationPolicy", "bookinfo", "details-token")?;
    stage.delete("RequestAuthentication", "bookinfo", "details-token")?;
    stage.settle("curl", &[DETAILS], 200).map(drop)
}

/// A request with a token of alice, who is in this group.
fn bring(stage: &Stage, url: &str, issuer: &Issuer, group: &str, status: u16) -> Result<Value> {
    let claims = json!({
        "iss": "https://issuer.example", "sub": "alice", "aud": "details", "exp": LATE, "groups": [group],
    });
    let token = issuer.token(&json!({ "alg": "ES256", "kid": "k" }), &claims)?;
    let bearer = format!("authorization: Bearer {token}");
    let answer = stage.expect("curl", &["-H", &bearer, "-H", "x-user: root", url], status)?;
    Ok(if status == 200 { answer.json() } else { Value::Null })
}

/// Whom the application takes the user for.
fn told(stage: &mut Stage, answer: &Value) -> Result<String> {
    let user = answer["headers"]["x-user"].as_str().unwrap_or_default().to_owned();
    stage.figure("user_seen_by_the_application", user.clone());
    Ok(user)
}

pub fn authorizer(stage: &mut Stage) -> Result<()> {
    stage.apply("details-authorizer.yaml")?;
    stage.report.say("the authorizer wants a token of its own kind:");
    let refused = stage.settle("curl", &[DETAILS], 403)?;
    stage.report.evidence(&format!("the body: {}", refused.body.trim()));
    let moment = stage.lab.moment()?;
    stage.expect("curl", &["-H", "x-token: bad", DETAILS], 403)?;
    stage.log_evidence(&moment, &["UAEX", "details"])?;
    let good = ["-H", "x-token: good", "-H", "x-user: root", HEADERS];
    let answer = stage.settle("curl", &good, 200)?.json();
    let user = told(stage, &answer)?;
    stage.check(user == "alice", "the application was not told whom the authorizer saw")?;
    stage.report.figure("refused", 403);
    stage.report.figure("permitted", 200);
    stage.delete("AuthorizationPolicy", "bookinfo", "details-authorizer")?;
    stage.delete("ConfigMap", "istio-system", "istio")?;
    stage.settle("curl", &[DETAILS], 200).map(drop)
}
