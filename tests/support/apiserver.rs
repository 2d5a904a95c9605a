//! A stand-in for the API server, for what a real one cannot be made to do: lie, refuse and go silent. It lists and watches
//! whatever objects it is given, by kind, and knows nothing of them. What a controller writes it keeps, and the token
//! `agent-<node>` is that of the node's agent.

#![allow(dead_code, reason = "the suites use different parts")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

use crate::support::lab::netns::Namespace;

/// Where it listens, in the namespace that it is started in.
const ADDRESS: &str = "127.0.0.1:6443";
/// Kinds by the last part of their paths, with group and version.
const KINDS: [(&str, &str, &str); 12] = [
    ("namespaces", "Namespace", "v1"),
    ("configmaps", "ConfigMap", "v1"),
    ("secrets", "Secret", "v1"),
    ("leases", "Lease", "coordination.k8s.io/v1"),
    ("nodes", "Node", "v1"),
    ("pods", "Pod", "v1"),
    ("services", "Service", "v1"),
    ("endpointslices", "EndpointSlice", "discovery.k8s.io/v1"),
    ("customresourcedefinitions", "CustomResourceDefinition", "apiextensions.k8s.io/v1"),
    ("daemonsets", "DaemonSet", "apps/v1"),
    ("authorizationpolicies", "AuthorizationPolicy", SECURITY),
    ("peerauthentications", "PeerAuthentication", SECURITY),
];
/// The last part of a path that statuses are written to; such writes have troubles, too.
pub const STATUS: &str = "status";
const SECURITY: &str = "security.istio.io/v1";
/// Between two looks of a watch.
const LOOK: Duration = Duration::from_millis(20);
/// How long nothing is answered: longer than anybody waits.
const SILENCE: Duration = Duration::from_secs(120);

/// What it does with questions that it should answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Answers so.
    Status(u16),
    /// Closes the connection.
    Close,
    /// Says nothing.
    Silent,
}

