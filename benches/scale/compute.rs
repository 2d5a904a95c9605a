//! What the state of a large cluster costs the agent itself, without a server: processor time of a translation and of a
//! world, whole and after one change.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, anyhow};
use isthmus::base::ObjectKey;
use isthmus::source::objects::Kind;
use isthmus::source::{Objects, TranslateSettings, Translator};
use isthmus::world::{MeshNames, WorldStore};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::objects::Size;

/// How often each change is made.
const ROUNDS: u32 = 20;

pub fn run(size: Size) -> Result<()> {
    let settings = TranslateSettings::default();
    let store = WorldStore::new(MeshNames {
        trust_domains: settings.trust_domains.clone(),
        root_namespace: settings.root_namespace.clone(),
    });
    let mut objects = Objects::default();
    let before = resident()?;
    let values = size.namespaces().chain(size.services()).chain(size.pods());
    let read =
        processor_time(|| values.map(|it| insert(&mut objects, &it)).collect::<Result<Vec<_>>>())?;
    println!("generate and read: {:.1} ms, {} MiB", read.1, (resident()? - before) >> 20);

    let mut translator = Translator::new(settings);
    let mut last = None;
    let mut round =
        |objects: &Objects, changed: Option<&BTreeSet<(Kind, ObjectKey)>>| -> Result<[f64; 3]> {
            let (translation, translated) =
                processor_time(|| Ok(translator.translate(objects, changed)))?;
            let (_, compared) = processor_time(|| {
                Ok(last.as_ref().is_some_and(|last| translation.says_the_same_as(last)))
            })?;
            last = Some(translation.clone());
            let (_, indexed) = processor_time(|| Ok(store.publish(translation.mesh)))?;
            Ok([translated, compared, indexed])
        };
    show("everything, the first time", &[round(&objects, None)?]);
    println!("resident: {} MiB", (resident()? - before) >> 20);
    show("everything, again", &[round(&objects, None)?]);
    for (what, values) in changes(size) {
        let mut times = Vec::new();
        for value in values {
            let changed = BTreeSet::from([insert(&mut objects, &value)?]);
            times.push(round(&objects, Some(&changed))?);
        }
        show(what, &times);
    }
    println!("resident: {} MiB", (resident()? - before) >> 20);
    Ok(())
}

fn changes(size: Size) -> Vec<(&'static str, Vec<Value>)> {
    let pods = (0..ROUNDS).map(|round| size.pod(round * 97 % size.pods, round % 2 == 1)).collect();
    let policy = |round: u32, spec: Value| {
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "policy", "namespace": "scale-0", "generation": round}, "spec": spec,
        })
    };
    let rules = (0..ROUNDS).map(|round| {
        let path = format!("/{round}");
        policy(
            round,
            json!({"action": "DENY", "rules": [{"to": [{"operation": {"paths": [path]}}]}]}),
        )
    });
    let selectors = (0..ROUNDS).map(|round| {
        let app = format!("svc-{}", round * size.namespaces);
        policy(
            round,
            json!({"action": "DENY", "selector": {"matchLabels": {"app": app}}, "rules": [{}]}),
        )
    });
    let slices = (0..ROUNDS).map(|round| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "slice", "namespace": "scale-0", "labels": {"kubernetes.io/service-name": "svc-0"}},
            "endpoints": [{"addresses": [format!("192.0.2.{round}")]}], "ports": [{"name": "http", "port": 80}],
        })
    });
    let services = (0..ROUNDS).filter_map(|round| {
        let mut service = size.services().nth((round * 7 % size.services) as usize)?;
        service["spec"]["ports"][1]["port"] = json!(1000 + round);
        Some(service)
    });
    vec![
        ("a pod", pods),
        ("an EndpointSlice", slices.collect()),
        ("the ports of a Service", services.collect()),
        ("the rules of a policy", rules.collect()),
        ("the selector of a policy", selectors.collect()),
    ]
}

fn insert(objects: &mut Objects, value: &Value) -> Result<(Kind, ObjectKey)> {
    let name = value["kind"].as_str().context("kind")?;
    let kind = Kind::named(name).context("a kind that is read")?;
    let object = kind.read(value).map_err(|error| anyhow!("{}: {}", error.field, error.reason))?;
    let key = object.key();
    objects.insert(object);
    Ok((kind, key))
}

fn show(what: &str, times: &[[f64; 3]]) {
    let median = |at: usize| {
        let mut all: Vec<f64> = times.iter().map(|it| it[at]).collect();
        all.sort_by(f64::total_cmp);
        (all[all.len() / 2], all[all.len() - 1])
    };
    let [translate, compare, index] = [0, 1, 2].map(median);
    println!(
        "{what:28} translate {:7.2} (at most {:7.2})  compare {:6.2} ({:6.2})  world {:7.2} ({:7.2}) ms",
        translate.0, translate.1, compare.0, compare.1, index.0, index.1
    );
}

/// Milliseconds of this thread.
fn processor_time<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
    };
    let begun = now();
    let done = work()?;
    Ok((done, now() - begun))
}

/// Bytes of memory in use by this process.
fn resident() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split(' ').nth(1).context("a second number")?.parse()?;
    Ok(pages * 4096)
}
