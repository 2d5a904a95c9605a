//! What a client can write into HTTP: hosts, upgrades, headers that only the mesh may set, paths in disguise, and questions
//! that are answered without the application. The application keeps every byte, and is asked over every way: through its
//! service (the client's half of the waypoint) and at its pod's address (the destination's half), on the client's node
//! and on another, from inside of the mesh and from outside.

use std::net::IpAddr;

use anyhow::Result;

use crate::recorder::{Raw, Recorder, ask, status};
use crate::support::lab::Lab;
use crate::support::lab::manifests::Key;
use crate::support::lab::wait;
use crate::{besieged, captured_in};

const VAULT: &str = include_str!("http.yaml");
const NEAR: &str = "vault-near";
const FAR: &str = "vault-far";

/// A lab with the vault, its two applications, and policies of it.
pub struct Siege {
    lab: Lab,
    near: Recorder,
    far: Recorder,
}

/// A way to the application.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    from: &'static str,
    pub pod: &'static str,
    by_service: bool,
}

/// Every way that there is: the outsider has none through the client's half.
pub const WAYS: [Way; 6] = [
    Way { from: "attacker", pod: NEAR, by_service: true },
    Way { from: "attacker", pod: FAR, by_service: true },
    Way { from: "attacker", pod: NEAR, by_service: false },
    Way { from: "attacker", pod: FAR, by_service: false },
    Way { from: "outsider", pod: NEAR, by_service: false },
    Way { from: "outsider", pod: FAR, by_service: false },
];

impl Siege {
    pub fn new(policies: &str) -> Result<Self> {
        let lab = besieged(&[VAULT, policies])?;
        captured_in(&lab, "vault")?;
        let (near, far) = (Recorder::start(&lab, NEAR)?, Recorder::start(&lab, FAR)?);
        let siege = Self { lab, near, far };
        for way in WAYS {
            wait::until(&format!("{way:?} to work"), || {
                Ok((siege.get(way, "/", "")? == 200).then_some(()))
            })?;
        }
        siege.saw(NEAR);
        siege.saw(FAR);
        Ok(siege)
    }

    fn address(&self, way: Way) -> Result<IpAddr> {
        match way.by_service {
            true => Ok(self.lab.service("vault", way.pod)?[0]),
            false => self.lab.address(way.pod),
        }
    }

    pub fn ask(&self, way: Way, bytes: &[u8]) -> Result<String> {
        ask(&self.lab, way.from, self.address(way)?, bytes)
    }

    /// The status of a usual request; `more` are whole header lines.
    fn get(&self, way: Way, path: &str, more: &str) -> Result<u16> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: vault\r\n{more}Connection: close\r\n\r\n");
        Ok(status(&self.ask(way, request.as_bytes())?))
    }

    /// What the application saw since it was asked last.
    pub fn saw(&self, pod: &str) -> String {
        if pod == NEAR { self.near.take() } else { self.far.take() }
    }
}