/// One server; it serves until the test's process ends.
#[derive(Clone, Default)]
pub struct ApiServer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<(String, String, String), Value>,
    /// Kind, type of the event, object.
    events: Vec<(String, &'static str, Value)>,
    /// For new questions about paths that contain such a part.
    troubles: Vec<(&'static str, Trouble)>,
}

/// A file that sends kube clients there.
pub fn kubeconfig(directory: &Path) -> Result<PathBuf> {
    let path = directory.join("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        "clusters": [{"name": "lab", "cluster": {"server": format!("http://{ADDRESS}")}}],
        "users": [{"name": "lab", "user": {}}],
    });
    std::fs::write(&path, text.to_string())?;
    Ok(path)
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

fn key(object: &Value) -> (String, String, String) {
    let kind = object["kind"].as_str().unwrap_or_default();
    (kind.to_owned(), text(object, "namespace").to_owned(), text(object, "name").to_owned())
}

impl ApiServer {
    pub fn new(objects: impl IntoIterator<Item = Value>) -> Self {
        let server = Self::default();
        objects.into_iter().for_each(|object| server.put(object));
        server
    }

    /// Serves in this namespace too.
    pub fn serve_in(&self, namespace: &Namespace) -> Result<()> {
        let listener = namespace.run(|| TcpListener::bind(ADDRESS))??;
        let server = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                // The client may have gone.
                std::thread::spawn(move || _ = server.converse(stream));
            }
        });
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// Adds or replaces an object.
    pub fn put(&self, mut object: Value) {
        let mut state = self.state();
        let version = state.events.len() + 1;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let key = key(&object);
        let event = if state.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        state.events.push((key.0.clone(), event, object.clone()));
        state.objects.insert(key, object);
    }

    pub fn delete(&self, kind: &str, namespace: &str, name: &str) {
        let mut state = self.state();
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        if let Some(object) = state.objects.remove(&key) {
            state.events.push((key.0, "DELETED", object));
        }
    }

    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        self.state().objects.get(&key).cloned()
    }

    /// From now on, for questions about paths that contain `part`; watches that are open stay so.
    pub fn trouble(&self, part: &'static str, trouble: Trouble) {
        self.state().troubles.push((part, trouble));
    }

    /// No trouble any more.
    pub fn recover(&self) {
        self.state().troubles.clear();
    }

    fn converse(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut from = BufReader::new(stream.try_clone()?);
        loop {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let mut length = 0;
            loop {
                let mut header = String::new();
                from.read_line(&mut header)?;
                if header.trim().is_empty() {
                    break;
                }
                let header = header.to_ascii_lowercase();
                if let Some(value) = header.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
            }
            let mut body = Vec::new();
            from.by_ref().take(length).read_to_end(&mut body)?;
            let mut words = line.split(' ');
            let method = words.next().unwrap_or_default();
            let target = words.next().unwrap_or_default();
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let more = match serde_json::from_slice(&body) {
                Ok(body) if method != "GET" => self.write(path, body, &stream)?,
                _ => self.answer(path, query, &stream)?,
            };
            if !more {
                return Ok(());
            }
        }
    }

    /// Creates and replaces; what is applied replaces too.
    fn write(&self, path: &str, mut object: Value, to: &TcpStream) -> std::io::Result<bool> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let troubles = self.state().troubles.clone();
        let of_status =
            parts.last().and_then(|last| troubles.iter().rfind(|(part, _)| last == part));
        if let Some((STATUS, Trouble::Status(code))) = of_status {
            return say(to, *code, &status(*code));
        }
        if parts.last() == Some(&"tokenreviews") {
            object["status"] = review(object["spec"]["token"].as_str().unwrap_or_default());
            return say(to, 201, &object);
        }
        if parts.last() == Some(&"selfsubjectaccessreviews") {
            let wanted = &object["spec"]["resourceAttributes"]["resource"];
            let is_trouble = self.state().troubles.iter().any(|(part, _)| wanted == *part);
            object["status"] = json!({"allowed": !is_trouble});
            return say(to, 201, &object);
        }
        let known = |part: &&str| KINDS.iter().find(|(plural, ..)| plural == part);
        let Some((_, kind, version)) = parts.iter().rev().find_map(known) else {
            return say(to, 404, &status(404));
        };
        (object["kind"], object["apiVersion"]) = (json!(kind), json!(version));
        if let Some(at) = parts.iter().position(|part| *part == "namespaces") {
            object["metadata"]["namespace"] = json!(parts.get(at + 1));
        }
        let is_new = parts.last().is_some_and(|part| known(part).is_some());
        let held = self.get(kind, text(&object, "namespace"), text(&object, "name"));
        let version = |object: &Value| text(object, "resourceVersion").to_owned();
        let conflicts = held.as_ref().is_some_and(|held| {
            is_new || !version(&object).is_empty() && version(held) != version(&object)
        });
        if conflicts {
            return say(to, 409, &status(409));
        }
        let (namespace, name) =
            (text(&object, "namespace").to_owned(), text(&object, "name").to_owned());
        self.put(object);
        say(to, 200, &self.get(kind, &namespace, &name).unwrap_or_default())
    }

    /// Whether more may be asked on this connection.
    fn answer(&self, path: &str, query: &str, to: &TcpStream) -> std::io::Result<bool> {
        let trouble = self.state().troubles.iter().rfind(|(part, _)| path.contains(part)).copied();
        match trouble.map(|(_, trouble)| trouble) {
            Some(Trouble::Status(code)) => return say(to, code, &status(code)),
            Some(Trouble::Close) => return Ok(false),
            Some(Trouble::Silent) => {
                std::thread::sleep(SILENCE);
                return Ok(false);
            }
            None => {}
        }
        if path == "/version" {
            return say(to, 200, &json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0"}));
        }
        if path == "/apis" {
            let version = json!({"groupVersion": SECURITY, "version": "v1"});
            let group = json!({"name": "security.istio.io", "versions": [version], "preferredVersion": version});
            let groups = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]});
            return say(to, 200, &groups);
        }
        if path == format!("/apis/{SECURITY}") {
            let security = KINDS.iter().filter(|(_, _, version)| *version == SECURITY);
            let resources: Vec<Value> = security
                .map(|(plural, kind, _)| {
                    json!({"name": plural, "singularName": "", "namespaced": true, "kind": kind, "verbs": ["list", "watch"]})
                })
                .collect();
            let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": SECURITY, "resources": resources});
            return say(to, 200, &list);
        }
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let kind_at = |at: usize| KINDS.iter().find(|(plural, ..)| parts.get(at) == Some(plural));
        let last = parts.len() - 1;
        match (kind_at(last), kind_at(last.wrapping_sub(1))) {
            (Some(kind), _) => self.list(kind, query, to),
            (None, Some((_, kind, _))) => {
                let state = self.state();
                let found = state.objects.iter().find(|((of, namespace, name), _)| {
                    let is_in = namespace.is_empty() || parts.contains(&namespace.as_str());
                    of == kind && name == parts[last] && is_in
                });
                let found = found.map(|(_, object)| object.clone());
                drop(state);
                match found {
                    Some(object) => say(to, 200, &object),
                    None => say(to, 404, &status(404)),
                }
            }
            _ => say(to, 404, &status(404)),
        }
    }

    fn list(
        &self,
        (_, kind, version): &(&str, &str, &str),
        query: &str,
        to: &TcpStream,
    ) -> std::io::Result<bool> {
        let query: BTreeMap<String, String> =
            form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        if query.contains_key("sendInitialEvents") {
            return say(to, 400, &status(400));
        }
        let only = query.get("fieldSelector").and_then(|it| it.strip_prefix("metadata.name="));
        let label = query.get("labelSelector").and_then(|it| it.split_once('='));
        let is_asked = |object: &Value| {
            let has = |(key, value): (&str, &str)| object["metadata"]["labels"][key] == value;
            only.is_none_or(|name| text(object, "name") == name) && label.is_none_or(has)
        };
        if query.contains_key("watch") {
            let since = query.get("resourceVersion").and_then(|it| it.parse().ok());
            return self.watch(kind, since.unwrap_or(0), is_asked, to);
        }
        let state = self.state();
        let items =
            state.objects.iter().filter(|((of, ..), object)| of == kind && is_asked(object));
        let items: Vec<Value> = items.map(|(_, object)| object.clone()).collect();
        let at = state.events.len().to_string();
        drop(state);
        let list = json!({
            "kind": format!("{kind}List"), "apiVersion": version, "items": items,
            "metadata": {"resourceVersion": at},
        });
        say(to, 200, &list)
    }

    /// Tells of changes until the other side goes away.
    fn watch(
        &self,
        kind: &str,
        mut since: usize,
        is_asked: impl Fn(&Value) -> bool,
        mut to: &TcpStream,
    ) -> std::io::Result<bool> {
        to.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")?;
        loop {
            let events: Vec<Value> = {
                let state = self.state();
                let new = state.events.iter().skip(since);
                let new = new.filter(|(of, _, object)| of == kind && is_asked(object));
                let new = new.map(|(_, event, object)| json!({"type": event, "object": object}));
                let new = new.collect();
                since = state.events.len();
                new
            };
            for event in events {
                let line = format!("{event}\n");
                write!(to, "{:x}\r\n{line}\r\n", line.len())?;
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Of a token.
fn review(token: &str) -> Value {
    let Some(node) = token.strip_prefix("agent-") else {
        return json!({"authenticated": false, "error": "no such token"});
    };
    json!({
        "authenticated": true, "audiences": ["istio-ca"],
        "user": {"username": "system:serviceaccount:isthmus-system:isthmus", "extra": {
            "authentication.kubernetes.io/pod-name": [format!("isthmus-{node}")],
            "authentication.kubernetes.io/node-name": [node],
        }},
    })
}

fn status(code: u16) -> Value {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        _ => "InternalError",
    };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": reason})
}

fn say(mut to: &TcpStream, code: u16, body: &Value) -> std::io::Result<bool> {
    let body = body.to_string();
    write!(
        to,
        "HTTP/1.1 {code} Said\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    Ok(true)
}
