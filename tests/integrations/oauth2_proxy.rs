//! oauth2-proxy as external authorizer over HTTP: it sends whoever is not logged in to the login, and says who is.

use anyhow::{Context, Result, ensure};

use crate::programs::{meshed_with, program, start_in_pod};
use crate::settle;
use crate::support::lab::Lab;
use crate::support::lab::process::Process;

const PORT: u16 = 4180;
const HEADERS: &str = "http://details.bookinfo:9080/headers";

/// Only alice may use details, of those that oauth2-proxy knows.
const MANIFESTS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - name: login
      envoyExtAuthzHttp:
        service: auth/oauth2-proxy.auth.svc.cluster.local
        port: 4180
        timeout: 5s
        includeRequestHeadersInCheck: [cookie]
        headersToUpstreamOnAllow: [x-auth-request-user]
        headersToDownstreamOnDeny: [set-cookie, content-type, location]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: login, namespace: bookinfo}
spec:
  selector: {matchLabels: {app: details}}
  action: CUSTOM
  provider: {name: login}
  rules: [{to: [{operation: {notPaths: [/health]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: alice, namespace: bookinfo}
spec:
  selector: {matchLabels: {app: details}}
  rules:
  - to: [{operation: {paths: [/health]}}]
  - when: [{key: 'request.headers[x-auth-request-user]', values: [alice]}]
";

/// Both have the password `secret`.
const USERS: &str =
    "alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\nbob:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n";

fn start(lab: &Lab) -> Result<Process> {
    let users = lab.logs().join("htpasswd");
    std::fs::write(&users, USERS)?;
    let arguments = [
        &format!("--http-address=0.0.0.0:{PORT}"),
        &format!("--htpasswd-file={}", users.to_str().context("a path of UTF-8")?),
        "--provider=github",
        "--client-id=bookinfo",
        "--client-secret=secret",
        "--cookie-secret=0123456789abcdef0123456789abcdef",
        "--cookie-secure=false",
        "--email-domain=*",
        "--upstream=static://200",
        "--reverse-proxy=true",
        "--set-xauthrequest=true",
        "--skip-provider-button=true",
        "--redirect-url=http://details.bookinfo:9080/oauth2/callback",
    ];
    start_in_pod(lab, "oauth2-proxy", &program("oauth2-proxy")?, &arguments, PORT)
}

#[test]
fn a_login_guards_details_and_a_policy_wants_one_user() -> Result<()> {
    let lab = meshed_with("oauth2-proxy", PORT, MANIFESTS)?;
    let proxy = start(&lab)?;
    let forged = ["-H", "x-auth-request-user: alice", HEADERS];
    for arguments in [&[HEADERS][..], &forged] {
        let login = settle(&lab, "curl", arguments, 302)?;
        let to = login.header("location").context("where to")?;
        ensure!(to.starts_with("https://github.com/login/oauth/authorize?"), "{to}");
        ensure!(login.header("set-cookie").is_some_and(|it| it.contains("_csrf")), "{login:?}");
    }
    let alice = ["-u", "alice:secret", "-H", "x-auth-request-user: root", HEADERS];
    let answer = settle(&lab, "curl", &alice, 200)?;
    let told = answer.json();
    ensure!(told["headers"]["x-auth-request-user"] == "alice", "{told}");
    let denied = settle(&lab, "curl", &["-u", "bob:secret", HEADERS], 403)?;
    ensure!(denied.body.contains("RBAC"), "the policy, not the login: {denied:?}");
    settle(&lab, "curl", &["-u", "bob:wrong", HEADERS], 302)?;
    settle(&lab, "curl", &["http://details.bookinfo:9080/health"], 200)?;

    drop(proxy);
    for _ in 0..10 {
        let denied = lab.curl("curl", &alice)?;
        ensure!(denied.status == 403, "without the proxy: {denied:?}");
    }
    settle(&lab, "curl", &["http://details.bookinfo:9080/health"], 200)?;
    let _proxy = start(&lab)?;
    settle(&lab, "curl", &alice, 200).map(drop)
}
