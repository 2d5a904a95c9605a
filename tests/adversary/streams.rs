//! Requests that last longer than the policy that permitted them: bodies in chunks, streams of gRPC in both directions,
//! responses without an end, WebSockets. Once a policy refuses their like, the application sees nothing more of them, and
//! their client hears nothing more; what is still permitted goes on. Into the mesh through both halves, and out of it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;

use crate::authority::service;
use crate::besieged;
use crate::captured_in;
use crate::siege::{END_HEADERS, HEADERS, PREFACE, SETTINGS, frame};
use crate::support::lab::netns::Namespace;
use crate::support::lab::{Lab, PORT, wait};

const VAULT: &str = include_str!("http.yaml");
const PATIENCE: Duration = Duration::from_secs(10);
/// How long what lasts may go on when its like is refused: it is judged again a second after it began, and after changes.
const GRACE: Duration = Duration::from_secs(3);
const DATA: u8 = 0;
/// `:status: 200` in HPACK's static table.
const OK: u8 = 0x88;
/// Where requests go that no policy will refuse.
const OPEN: &str = "open";

/// An application that takes streams, and keeps what it was sent.
#[derive(Clone, Default)]
struct Application(Arc<Mutex<String>>);

impl Application {
    fn start(&self, namespace: &Namespace, at: &str) -> Result<()> {
        let listener = namespace.run(|| TcpListener::bind(at))??;
        let application = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let application = application.clone();
                std::thread::spawn(move || _ = application.serve(stream));
            }
        });
        Ok(())
    }

    fn saw(&self, text: &str) -> bool {
        self.0.lock().contains(text)
    }

    fn serve(self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut first = [0; 4];
        stream.read_exact(&mut first)?;
        match &first {
            b"PRI " => self.serve_http2(stream),
            _ => self.serve_http1(&first, stream),
        }
    }

    /// A 101 where an upgrade is wanted; otherwise a response in chunks that has no end, of which some begins at once.
    fn serve_http1(self, first: &[u8], mut stream: TcpStream) -> std::io::Result<()> {
        let (mut head, mut byte) = (first.to_vec(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        if head.contains("/ask ") {
            return stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        if head.contains("upgrade: websocket") {
            let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
            stream.write_all(switch.as_bytes())?;
        } else {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            let mut ticks = stream.try_clone()?;
            std::thread::spawn(move || {
                while ticks.write_all(b"4\r\ntick\r\n").is_ok() {
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        }
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                more => self.0.lock().push_str(&String::from_utf8_lossy(&buffer[..more])),
            }
        }
    }

    /// A stream is answered when a message asks for that.
    fn serve_http2(self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.read_exact(&mut vec![0; PREFACE.len() - 4])?;
        stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
        loop {
            let mut start = [0; 9];
            stream.read_exact(&mut start)?;
            let [a, b, c, kind, flags, s, t, u, v] = start;
            let number = u32::from_be_bytes([s, t, u, v]);
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            stream.read_exact(&mut payload)?;
            match kind {
                SETTINGS if flags & 1 == 0 => stream.write_all(&frame(SETTINGS, 1, 0, &[]))?,
                DATA => {
                    let text = String::from_utf8_lossy(&payload).into_owned();
                    if text.contains("answer") {
                        stream.write_all(&frame(HEADERS, END_HEADERS, number, &[OK]))?;
                    }
                    self.0.lock().push_str(&text);
                }
                _ => {}
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A body in chunks, and a response in chunks.
    Chunks,
    /// A stream of gRPC with messages in both directions.
    Grpc,
    /// One that is answered at its end.
    Upload,
    /// Nothing but a response.
    Watch,
    WebSocket,
}

const KINDS: [Kind; 5] = [Kind::Chunks, Kind::Grpc, Kind::Upload, Kind::Watch, Kind::WebSocket];

/// A request that lasts.
struct Lasting {
    name: String,
    kind: Kind,
    stream: TcpStream,
    heard: usize,
}

impl Lasting {
    fn open(lab: &Lab, (pod, to): (&str, SocketAddr), kind: Kind, path: &str) -> Result<Self> {
        let name = format!("{pod} {to} {kind:?} {path}");
        let namespace = &lab.pod(pod)?.attachment.namespace;
        let stream = namespace.run(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        let mut stream = stream.context(name.clone())?;
        stream.set_read_timeout(Some(Duration::from_millis(20)))?;
        let head = |method: &str, more: &str| {
            format!("{method} /{path}/x HTTP/1.1\r\nHost: vault\r\n{more}\r\n").into_bytes()
        };
        let first = match kind {
            Kind::Chunks => head("POST", "Transfer-Encoding: chunked\r\n"),
            Kind::Watch => head("GET", ""),
            Kind::WebSocket => head("GET", "Connection: upgrade\r\nUpgrade: websocket\r\n"),
            Kind::Grpc | Kind::Upload => opening(&format!("/{path}/x"), "vault"),
        };
        stream.write_all(&first)?;
        Ok(Self { name, kind, stream, heard: 0 })
    }

    /// Sends a message, if it can: whether it is understood, the application says.
    fn say(&mut self, text: &str) {
        let data = match self.kind {
            Kind::Watch => return,
            Kind::Chunks => format!("{:x}\r\n{text}\r\n", text.len()).into_bytes(),
            Kind::WebSocket => text.as_bytes().to_vec(),
            Kind::Grpc | Kind::Upload => frame(DATA, 0, 1, text.as_bytes()),
        };
        _ = self.stream.write_all(&data);
    }

    /// How much more came since the last time.
    fn hear(&mut self) -> usize {
        let mut buffer = [0; 4096];
        let mut more = 0;
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => more += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
            if more > 1024 * 1024 {
                break;
            }
        }
        self.heard += more;
        more
    }
}

/// An HTTP/2 connection's beginning with a request of gRPC.
fn opening(path: &str, host: &str) -> Vec<u8> {
    let literal = |name: &str, value: &str| {
        let mut field = vec![0, name.len() as u8];
        field.extend(name.as_bytes());
        field.push(value.len() as u8);
        field.extend(value.as_bytes());
        field
    };
    let head = [
        crate::siege::block(0x83, path, host),
        literal("content-type", "application/grpc"),
        literal("te", "trailers"),
    ]
    .concat();
    [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, END_HEADERS, 1, &head)].concat()
}

/// The status of a usual request.
fn status(lab: &Lab, pod: &str, to: SocketAddr, path: &str) -> Result<u16> {
    let url = format!("http://{to}/{path}/ask");
    Ok(lab.curl(pod, &["-H", "Host: vault", &url])?.status)
}

/// Refuses requests to `/refused/`, and nothing else.
fn refusal(services: &[&str]) -> String {
    let targets = services.iter().map(|it| format!("{{group: \"\", kind: Service, name: {it}}}"));
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: later, namespace: vault}}\n\
         spec:\n  targetRefs: [{}]\n  action: DENY\n  rules: [{{to: [{{operation: {{paths: [/refused/*]}}}}]}}]\n---\n",
        targets.collect::<Vec<_>>().join(", ")
    )
}

/// Opens every kind of lasting request over every way, then refuses half of them.
fn outlive(
    lab: &mut Lab,
    ways: &[(&str, SocketAddr)],
    seen: &Application,
    policy: &str,
) -> Result<()> {
    let mut lasting = Vec::new();
    for way in ways {
        wait::until(&format!("{way:?} to work"), || {
            Ok((status(lab, way.0, way.1, OPEN)? == 200).then_some(()))
        })?;
        for kind in KINDS {
            for path in ["refused", OPEN] {
                lasting.push((path == OPEN, Lasting::open(lab, *way, kind, path)?));
            }
        }
    }
    let early = |number: usize| format!("<early {number}>");
    for (number, (_, it)) in lasting.iter_mut().enumerate() {
        let answer = if it.kind == Kind::Upload { "" } else { "answer" };
        it.say(&format!("{answer}{}", early(number)));
    }
    for (number, (_, it)) in lasting.iter_mut().enumerate() {
        wait::until(&format!("{} to work", it.name), || {
            let works = match it.kind {
                Kind::Watch => it.hear() > 0,
                _ => seen.saw(&early(number)),
            };
            Ok(works.then_some(()))
        })?;
    }
    lab.manifests.apply(policy)?;
    for (pod, to) in ways {
        wait::until(&format!("{pod} {to} to be refused"), || {
            Ok((status(lab, pod, *to, "refused")? == 403).then_some(()))
        })?;
    }
    std::thread::sleep(GRACE);
    let late = |number: usize| format!("<late {number}>");
    for (number, (_, it)) in lasting.iter_mut().enumerate() {
        it.hear();
        it.say(&late(number));
    }
    std::thread::sleep(Duration::from_millis(500));
    let mut wrong = Vec::new();
    for (number, (permitted, it)) in lasting.iter_mut().enumerate() {
        let goes_on = match it.kind {
            Kind::Watch => it.hear() > 0,
            _ => seen.saw(&late(number)),
        };
        if goes_on != *permitted {
            let what = if goes_on { "goes on" } else { "was cut" };
            wrong.push(format!("{} {what}", it.name));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn no_request_outlives_the_policy_that_permitted_it() -> Result<()> {
    // So that the destination's half looks at each request from the beginning.
    let before = refusal(&["vault-near", "vault-far"]).replace("/refused/*", "/nothing");
    let mut lab = besieged(&[VAULT, &before])?;
    captured_in(&lab, "vault")?;
    let seen = Application::default();
    let mut ways = Vec::new();
    for pod in ["vault-near", "vault-far"] {
        seen.start(&lab.pod(pod)?.attachment.namespace, "[::]:9080")?;
        ways.push(("attacker", SocketAddr::new(lab.service("vault", pod)?[0], PORT)));
        ways.push(("attacker", SocketAddr::new(lab.address(pod)?, PORT)));
    }
    ways.push(("outsider", SocketAddr::new(lab.address("vault-far")?, PORT)));
    outlive(&mut lab, &ways, &seen, &refusal(&["vault-near", "vault-far"]))
}

/// Where nobody judges at the other end, the client's half does.
#[test]
fn no_request_out_of_the_mesh_outlives_its_policy() -> Result<()> {
    let mut lab = besieged(&[VAULT])?;
    captured_in(&lab, "vault")?;
    let machine =
        service("machine", "10.96.66.5", "istio.io/use-waypoint: waypoint", "172.30.0.254");
    let before = refusal(&["machine"]).replace("/refused/*", "/nothing");
    lab.manifests.apply(&(machine.replace("namespace: evil", "namespace: vault") + &before))?;
    let seen = Application::default();
    seen.start(lab.network().own(), "172.30.0.254:9080")?;
    let ways = [("attacker", SocketAddr::new("10.96.66.5".parse()?, PORT))];
    outlive(&mut lab, &ways, &seen, &refusal(&["machine"]))
}

/// Calls of the service Secret, and calls to the host secret.example, are for nobody; a GRPCRoute leads every call on.
const CALLS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls, namespace: vault}
spec:
  parentRefs: [{group: '', kind: Service, name: vault-far, port: 9080}]
  rules: [{backendRefs: [{name: vault-far, port: 9080}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: secret, namespace: vault}
spec:
  targetRefs: [{group: '', kind: Service, name: vault-far}]
  action: DENY
  rules:
  - to: [{operation: {paths: ['/pkg.Secret/*']}}]
  - to: [{operation: {hosts: [secret.example]}}]
";
const SECRETS: [(&str, &str); 13] = [
    ("/pkg.Secret/Get", "vault"),
    ("//pkg.Secret/Get", "vault"),
    ("/./pkg.Secret/Get", "vault"),
    ("/pkg.Open/../pkg.Secret/Get", "vault"),
    ("/pkg%2ESecret/Get", "vault"),
    ("/pkg.%53ecret/Get", "vault"),
    ("/pkg.Secret%2FGet", "vault"),
    ("/pkg.Secret/Get?x", "vault"),
    ("/pkg.Open/Get", "secret.example"),
    ("/pkg.Open/Get", "SECRET.example"),
    ("/pkg.Open/Get", "secret.example."),
    ("/pkg.Open/Get", "secret.example:9080"),
    ("/pkg.Open/Get", "vault,secret.example"),
];

#[test]
fn no_call_hides_its_method_or_its_host() -> Result<()> {
    let lab = besieged(&[VAULT, CALLS])?;
    captured_in(&lab, "vault")?;
    let seen = Application::default();
    seen.start(&lab.pod("vault-far")?.attachment.namespace, "[::]:9080")?;
    let service = SocketAddr::new(lab.service("vault", "vault-far")?[0], PORT);
    let pod = SocketAddr::new(lab.address("vault-far")?, PORT);
    for (from, to) in [("attacker", service), ("attacker", pod), ("outsider", pod)] {
        let namespace = &lab.pod(from)?.attachment.namespace;
        let call = |path: &str, host: &str, message: &str| -> Result<TcpStream> {
            let mut stream = namespace.run(|| TcpStream::connect_timeout(&to, PATIENCE))??;
            let call = [opening(path, host), frame(DATA, 0, 1, message.as_bytes())].concat();
            stream.write_all(&call)?;
            Ok(stream)
        };
        wait::until("secrets to be refused", || {
            Ok((status(&lab, from, to, "pkg.Secret")? == 403).then_some(()))
        })?;
        let mut held = Vec::new();
        for (number, (path, host)) in SECRETS.iter().enumerate() {
            held.push(call(path, host, &format!("<secret {number} {to}>"))?);
        }
        let open = format!("<open {from} {to}>");
        held.push(call("/pkg.Open/Get", "vault", &open)?);
        wait::until("the call that is permitted to arrive", || Ok(seen.saw(&open).then_some(())))?;
        std::thread::sleep(Duration::from_millis(200));
        for (number, secret) in SECRETS.iter().enumerate() {
            ensure!(!seen.saw(&format!("<secret {number} {to}>")), "{from} {to}: {secret:?}");
        }
    }
    Ok(())
}
