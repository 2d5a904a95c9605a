//! Istio's reference pages for policies, row by row: from a manifest's text to who gets in. The rows are in `policies/*.yaml`; a row
//! has a rule, and what is asked of a workload that only this rule guards.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use isthmus::base::{Identity, TrustDomains};
use isthmus::gate::{Gate, Permit, addressed};
use isthmus::policy::{Connection, Denial, Request};
use isthmus::source::objects::Kind;
use isthmus::source::{Objects, TranslateSettings, Translation, Translator};
use isthmus::world::{MeshNames, World, WorldStore};
use serde::Deserialize;
use serde_json::{Value, json};

/// A row of the table of AuthorizationPolicy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// The field or the key, as the reference calls it.
    field: String,
    rule: Value,
    /// The rule matches: an ALLOW permits, a DENY refuses.
    #[serde(default)]
    matches: Vec<Asked>,
    /// It does not.
    #[serde(default)]
    misses: Vec<Asked>,
    /// Whether it matches cannot be known, or depends on who reads: neither an ALLOW nor a DENY lets this in.
    #[serde(default)]
    refused: Vec<Asked>,
    /// The policy is not understood, with the field that is at fault. It denies everything.
    broken: Option<String>,
}

/// A row of the table of RequestAuthentication.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRow {
    field: String,
    /// Besides `issuer` and `jwks`.
    #[serde(default)]
    rule: Value,
    /// Requests, and what the application is told.
    #[serde(default)]
    good: Vec<Told>,
    /// Requests that are answered with 401, and the text of the answer.
    #[serde(default)]
    bad: Vec<Bad>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    #[serde(default)]
    ask: Asked,
    /// Whose request it is to policies (`request.auth.principal`); none has no token that counts.
    principal: Option<String>,
    /// Headers of the request that arrives; null: it is not there.
    #[serde(default)]
    headers: serde_json::Map<String, Value>,
    path: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bad {
    ask: Asked,
    text: String,
}

/// What is asked; the defaults are those of an ordinary request.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    /// `trust domain/namespace/account`; empty: plaintext.
    client: String,
    source: String,
    method: String,
    path: String,
    host: String,
    headers: Vec<(String, String)>,
    /// The claims of a token of the issuer, which replaces `TOKEN` in headers and path.
    claims: Option<Value>,
    /// Bytes that are not HTTP.
    tcp: bool,
    /// The server that these ask for in TLS.
    sni: String,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            client: "cluster.local/shop/curl".into(),
            source: "10.0.9.9".into(),
            method: "GET".into(),
            path: "/".into(),
            host: "web.shop.svc.cluster.local".into(),
            headers: Vec::new(),
            claims: None,
            tcp: false,
            sni: String::new(),
        }
    }
}

fn rows<T: serde::de::DeserializeOwned>(name: &str) -> Vec<T> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/policies").join(name);
    let text = std::fs::read_to_string(path).expect("the table is there");
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// An issuer of tokens, `https://issuer`.
struct Issuer {
    key: jsonwebtoken::EncodingKey,
    jwks: String,
}

impl Issuer {
    fn new() -> Self {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let key = jsonwebtoken::EncodingKey::from_ec_der(&pair.serialize_der());
        let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, jsonwebtoken::Algorithm::ES256);
        let jwks = json!({ "keys": [jwk.expect("a public key")] }).to_string();
        Self { key, jwks }
    }

    fn token(&self, claims: &Value) -> String {
        let encode = |value: &Value| BASE64URL.encode(value.to_string());
        let signed = format!("{}.{}", encode(&json!({"alg": "ES256"})), encode(claims));
        let algorithm = jsonwebtoken::Algorithm::ES256;
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &self.key, algorithm);
        format!("{signed}.{}", signature.expect("a signature"))
    }

    /// What stands for `TOKEN`.
    fn filled(&self, asked: &Asked) -> Asked {
        let Some(claims) = &asked.claims else { return asked.clone() };
        let token = self.token(claims);
        let fill = |text: &str| text.replace("TOKEN", &token);
        let mut asked = asked.clone();
        asked.path = fill(&asked.path);
        for (_, value) in &mut asked.headers {
            *value = fill(value);
        }
        asked
    }

    /// A RequestAuthentication of the namespace.
    fn object(&self, rule: &Value) -> Value {
        let mut rule = if rule.is_null() { json!({}) } else { rule.clone() };
        rule["issuer"] = "https://issuer".into();
        rule["jwks"] = self.jwks.clone().into();
        object(
            "security.istio.io/v1",
            "RequestAuthentication",
            "tokens",
            json!({"jwtRules": [rule]}),
        )
    }
}

