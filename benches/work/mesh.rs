//! Meshes to decide over: namespace `shop` with a waypoint, a service `web` and its client.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use http::Request;
use isthmus::base::ObjectKey;
use isthmus::model::{HttpRule, Service, Workload};
use isthmus::route::{self, Client, Head, Selection};
use isthmus::source::objects::Kind;
use isthmus::source::{Objects, TranslateSettings, Translator};
use isthmus::world::{MeshNames, World, WorldStore};
use serde_json::{Value, json};

/// Of the service `web`.
pub const PORT: u16 = 80;
/// Of its pods.
pub const TARGET_PORT: u16 = 8080;
/// The virtual address of the service.
pub const ADDRESS: [u8; 4] = [10, 96, 0, 1];
/// The client's address.
pub const CLIENT: [u8; 4] = [10, 0, 9, 1];

/// One state of such a mesh.
pub struct Mesh {
    pub world: Arc<World>,
    pub service: Arc<Service>,
    pub client: Arc<Workload>,
}

/// Where `web` has so many pods, with `more` objects.
pub fn with(pods: usize, more: impl IntoIterator<Item = Value>) -> Result<Mesh> {
    let settings = TranslateSettings::default();
    let mut translator = Translator::new(settings.clone());
    let mut objects = Objects::default();
    for value in shop(pods).into_iter().chain(more) {
        insert(&mut objects, &value)?;
    }
    let translation = translator.translate(&objects, None);
    ensure!(translation.complaints.is_empty(), "{:?}", translation.complaints);
    let TranslateSettings { trust_domains, root_namespace, .. } = settings;
    let world =
        WorldStore::new(MeshNames { trust_domains, root_namespace }).publish(translation.mesh);
    let key = ObjectKey::new("shop", "web");
    let service = world.service(&key).context("Service web")?.clone();
    let client = world.workload_at(CLIENT.into()).context("Pod client")?.clone();
    Ok(Mesh { world, service, client })
}

impl Mesh {
    /// What routes say of a request of the client.
    pub fn select(&self, request: &Request<()>) -> Selection {
        let (uri, headers) = (request.uri(), request.headers());
        let (path, query, client) = (uri.path(), uri.query(), Client::default());
        let head = Head { method: request.method(), path, query, headers, client };
        route::select(&self.world, &self.service, PORT, "shop", &head)
    }

    /// The rule that holds for a request.
    pub fn rule(&self, request: &Request<()>) -> Result<HttpRule> {
        match self.select(request) {
            Selection::Rule { route, rule } => route.rules.get(rule).cloned().context("a rule"),
            other => Err(anyhow!("no rule: {other:?}")),
        }
    }
}

/// A route of `web` with these rules.
pub fn route(name: &str, rules: &Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}], "rules": rules},
    })
}

fn shop(pods: usize) -> Vec<Value> {
    let mut objects = vec![
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "shop", "labels": {
                "istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "waypoint",
            }},
        }),
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "waypoint", "namespace": "shop"},
            "spec": {
                "gatewayClassName": "istio-waypoint",
                "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
            },
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "clusterIP": address(ADDRESS), "selector": {"app": "web"},
                "ports": [{"name": "http", "port": PORT, "targetPort": TARGET_PORT}],
            },
        }),
        pod("client", CLIENT),
    ];
    objects.extend((0..pods).map(|number| pod("web", pod_address(number))));
    objects
}

/// Of the pods of `web`.
pub fn pod_address(number: usize) -> [u8; 4] {
    let [.., high, low] = number.to_be_bytes();
    [10, 1, high, low]
}

fn pod(app: &str, at: [u8; 4]) -> Value {
    let at = address(at);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("{app}-{}", at.replace('.', "-")), "namespace": "shop", "labels": {"app": app},
        },
        "spec": {"serviceAccountName": app, "nodeName": "node", "containers": [{"name": app}]},
        "status": {
            "phase": "Running", "podIP": at, "podIPs": [{"ip": at}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

fn address(bytes: [u8; 4]) -> String {
    std::net::Ipv4Addr::from(bytes).to_string()
}

fn insert(objects: &mut Objects, value: &Value) -> Result<()> {
    let kind = value["kind"].as_str().and_then(Kind::named).context("a kind that is read")?;
    let object = kind.read(value).map_err(|error| anyhow!("{}: {}", error.field, error.reason))?;
    objects.insert(object);
    Ok(())
}
