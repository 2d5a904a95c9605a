//! How long a change takes to be in force, as clients see it: an object is applied on the API server, and a client in a
//! pod asks again and again until the answers change. `scripts/scale` makes the cluster that this needs.

mod client;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use isthmus::source::kubernetes::client as api_client;
use kube::Client;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::follow::show;
use crate::generate::api;
use client::{Ask, Seen};

/// Where pods and Services of this measurement are.
pub const NAMESPACE: &str = "effect";
/// How often each change is made.
const ROUNDS: u32 = 200;
/// Between two changes, at least: longer than changes are gathered. The rest is chance, so that they do not fall into step
/// with anything.
const PAUSE: Duration = Duration::from_millis(100);
/// What takes longer failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A change that is made in rounds.
struct Change {
    what: &'static str,
    ask: Ask,
    /// The object of a round.
    object: fn(u32, &Facts) -> Value,
    /// What a client sees when the object of a round is in force.
    effect: fn(u32) -> Seen,
}

/// Addresses on this cluster.
struct Facts {
    client: String,
    server: String,
}

/// Each change, `ROUNDS` times.
pub async fn run(kubeconfig: &Path) -> Result<()> {
    let api_client = api_client(Some(kubeconfig)).await?;
    let facts = Facts {
        client: pod_address(&api_client, "client").await?,
        server: pod_address(&api_client, "server").await?,
    };
    for change in changes() {
        measure(&api_client, &facts, change).await?;
    }
    Ok(())
}

fn changes() -> Vec<Change> {
    vec![
        Change {
            what: "a policy at layer 4, on new connections",
            ask: Ask { service: "layer4", keep: false },
            object: |round, _| {
                // The server's own port in every other round.
                let port = if allowed(round) { "1" } else { "9080" };
                policy(json!({
                    "selector": {"matchLabels": {"app": "server"}}, "action": "DENY",
                    "rules": [{"to": [{"operation": {"ports": [port]}}]}],
                }))
            },
            effect: |round| if allowed(round) { Seen::Status(200) } else { Seen::Refused },
        },
        Change {
            what: "a policy at layer 7, on an open connection",
            ask: Ask { service: "layer7", keep: true },
            object: |round, _| {
                let path = if allowed(round) { "/elsewhere" } else { "/details/*" };
                policy(json!({
                    "targetRefs": [{"kind": "Service", "group": "", "name": "layer7"}], "action": "DENY",
                    "rules": [{"to": [{"operation": {"paths": [path]}}]}],
                }))
            },
            effect: |round| Seen::Status(if allowed(round) { 200 } else { 403 }),
        },
        Change {
            what: "a route, on an open connection",
            ask: Ask { service: "layer7", keep: true },
            object: |round, _| route(round),
            effect: Seen::Round,
        },
        Change {
            what: "an endpoint's readiness, on new connections",
            ask: Ask { service: "manual", keep: false },
            object: |round, facts| {
                json!({
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                    "metadata": {
                        "name": "manual", "namespace": NAMESPACE,
                        "labels": {"kubernetes.io/service-name": "manual"},
                    },
                    "endpoints": [{"addresses": [facts.server], "conditions": {"ready": allowed(round)}}],
                    "ports": [{"name": "http", "port": 9080}],
                })
            },
            effect: |round| if allowed(round) { Seen::Status(200) } else { Seen::Refused },
        },
    ]
}

fn allowed(round: u32) -> bool {
    !round.is_multiple_of(2)
}

fn policy(spec: Value) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "round", "namespace": NAMESPACE}, "spec": spec,
    })
}

fn route(round: u32) -> Value {
    let header = json!({"name": "x-round", "value": round.to_string()});
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "round", "namespace": NAMESPACE},
        "spec": {
            "parentRefs": [{"kind": "Service", "group": "", "name": "layer7"}],
            "rules": [{
                "filters": [{
                    "type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [header]},
                }],
                "backendRefs": [{"name": "layer7", "port": 80}],
            }],
        },
    })
}

async fn measure(api_client: &Client, facts: &Facts, change: Change) -> Result<()> {
    let address = service_address(api_client, change.ask.service).await?;
    let (mut seen, asked) = client::start(&facts.client, address, change.ask)?;
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let object = (change.object)(round, facts);
        let typed: DynamicObject = serde_json::from_value(object.clone())?;
        let params = PatchParams::apply("scale").force();
        let now = Instant::now();
        api(api_client, &object)?.patch(&name(&typed)?, &params, &Patch::Apply(&typed)).await?;
        let answered = now.elapsed();
        let effect = (change.effect)(round);
        let at = until(&mut seen, effect).await.with_context(|| {
            format!("{}, round {round}: {effect:?} was never seen", change.what)
        })?;
        // What was to be seen before already says nothing of the change.
        if round > 0 {
            times.push((at.saturating_duration_since(now), answered));
        }
        sleep(PAUSE + Duration::from_millis(fastrand::u64(..100))).await;
    }
    drop(seen);
    let asked = asked.join().map_err(|_| anyhow::anyhow!("the client ended early"))??;
    let last = (change.object)(1, facts);
    let typed: DynamicObject = serde_json::from_value(last.clone())?;
    api(api_client, &last)?.delete(&name(&typed)?, &Default::default()).await?;
    show(change.what, times, None);
    println!("    {asked} requests meanwhile");
    Ok(())
}

fn name(object: &DynamicObject) -> Result<String> {
    object.metadata.name.clone().context("a name")
}

/// When the client first saw it.
async fn until(seen: &mut watch::Receiver<(Seen, Instant)>, effect: Seen) -> Result<Instant> {
    let (_, at) = *timeout(PATIENCE, seen.wait_for(|(now, _)| *now == effect)).await??;
    Ok(at)
}

async fn pod_address(client: &Client, app: &str) -> Result<String> {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": NAMESPACE}});
    let pods = api(client, &pod)?
        .list(&kube::api::ListParams::default().labels(&format!("app={app}")))
        .await?;
    let [pod] = &pods.items[..] else { bail!("there are {} pods of {app}", pods.items.len()) };
    let address = pod.data["status"]["podIP"].as_str().context("the pod has no address yet")?;
    Ok(address.to_owned())
}

async fn service_address(client: &Client, name: &str) -> Result<std::net::SocketAddr> {
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": NAMESPACE}});
    let service = api(client, &service)?.get(name).await?;
    let address = service.data["spec"]["clusterIP"].as_str().context("a cluster address")?;
    ensure!(address != "None", "{name} is headless");
    Ok((address.parse::<std::net::IpAddr>()?, 80).into())
}