fn object(version: &str, kind: &str, name: &str, spec: Value) -> Value {
    let metadata = json!({"name": name, "namespace": "shop"});
    json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})
}

fn policy(action: &str, rule: &Value) -> Value {
    let spec = json!({
        "targetRefs": [{"group": "", "kind": "Service", "name": "web"}],
        "action": action, "rules": [rule],
    });
    object("security.istio.io/v1", "AuthorizationPolicy", "policy", spec)
}

/// The Service `web` (10.96.0.1:80) with a pod (10.1.0.1:8080) and a waypoint.
fn shop() -> Vec<Value> {
    let labels = json!({"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "waypoint"});
    let mut namespace = object("v1", "Namespace", "shop", json!({}));
    namespace["metadata"] = json!({"name": "shop", "labels": labels});
    let listener = json!({"name": "mesh", "port": 15008, "protocol": "HBONE"});
    let gateway = json!({"gatewayClassName": "istio-waypoint", "listeners": [listener]});
    let port = json!({"name": "http", "port": 80, "targetPort": 8080});
    let service = json!({"clusterIP": "10.96.0.1", "selector": {"app": "web"}, "ports": [port]});
    let account =
        json!({"serviceAccountName": "web", "nodeName": "node", "containers": [{"name": "web"}]});
    let mut pod = object("v1", "Pod", "web", account);
    pod["metadata"]["labels"] = json!({"app": "web"});
    pod["status"] = json!({
        "phase": "Running", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}],
        "conditions": [{"type": "Ready", "status": "True"}],
    });
    vec![
        namespace,
        object("gateway.networking.k8s.io/v1", "Gateway", "waypoint", gateway),
        object("v1", "Service", "web", service),
        pod,
    ]
}

/// The shop with more objects.
fn with(more: &[Value]) -> (Arc<World>, Vec<String>) {
    let trust_domains = TrustDomains::new("cluster.local".into(), &["old".into()]);
    let mut translator = Translator::new(TranslateSettings {
        trust_domains: trust_domains.clone(),
        ..TranslateSettings::default()
    });
    let mut objects = Objects::default();
    for value in shop().iter().chain(more) {
        let kind = value["kind"].as_str().and_then(Kind::named).expect("a kind that is read");
        let read =
            kind.read(value).unwrap_or_else(|it| panic!("{}: {}: {value}", it.field, it.reason));
        objects.insert(read);
    }
    let Translation { mesh, complaints, .. } = translator.translate(&objects, None);
    let complaints = complaints.iter().map(|it| it.field.clone()).collect();
    let names = MeshNames { trust_domains, root_namespace: "istio-system".into() };
    (WorldStore::new(names).publish(mesh), complaints)
}

