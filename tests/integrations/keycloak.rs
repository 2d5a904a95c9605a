//! Keycloak as issuer of tokens whose keys the nodes fetch.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::programs::{meshed_with, program};
use crate::settle;
use crate::support::lab::curl::Answer;
use crate::support::lab::process::{Process, command};
use crate::support::lab::{Lab, wait};

const PORT: u16 = 8080;
const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const HEADERS: &str = "http://details.bookinfo:9080/headers";
/// As its pod reaches it.
const LOCAL: &str = "http://127.0.0.1:8080";
/// It takes a minute on a slow machine.
const START: Duration = Duration::from_secs(300);

const MANIFESTS: &str = "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users, namespace: bookinfo}
spec:
  selector: {matchLabels: {app: details}}
  jwtRules:
  - issuer: http://keycloak.auth.svc.cluster.local:8080/realms/shop
    jwksUri: http://keycloak.auth.svc.cluster.local:8080/realms/shop/protocol/openid-connect/certs
    outputClaimToHeaders: [{header: x-user, claim: preferred_username}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: bookinfo}
spec:
  selector: {matchLabels: {app: details}}
  rules:
  - from: [{source: {requestPrincipals: ['http://keycloak.auth.svc.cluster.local:8080/realms/shop/*']}}]
    when: [{key: 'request.auth.claims[realm_access][roles]', values: [reader]}]
";

/// A realm with two applications, of which one is a reader.
fn realm() -> Value {
    let client = |name: &str| json!({"clientId": name, "secret": "secret", "serviceAccountsEnabled": true, "standardFlowEnabled": false});
    json!({
        "realm": "shop", "enabled": true, "sslRequired": "none",
        "roles": {"realm": [{"name": "reader"}]},
        "clients": [client("reading"), client("writing")],
        "users": [{
            "username": "service-account-reading", "enabled": true,
            "serviceAccountClientId": "reading", "realmRoles": ["reader"],
        }],
    })
}

/// The Java that `bin/kc.sh` starts, with the options that it gives: as a child of the script it would outlive the test.
const JAVA: [&str; 9] = [
    "-Xms64m",
    "-Xmx384m",
    "-XX:MaxMetaspaceSize=256m",
    "-Djava.util.concurrent.ForkJoinPool.common.threadFactory=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
    "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
    "--add-opens=java.base/java.security=ALL-UNNAMED",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
];

fn start(lab: &Lab) -> Result<Process> {
    let home = program("keycloak")?;
    let import = home.join("data/import");
    std::fs::create_dir_all(&import)?;
    std::fs::write(import.join("shop.json"), realm().to_string())?;
    let at = &lab.pod("keycloak")?.attachment.namespace;
    let mut run = command(at, "java");
    run.args(JAVA).arg(format!("-Dkc.home.dir={}", home.display()));
    run.arg(format!("-Djboss.server.config.dir={}", home.join("conf").display()));
    run.arg("-cp").arg(home.join("lib/quarkus-run.jar"));
    run.args(["io.quarkus.bootstrap.runner.QuarkusEntryPoint", "start", "--optimized"]);
    run.args(["--import-realm", "--http-enabled=true"]).arg(format!("--http-port={PORT}"));
    run.arg(format!("--hostname=http://keycloak.auth.svc.cluster.local:{PORT}"));
    run.envs([("KC_BOOTSTRAP_ADMIN_USERNAME", "admin"), ("KC_BOOTSTRAP_ADMIN_PASSWORD", "admin")]);
    let mut keycloak = Process::start("keycloak", at, run, lab.logs())?;
    let realm = format!("{LOCAL}/realms/shop");
    let started = wait::within(START, "Keycloak to serve the realm", || {
        keycloak.must_run()?;
        Ok((lab.curl("keycloak", &[&realm])?.status == 200).then_some(()))
    });
    started.with_context(|| keycloak.last_lines())?;
    Ok(keycloak)
}

/// What Keycloak answers, which must be a success.
fn asked(lab: &Lab, path: &str, arguments: &[&str]) -> Result<Answer> {
    let url = format!("{LOCAL}/{path}");
    let answer = lab.curl("keycloak", &[arguments, &[&url]].concat())?;
    ensure!((200..300).contains(&answer.status), "{path}: {answer:?}");
    Ok(answer)
}

fn token(lab: &Lab, realm: &str, arguments: &[&str]) -> Result<String> {
    let path = format!("realms/{realm}/protocol/openid-connect/token");
    let answer = asked(lab, &path, arguments)?.json();
    Ok(answer["access_token"].as_str().context("a token")?.to_owned())
}

/// The token that an application gets for itself, as a header.
fn bearer(lab: &Lab, application: &str) -> Result<String> {
    let credentials = format!("{application}:secret");
    let token = token(lab, "shop", &["-u", &credentials, "-d", "grant_type=client_credentials"])?;
    Ok(format!("authorization: Bearer {token}"))
}

/// Gives the realm another key, which it signs with from then on.
fn rotate(lab: &Lab) -> Result<()> {
    let password = "grant_type=password&client_id=admin-cli&username=admin&password=admin";
    let admin = format!("authorization: Bearer {}", token(lab, "master", &["-d", password])?);
    let key = json!({
        "name": "next", "providerId": "rsa-generated", "providerType": "org.keycloak.keys.KeyProvider",
        "config": {"priority": ["200"]},
    });
    let kind = "content-type: application/json";
    let arguments = ["-H", &admin, "-H", kind, "-d", &key.to_string()];
    asked(lab, "admin/realms/shop/components", &arguments).map(drop)
}

/// The key that a token names.
fn header(bearer: &str) -> &str {
    bearer.split('.').next().unwrap_or_default()
}

#[test]
fn tokens_of_keycloak_open_details_through_a_change_of_keys() -> Result<()> {
    let lab = meshed_with("keycloak", PORT, MANIFESTS)?;
    let _keycloak = start(&lab)?;
    settle(&lab, "curl", &[DETAILS], 403)?;
    let reading = bearer(&lab, "reading")?;
    // The first request with a token already: the agent fetches the keys while it waits.
    let answer = lab.curl("curl", &["-H", &reading, "-H", "x-user: root", HEADERS])?;
    ensure!(answer.status == 200, "{answer:?}");
    let told = answer.json();
    ensure!(told["headers"]["x-user"] == "service-account-reading", "{told}");
    ensure!(told["headers"]["authorization"].is_null(), "{told}");
    settle(&lab, "curl", &["-H", &bearer(&lab, "writing")?, DETAILS], 403)?;
    settle(&lab, "curl", &["-H", &reading.replacen('.', ".e", 1), DETAILS], 401)?;

    rotate(&lab)?;
    let next = bearer(&lab, "reading")?;
    ensure!(header(&next) != header(&reading), "a token of the same key");
    for bearer in [&next, &reading, &next] {
        let answer = lab.curl("curl", &["-H", bearer, DETAILS])?;
        ensure!(answer.status == 200, "after the change of keys: {answer:?}");
    }
    Ok(())
}
