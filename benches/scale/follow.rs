//! Follows an API server as an agent does: what it costs to know a large cluster, and how long a change takes from the
//! request that makes it to a world that decides by it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use isthmus::base::ObjectKey;
use isthmus::source::kubernetes::client;
use isthmus::source::{KubernetesSource, Source, TranslateSettings};
use isthmus::world::{MeshNames, World, WorldStore};
use kube::Client;
use kube::api::{DynamicObject, Patch, PatchParams};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::generate::api;
use crate::objects::Size;

/// How often each change is made.
const ROUNDS: u32 = 200;
/// Between two changes: longer than changes are gathered.
const PAUSE: Duration = Duration::from_millis(50);
/// How long reading everything may take, on a machine that has other work too.
const LONGEST_START: Duration = Duration::from_secs(600);
/// What takes longer failed.
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn run(size: Size, kubeconfig: &Path) -> Result<()> {
    let settings = TranslateSettings::default();
    let (trust_domains, root_namespace) =
        (settings.trust_domains.clone(), settings.root_namespace.clone());
    let names = MeshNames { trust_domains, root_namespace };
    let (store, cancel) = (WorldStore::new(names), CancellationToken::new());
    let (writer, begun, before) = (store.clone(), Instant::now(), usage()?);
    let source = KubernetesSource::new(Some(kubeconfig.to_owned()), settings);
    let publish = move |translation: isthmus::source::Translation| {
        writer.publish(translation.mesh);
    };
    let source = tokio::spawn(source.run(publish, cancel.clone()));
    timeout(LONGEST_START, store.subscribe().changed()).await.context("no first state")??;
    let first = usage()?;
    println!(
        "first state after {:.2?}, {:.2?} of processor time",
        begun.elapsed(),
        first.0 - before.0
    );
    println!("resident: {} MiB, {} at most", first.1 >> 20, peak()? >> 20);
    println!("connections to the API server: {}", connections()?);
    sleep(Duration::from_secs(10)).await;
    let quiet = usage()?;
    println!(
        "ten quiet seconds: {:.1?} of processor time, {} MiB",
        quiet.0 - first.0,
        quiet.1 >> 20
    );

    let client = client(Some(kubeconfig)).await?;
    pods(&client, &store, size).await?;
    policies(&client, &store).await?;
    println!("resident: {} MiB", usage()?.1 >> 20);
    cancel.cancel();
    source.await??;
    Ok(())
}

async fn pods(client: &Client, store: &WorldStore, size: Size) -> Result<()> {
    let mut times = Vec::new();
    let begun = usage()?;
    for round in 0..ROUNDS {
        // The other one of what it is, from whatever measurement before.
        let number = round * 97 % size.pods;
        let key = key(&size.pod(number, true));
        let ready = !store.load().workload(&uid(&key)).is_some_and(|it| it.ready);
        let pod = size.pod(number, ready);
        let status = json!({"status": {"conditions": pod["status"]["conditions"]}});
        let patch = Patch::Strategic(status);
        let name = key.name.to_string();
        let uid = uid(&key);
        let now = Instant::now();
        api(client, &pod)?.patch_status(&name, &PatchParams::default(), &patch).await?;
        let answered = now.elapsed();
        until(store, |world| world.workload(&uid).is_some_and(|it| it.ready == ready)).await?;
        times.push((now.elapsed(), answered));
        sleep(PAUSE).await;
    }
    show("a pod's readiness", times, Some(usage()?.0 - begun.0));
    Ok(())
}

async fn policies(client: &Client, store: &WorldStore) -> Result<()> {
    let mut times = Vec::new();
    let begun = usage()?;
    for round in 0..ROUNDS {
        let path = format!("/{round}");
        let policy = json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "scale", "namespace": "scale-0"},
            "spec": {"action": "DENY", "rules": [{"to": [{"operation": {"paths": [path]}}]}]},
        });
        let object: DynamicObject = serde_json::from_value(policy.clone())?;
        let params = PatchParams::apply("scale").force();
        let now = Instant::now();
        api(client, &policy)?.patch("scale", &params, &Patch::Apply(&object)).await?;
        let answered = now.elapsed();
        let quoted = format!("{path:?}");
        until(store, |world| {
            world.mesh.policies.iter().any(|policy| format!("{:?}", policy.rules).contains(&quoted))
        })
        .await?;
        times.push((now.elapsed(), answered));
        sleep(PAUSE).await;
    }
    show("a policy's rules", times, Some(usage()?.0 - begun.0));
    Ok(())
}

fn uid(pod: &ObjectKey) -> String {
    format!("Kubernetes//Pod/{}/{}", pod.namespace, pod.name)
}

fn key(object: &Value) -> ObjectKey {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    ObjectKey::new(text("namespace"), text("name"))
}

async fn until(store: &WorldStore, holds: impl Fn(&World) -> bool) -> Result<()> {
    let mut changes = store.subscribe();
    let wait = async {
        while !holds(&store.load()) {
            changes.changed().await?;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, wait).await.context("the change was not seen")?
}

/// Total and answer of the request, each as median and 99th percentile; and the processor time of one change.
pub fn show(what: &str, times: Vec<(Duration, Duration)>, used: Option<Duration>) {
    let rounds = u32::try_from(times.len()).unwrap_or(u32::MAX).max(1);
    let (total, answered): (Vec<_>, Vec<_>) = times.into_iter().unzip();
    let at = |mut times: Vec<Duration>| {
        times.sort_unstable();
        let place =
            |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
        format!("p50 {:.1?}, p99 {:.1?}", place(50), place(99))
    };
    let each = used.map(|used| format!("; {:.1?} of processor time", used / rounds));
    println!(
        "{what}: to effect {}; the request alone {}{}",
        at(total),
        at(answered),
        each.unwrap_or_default()
    );
}

/// Processor time of this process, and bytes resident.
fn usage() -> Result<(Duration, u64)> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split(' ').nth(1).context("a second number")?.parse()?;
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Ok((Duration::try_from(time)?, pages * 4096))
}

fn peak() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

fn connections() -> Result<usize> {
    let sockets = fs::read_dir("/proc/self/fd")?
        .filter_map(Result::ok)
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    Ok(sockets.filter(|target| target.to_string_lossy().starts_with("socket:")).count())
}