/// What the gate of the pod says to a client that dialled the Service, and the headers that were judged.
fn ask(world: &World, asked: &Asked) -> (Result<Permit, Denial>, HeaderMap) {
    let workload = world.workload_at([10, 1, 0, 1].into()).expect("the pod");
    let client = Some(asked.client.as_str()).filter(|it| !it.is_empty()).map(|text| {
        let parts: Vec<&str> = text.split('/').collect();
        Identity::new(parts[0], parts[1], parts[2])
    });
    let service = Some("web.shop.svc.cluster.local").filter(|_| client.is_some());
    let to = addressed(world, workload, 8080, service, client.as_ref());
    let connection = Connection {
        client: client.as_ref(),
        source: asked.source.parse().expect("an address"),
        destination: SocketAddr::from(([10, 1, 0, 1], 8080)),
        server_name: Some(&asked.sni),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in &asked.headers {
        let value = HeaderValue::from_str(value).expect("a value");
        headers.append(HeaderName::try_from(name.as_str()).expect("a name"), value);
    }
    let method: Method = asked.method.parse().expect("a method");
    let request =
        Request { method: &method, path: &asked.path, host: &asked.host, headers: &headers };
    let request = Some(&request).filter(|_| !asked.tcp);
    let result = Gate::new(world, workload, 8080, &to).decide(&connection, request);
    (result, headers)
}

#[test]
fn authorization_policies_decide_as_the_reference_says() {
    let issuer = Issuer::new();
    for row in rows::<Row>("authorization-policy.yaml") {
        let rule = &row.rule;
        assert!(row.broken.is_some() || !row.matches.is_empty(), "{}: no case", row.field);
        for action in ["ALLOW", "DENY"] {
            let (world, complaints) = with(&[policy(action, rule), issuer.object(&Value::Null)]);
            if let Some(field) = &row.broken {
                assert!(complaints.contains(field), "{}: {complaints:?}", row.field);
                assert!(ask(&world, &Asked::default()).0.is_err(), "{} {action} {rule}", row.field);
                continue;
            }
            let allows = action == "ALLOW";
            let cases = row.matches.iter().map(|it| (it, allows));
            let cases = cases.chain(row.misses.iter().map(|it| (it, !allows)));
            for (asked, passes) in cases.chain(row.refused.iter().map(|it| (it, false))) {
                let asked = issuer.filled(asked);
                let (result, _) = ask(&world, &asked);
                assert_eq!(
                    result.is_ok(),
                    passes,
                    "{} {action} {rule}: {} {} {} from {:?} {:?}: {result:?}",
                    row.field,
                    asked.method,
                    asked.host,
                    asked.path,
                    asked.client,
                    asked.headers
                );
            }
        }
    }
}

#[test]
fn request_authentications_decide_as_the_reference_says() {
    let issuer = Issuer::new();
    for row in rows::<TokenRow>("request-authentication.yaml") {
        let (world, complaints) = with(&[issuer.object(&row.rule)]);
        assert!(complaints.is_empty(), "{}: {complaints:?}", row.field);
        for Told { ask: asked, principal, headers, path } in &row.good {
            let asked = issuer.filled(asked);
            let place = format!("{}: {} {:?}", row.field, asked.path, asked.headers);
            let (result, sent) = ask(&world, &asked);
            let permit = result.unwrap_or_else(|denial| panic!("{place}: {}", denial.why));
            let mut request = http::Request::get(&asked.path).body(()).expect("a request");
            *request.headers_mut() = sent;
            if let Some(told) = permit.told {
                told.apply(&mut request);
            }
            for (name, value) in headers {
                let there = request.headers().get(name).map(|it| it.to_str().expect("a text"));
                assert_eq!(there, value.as_str(), "{place}: {name}");
            }
            if let Some(path) = path {
                assert_eq!(request.uri(), path.as_str(), "{place}");
            }
            let who = principal.as_deref().map_or("notRequestPrincipals", |_| "requestPrincipals");
            let value = principal.as_deref().unwrap_or("*");
            let rule = json!({"from": [{"source": {who: [value]}}]});
            let (world, _) = with(&[issuer.object(&row.rule), policy("ALLOW", &rule)]);
            let (result, _) = ask(&world, &asked);
            assert!(result.is_ok(), "{place}: {principal:?}: {result:?}");
        }
        for Bad { ask: asked, text } in &row.bad {
            let asked = issuer.filled(asked);
            let denial = ask(&world, &asked).0.expect_err(&row.field);
            let told = denial.token.map(|fault| fault.text());
            assert_eq!(told, Some(text.as_str()), "{}: {}", row.field, denial.why);
        }
    }
}