/// An AuthorizationPolicy for both services, so that the destination's half parses HTTP.
fn policy(name: &str, action: &str, rules: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: vault}}\n\
         spec:\n  targetRefs: [{{group: \"\", kind: Service, name: {NEAR}}}, {{group: \"\", kind: Service, name: {FAR}}}]\n  \
         action: {action}\n  rules: {rules}\n---\n"
    )
}

fn deny_operations(operation: &str) -> String {
    policy("deny", "DENY", &format!("[{{to: [{{operation: {operation}}}]}}]"))
}

/// No request may name these.
const NO_HOSTS: &[&str] = &[
    "user@vault",
    "vault, secret.example",
    "secret.example,vault",
    "",
    "va ult",
    "vault/secret.example",
    "secret%2eexample",
    "vault..",
    "vault:",
    "vault:0",
    "vault:080",
    "vault:65536",
    "vault:x",
    "[::1",
    "[::1%25lo]",
    "010.0.0.1",
    "0x0a000001",
    "caf\u{e9}",
    "vault\x01",
    "vault\tx",
    "vault;secret.example",
    "*",
];

fn head(target: &str, headers: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n").into_bytes()
}

/// Requests that name no host, or not one.
fn ill_named() -> Vec<Vec<u8>> {
    let hosts = NO_HOSTS.iter();
    hosts
        .map(|host| head("/", &format!("Host: {host}\r\n")))
        .chain([
            head("/", ""),
            head("/", "Host: vault\r\nHost: vault\r\n"),
            head("/", "Host: vault\r\nHost: secret.example\r\n"),
            head("/", "Host: vault\r\nhost : secret.example\r\n"),
            head("http://secret.example/", "Host: vault\r\n"),
            head("http://vault/", ""),
            head("http://secret.example@vault/", "Host: vault\r\n"),
            head("http://vault@secret.example/", "Host: vault@secret.example\r\n"),
            head("ftp://vault/", "Host: vault\r\n"),
            head("secret.example:80", "Host: secret.example:80\r\n"),
            head("vault", "Host: vault\r\n"),
            head("*", "Host: vault\r\n"),
            b"CONNECT vault:9080 HTTP/1.1\r\nHost: vault:9080\r\nConnection: close\r\n\r\n"
                .to_vec(),
            b"GET / HTTP/1.0\r\nHost: vault, secret.example\r\n\r\n".to_vec(),
            b"GET / HTTP/1.1\r\nHost: caf\xe9\r\nConnection: close\r\n\r\n".to_vec(),
        ])
        .collect()
}

#[test]
fn a_request_names_one_host_that_everybody_reads_alike() -> Result<()> {
    let siege = Siege::new(&deny_operations("{hosts: [secret.example]}"))?;
    let bad = ill_named();
    for way in WAYS {
        for request in &bad {
            let shown = String::from_utf8_lossy(request);
            assert_eq!(status(&siege.ask(way, request)?), 400, "{way:?} {shown}");
            assert_eq!(siege.saw(way.pod), "", "{way:?} {shown}");
        }
        for host in [
            "secret.example",
            "SECRET.example",
            "secret.example.",
            "secret.example:80",
            "Secret.Example.:9080",
        ] {
            assert_eq!(
                status(&siege.ask(way, &head("/", &format!("Host: {host}\r\n")))?),
                403,
                "{way:?} {host}"
            );
            let absolute = head(&format!("http://{host}/"), &format!("Host: {host}\r\n"));
            assert_eq!(status(&siege.ask(way, &absolute)?), 403, "{way:?} {host}");
            assert_eq!(siege.saw(way.pod), "", "{way:?} {host}");
        }
        for host in [
            "vault",
            "VAULT:9080",
            "vault.vault.svc.cluster.local.",
            "10.0.0.1",
            "[fd00::1]:80",
            "my_vault",
        ] {
            assert_eq!(
                status(&siege.ask(way, &head("/", &format!("Host: {host}\r\n")))?),
                200,
                "{way:?} {host}"
            );
            let saw = siege.saw(way.pod);
            assert!(
                saw.contains(&format!("host: {}\r\n", host.to_ascii_lowercase())),
                "{way:?} {saw}"
            );
            assert_eq!(saw.matches("host:").count(), 1, "{saw}");
        }
    }
    Ok(())
}

#[test]
fn an_http2_request_names_one_host() -> Result<()> {
    let siege = Siege::new(&deny_operations("{hosts: [secret.example]}"))?;
    for way in WAYS.into_iter().filter(|way| way.by_service) {
        let url = format!("http://{}:9080/", self_host(&siege, way)?);
        for (host, expected) in [
            ("user@vault", 400),
            ("vault,secret.example", 400),
            ("vault:080", 400),
            ("secret.example.", 403),
            ("vault", 200),
        ] {
            let header = format!("Host: {host}");
            let answer =
                siege.lab.curl(way.from, &["--http2-prior-knowledge", "-H", &header, &url])?;
            // The application speaks HTTP/1.1 alone, so what is permitted breaks there, having been sent.
            let saw = siege.saw(way.pod);
            match expected {
                200 => assert!(saw.contains("pri * http/2"), "{way:?} {host} {answer:?}"),
                _ => {
                    assert_eq!(answer.status, expected, "{way:?} {host} {answer:?}");
                    assert_eq!(saw, "", "{way:?} {host}");
                }
            }
        }
    }
    Ok(())
}

fn self_host(siege: &Siege, way: Way) -> Result<String> {
    Ok(siege.address(way)?.to_string())
}

#[test]
fn a_connection_is_upgraded_to_what_was_offered_and_allowed_only() -> Result<()> {
    let siege = Siege::new(&deny_operations("{paths: [/admin]}"))?;
    let upgrade = |way: Way, path: &str, headers: &str| -> Result<(Raw, String)> {
        let mut raw = Raw::connect(&siege.lab, way.from, siege.address(way)?)?;
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: vault\r\n{headers}\r\n").as_bytes())?;
        let head = raw.head();
        Ok((raw, head))
    };
    for way in WAYS {
        // Passed on as an ordinary request; a second request in the same bytes is judged like any other.
        for headers in [
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
            "Connection: upgrade\r\nUpgrade: foo\r\n",
            "Connection: upgrade\r\nUpgrade: foo, h2c\r\n",
            "Connection: upgrade\r\nUpgrade: websocket/13\r\n",
            "Upgrade: websocket\r\n",
            "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nxx",
        ] {
            let (mut raw, head) = upgrade(way, "/", headers)?;
            assert_eq!(status(&head), 200, "{way:?} {headers} {head}");
            raw.send(b"GET /admin HTTP/1.1\r\nHost: vault\r\nConnection: close\r\n\r\n")?;
            assert!(raw.rest().contains("HTTP/1.1 403 "), "{way:?} {headers}");
            let saw = siege.saw(way.pod);
            assert!(!saw.contains("upgrade") && !saw.contains("/admin"), "{way:?} {saw}");
        }
        // Of several only what is allowed is offered.
        let (mut raw, head) = upgrade(
            way,
            "/switch/websocket",
            "Connection: upgrade\r\nUpgrade: h2c, WebSocket\r\nUpgrade: foo\r\n",
        )?;
        assert_eq!(status(&head), 101, "{way:?} {head}");
        assert!(head.to_ascii_lowercase().contains("upgrade: websocket\r\n"), "{head}");
        raw.send(b"frames")?;
        wait::until("the application to see what was sent", || {
            Ok(siege.saw(way.pod).contains("frames").then_some(()))
        })?;
        drop(raw);
        // A 101 that was not asked for, or names something else.
        for (path, headers) in [
            ("/switch/h2c", "Connection: upgrade\r\nUpgrade: websocket\r\n"),
            ("/switch/foo", "Connection: upgrade\r\nUpgrade: websocket\r\n"),
            ("/switch/nothing", "Connection: upgrade\r\nUpgrade: websocket\r\n"),
            ("/switch/websocket,h2c", "Connection: upgrade\r\nUpgrade: websocket\r\n"),
            ("/switch/websocket", ""),
            (
                "/switch/h2c",
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
            ),
        ] {
            let (mut raw, head) = upgrade(way, path, headers)?;
            assert_eq!(status(&head), 502, "{way:?} {path} {head}");
            siege.saw(way.pod);
            raw.send(b"GET /admin HTTP/1.1\r\nHost: vault\r\nConnection: close\r\n\r\n")?;
            raw.rest();
            assert_eq!(siege.saw(way.pod), "", "{way:?} {path}");
        }
    }
    Ok(())
}

const FORGED: &str =
    "By=spiffe://cluster.local/ns/vault/sa/vault;URI=spiffe://cluster.local/ns/admin/sa/root";

/// Ways to write the header so that an application may take it for the mesh's.
fn forgeries() -> Vec<String> {
    let chunked = "Transfer-Encoding: chunked\r\nTrailer: X-Forwarded-Client-Cert\r\nConnection: close\r\n\r\n2\r\nxx\r\n0\r\n";
    let request = |headers: String| format!("POST / HTTP/1.1\r\nHost: vault\r\n{headers}\r\n");
    [
        "x-forwarded-client-cert", "X-Forwarded-Client-Cert", "X-FORWARDED-CLIENT-CERT", "x_forwarded_client_cert",
        "X-Forwarded_Client-Cert",
    ]
    .iter()
    .map(|name| request(format!("{name}: {FORGED}\r\nConnection: close\r\n")))
    .chain([
        request(format!("X-Forwarded-Client-Cert: a\r\nX-Forwarded-Client-Cert: {FORGED}\r\nConnection: close\r\n")),
        request(format!("X-Forwarded-Client-Cert: {FORGED}\r\nConnection: x-forwarded-client-cert, close\r\n")),
        request(format!("{chunked}X-Forwarded-Client-Cert: {FORGED}\r\n")),
        request(format!("X-Isthmus-Original: {FORGED}\r\nConnection: close\r\n")),
    ])
    .collect()
}

#[test]
fn no_client_says_who_it_is() -> Result<()> {
    let mut siege = Siege::new(&deny_operations("{paths: [/admin]}"))?;
    for named in [false, true] {
        if named {
            let gateway = Key::new("Gateway", "vault", "waypoint");
            let annotation = "ambient.istio.io/xfcc-include-client-identity";
            siege.lab.manifests.annotate(&gateway, annotation, "true")?;
            wait::until("the waypoint to name clients", || {
                siege.get(WAYS[1], "/", "")?;
                Ok(siege.saw(FAR).contains("uri=").then_some(()))
            })?;
            wait::until("the near waypoint to name clients", || {
                siege.get(WAYS[0], "/", "")?;
                Ok(siege.saw(NEAR).contains("uri=").then_some(()))
            })?;
        }
        for way in WAYS {
            for forged in forgeries() {
                assert_eq!(status(&siege.ask(way, forged.as_bytes())?), 200, "{way:?} {forged}");
                let saw = siege.saw(way.pod);
                assert!(
                    !saw.contains("root") && !saw.contains("isthmus"),
                    "{way:?} {forged} {saw}"
                );
                assert!(!saw.contains("client_cert"), "{way:?} {saw}");
                let client = "x-forwarded-client-cert: by=spiffe://cluster.local/ns/vault/sa/vault;\
                              uri=spiffe://cluster.local/ns/evil/sa/attacker";
                let waypoint = ",by=spiffe://cluster.local/ns/vault/sa/vault;\
                                uri=spiffe://cluster.local/ns/vault/sa/waypoint\r\n";
                let in_mesh = way.from == "attacker";
                assert_eq!(saw.contains(client), named && in_mesh, "{way:?} {saw}");
                assert_eq!(
                    saw.contains(waypoint),
                    named && in_mesh && way.by_service,
                    "{way:?} {saw}"
                );
                assert_eq!(
                    saw.matches("client-cert:").count(),
                    usize::from(named && in_mesh),
                    "{saw}"
                );
            }
        }
    }
    Ok(())
}

/// Nothing needs HTTP but the name of the client; what is not HTTP could carry a forged one.
#[test]
fn where_clients_are_named_nothing_else_passes() -> Result<()> {
    let siege = Siege::new(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata:\n  name: istio-waypoint\n  \
         annotations: {ambient.istio.io/xfcc-include-client-identity: \"true\"}\n\
         spec: {controllerName: isthmus.io/mesh-controller}\n---\n",
    )?;
    for way in WAYS {
        for hidden in [
            "\r\nGET / HTTP/1.1",
            "get\t/ HTTP/1.1",
            "\x00\x01GET / HTTP/1.1",
            "GET / HTTP/1.2",
            "GET /",
        ] {
            let request =
                format!("{hidden}\r\nHost: vault\r\nX-Forwarded-Client-Cert: {FORGED}\r\n\r\n");
            siege.ask(way, request.as_bytes())?;
            let saw = siege.saw(way.pod);
            assert!(!saw.contains("root"), "{way:?} {hidden:?} {saw}");
        }
        assert_eq!(siege.get(way, "/", "")?, 200, "{way:?}");
        assert_eq!(siege.saw(way.pod).contains("attacker"), way.from == "attacker", "{way:?}");
    }
    Ok(())
}

#[test]
fn a_path_means_the_same_in_policies_and_requests() -> Result<()> {
    let deny =
        deny_operations("{paths: [\"/caf%C3%A9\", \"/\u{fc}ber/*\", \"/%61dmin\", \"/a%2fb\"]}");
    let siege = Siege::new(&deny)?;
    for way in WAYS {
        for path in [
            "/café",
            "/caf%C3%A9",
            "/caf%c3%a9",
            "/caf%C3%A9?x",
            "/x/../caf%C3%A9",
            "//café",
            "/café;x",
            "/über/x",
            "/%C3%BCber/x",
            "/%c3%bcber/",
            "/admin",
            "/%61dmin",
            "/a/b",
            "/a%2Fb",
            "/a\\b",
            // Nobody knows what these are.
            "/caf%C0%AF",
            "/%c0%ae%c0%ae/x",
            "/a%E0%80%AFb",
            "/caf%E9",
            "/x%",
            "/%00",
        ] {
            let code = siege.get(way, path, "")?;
            assert!(matches!(code, 403 | 400), "{way:?} {path} {code}");
            assert_eq!(siege.saw(way.pod), "", "{way:?} {path}");
        }
        for path in ["/cafe", "/caf%C3%A8", "/%C3%BCbe", "/admins", "/a"] {
            assert_eq!(siege.get(way, path, "")?, 200, "{way:?} {path}");
            assert!(siege.saw(way.pod).contains("host: vault"));
        }
    }
    Ok(())
}

#[test]
fn an_allowed_path_is_allowed_in_each_spelling_and_nothing_unclear_is() -> Result<()> {
    let allow = policy(
        "allow",
        "ALLOW",
        "[{to: [{operation: {paths: [\"/\", \"/caf%C3%A9\", \"/\u{fc}ber/*\"]}}]}]",
    );
    let siege = Siege::new(&allow)?;
    for way in WAYS {
        for path in ["/café", "/caf%C3%A9", "/caf%c3%a9", "/über/x", "/%C3%BCber/x"] {
            assert_eq!(siege.get(way, path, "")?, 200, "{way:?} {path}");
        }
        siege.saw(way.pod);
        for path in [
            "/cafe",
            "/caf%E9",
            "/caf%C3%83%C2%A9",
            "/über/%C0%AF",
            "/über/../x",
            "/%C3%BCber/%2e%2e/x",
        ] {
            let code = siege.get(way, path, "")?;
            assert!(matches!(code, 403 | 400), "{way:?} {path} {code}");
            assert_eq!(siege.saw(way.pod), "", "{way:?} {path}");
        }
    }
    Ok(())
}

const ROUTE: &str = include_str!("http-route.yaml");

#[test]
fn what_a_route_answers_itself_is_for_who_may_ask() -> Result<()> {
    let allow = policy(
        "allow",
        "ALLOW",
        "[{from: [{source: {namespaces: [default]}}], to: [{operation: {methods: [GET]}}]}, {to: [{operation: {paths: [/]}}]}]",
    );
    let siege = Siege::new(&format!("{ROUTE}{allow}"))?;
    let attacker = WAYS[1];
    let friend = Way { from: "curl", ..attacker };
    let preflight = "OPTIONS /scripts HTTP/1.1\r\nHost: vault\r\nOrigin: http://secret.example\r\n\
                     Access-Control-Request-Method: GET\r\nConnection: close\r\n\r\n";
    let get =
        |path: &str| format!("GET {path} HTTP/1.1\r\nHost: vault\r\nConnection: close\r\n\r\n");
    for (request, expected) in [
        (get("/old"), 302),
        (get("/broken"), 500),
        (get("/nowhere"), 404),
        (preflight.to_owned(), 204),
    ] {
        let heard = siege.ask(friend, request.as_bytes())?;
        assert_eq!(status(&heard), expected, "{heard}");
        let heard = siege.ask(attacker, request.as_bytes())?;
        assert_eq!(status(&heard), 403, "{heard}");
        assert!(heard.ends_with("RBAC: access denied") && !heard.contains("secret"), "{heard}");
    }
    // The preflight of a request that the friend may not send either.
    let refused = preflight.replace("Method: GET", "Method: DELETE");
    assert_eq!(status(&siege.ask(friend, refused.as_bytes())?), 403);
    Ok(())
}

/// What hyper and the two halves make of messages whose end is disputed (RFC 9112, 6.3, 11.2). The application sees at most
/// what was judged.
#[test]
fn no_request_hides_in_another() -> Result<()> {
    let siege = Siege::new(&deny_operations("{paths: [/admin]}"))?;
    let hidden = "GET /admin HTTP/1.1\r\nHost: vault\r\nX: ";
    let post = "POST / HTTP/1.1\r\nHost: vault\r\n";
    let length = hidden.len();
    for way in WAYS {
        for request in [
            format!(
                "{post}Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
            format!(
                "{post}Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n0\r\n\r\n{hidden}"
            ),
            format!(
                "{post}Transfer-Encoding: xchunked\r\nContent-Length: {length}\r\n\r\n{hidden}"
            ),
            format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
            format!("{post}Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n{hidden}"),
            format!("{post}Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{hidden}"),
            format!("{post}Content-Length: 0, {length}\r\n\r\n{hidden}"),
            format!("{post}Content-Length: +0\r\n\r\n{hidden}"),
            format!("{post}Content-Length : {length}\r\n\r\n{hidden}"),
            format!("{post}X: y\r\n Content-Length: {length}\r\n\r\n{hidden}"),
            format!("{post}Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n{hidden}"),
            format!("{post}Transfer-Encoding: chunked\r\n\r\n0;x={hidden}\r\n\r\n"),
            format!("{post}Transfer-Encoding: chunked\r\n\r\n2\nxx0\r\n\r\n{hidden}"),
            format!("{post}Transfer-Encoding: chunked\r\n\r\n-0\r\n\r\n{hidden}"),
        ] {
            siege.ask(way, format!("{request}\r\n\r\n").as_bytes())?;
            let saw = siege.saw(way.pod);
            // It may be the body of what was permitted: of that length or in chunks, never both.
            for head in saw.split("post / http/1.1").skip(1) {
                let framed = head.matches("content-length:").count()
                    + head.matches("transfer-encoding:").count();
                assert!(framed <= 1, "{way:?} {request} {saw}");
            }
            let outside = saw.starts_with("get /admin") || saw.contains("\r\n\r\nget /admin");
            let body = saw.contains(&format!("content-length: {length}"))
                || saw.contains("transfer-encoding: chunked");
            assert!(!outside || body, "{way:?} {request} {saw}");
        }
        assert_eq!(siege.get(way, "/", "")?, 200);
        bodies_of_any_framing_pass(&siege, way)?;
    }
    Ok(())
}

/// Nothing is lost either: a GET may have a body of any framing.
fn bodies_of_any_framing_pass(siege: &Siege, way: Way) -> Result<()> {
    siege.saw(way.pod);
    let get = "GET / HTTP/1.1\r\nHost: vault\r\nConnection: transfer-encoding, content-length\r\n";
    for request in [
        format!("{get}Transfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n"),
        format!("{get}Content-Length: 5\r\n\r\nwhole"),
    ] {
        assert_eq!(status(&siege.ask(way, request.as_bytes())?), 200, "{way:?} {request}");
        // The answer may come before the body does.
        let mut saw = String::new();
        wait::until(&format!("{way:?} to pass on {request}"), || {
            saw.push_str(&siege.saw(way.pod));
            Ok(saw.contains("whole").then_some(()))
        })?;
        let framed = saw.contains("content-length: 5\r\n") || saw.contains("\r\n5\r\nwhole");
        assert!(framed, "{way:?} {request} {saw}");
    }
    Ok(())
}
