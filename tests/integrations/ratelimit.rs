//! Envoy's reference rate limit service, with Redis: limits that all pods of a service keep together.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::programs::{pod_of, program, start_in_pod};
use crate::support::lab::Lab;
use crate::support::lab::manifests::Key;
use crate::support::lab::process::Process;
use crate::{WAYPOINT, application, captured_in, enrol, settle};

const POD: &str = "ratelimit";
const PORT: u16 = 8081;
const REDIS: u16 = 6379;
const DETAILS: &str = "http://details.bookinfo:9080/details/0";

/// Three a day for each user of the free plan: no test stands at the end of two days but one at midnight.
const CONFIG: &str = "
domain: shop
descriptors:
- key: plan
  value: free
  descriptors:
  - key: x-user
    rate_limit: {unit: day, requests_per_unit: 3}
";

fn policy(failure: &str) -> String {
    format!(
        "
apiVersion: isthmus.io/v1alpha1
kind: TrafficPolicy
metadata: {{name: details, namespace: bookinfo}}
spec:
  targetRefs: [{{group: '', kind: Service, name: details}}]
  rateLimit:
    headers: Both
    limits:
    - name: per-user
      global:
        backendRef: {{name: ratelimit, port: {PORT}}}
        domain: shop
        entries: [{{key: plan, value: free}}]
        keys: [{{type: Header, header: x-user}}]
        timeout: 5s
        {failure}
"
    )
}

/// Redis and the service, in one pod.
fn start(lab: &Lab) -> Result<(Process, Process)> {
    let redis = ["--port", "6379", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    let redis = start_in_pod(lab, POD, Path::new("/usr/bin/redis-server"), &redis, REDIS)?;
    Ok((redis, start_service(lab)?))
}

fn start_service(lab: &Lab) -> Result<Process> {
    let root = lab.logs().join("ratelimit");
    fs::create_dir_all(root.join("shop/config"))?;
    fs::write(root.join("shop/config/shop.yaml"), CONFIG)?;
    let settings = [
        format!("RUNTIME_ROOT={}", root.to_str().context("a path of UTF-8")?),
        "RUNTIME_SUBDIRECTORY=shop".to_owned(),
        "RUNTIME_WATCH_ROOT=false".to_owned(),
        "USE_STATSD=false".to_owned(),
        "BACKEND_TYPE=redis".to_owned(),
        "REDIS_SOCKET_TYPE=tcp".to_owned(),
        format!("REDIS_URL=127.0.0.1:{REDIS}"),
        format!("GRPC_PORT={PORT}"),
        "LOG_LEVEL=debug".to_owned(),
    ];
    let program = program("ratelimit")?;
    let mut arguments: Vec<&str> = settings.iter().map(String::as_str).collect();
    arguments.push(program.to_str().context("a path of UTF-8")?);
    start_in_pod(lab, POD, Path::new("/usr/bin/env"), &arguments, PORT)
}

fn by(user: &str) -> [String; 3] {
    ["-H".to_owned(), format!("x-user: {user}"), DETAILS.to_owned()]
}

#[test]
fn the_reference_service_counts_for_all_and_fails_by_choice() -> Result<()> {
    let mut lab = application(&[&pod_of("bookinfo", POD, PORT), WAYPOINT])?;
    lab.start_agents("")?;
    enrol(&mut lab)?;
    captured_in(&lab, "bookinfo")?;
    let namespace = Key::new("Namespace", "", "bookinfo");
    lab.manifests.label(&namespace, &["istio.io/use-waypoint=waypoint"])?;
    let (_redis, service) = start(&lab)?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    lab.manifests.apply(&policy("failOpen: false"))?;

    let get = |user: &str| lab.curl("curl", &by(user).each_ref().map(String::as_str));
    let until =
        |user: &str, status| settle(&lab, "curl", &by(user).each_ref().map(String::as_str), status);
    // Until the policy is in force.
    until("first", 429)?;
    for left in ["2", "1", "0"] {
        let answer = get("alice")?;
        ensure!(answer.status == 200, "{answer:?}");
        let state = answer.header("ratelimit").unwrap_or_default();
        ensure!(state.starts_with(&format!("\"per-user\";r={left};t=")), "{answer:?}");
        ensure!(
            answer.header("ratelimit-policy") == Some("\"per-user\";q=3;w=86400"),
            "{answer:?}"
        );
    }
    let refused = get("alice")?;
    ensure!(refused.status == 429, "{refused:?}");
    ensure!(refused.header("x-ratelimit-limit") == Some("3"), "{refused:?}");
    let again: u64 = refused.header("retry-after").unwrap_or_default().parse()?;
    ensure!((1..=86400).contains(&again), "{refused:?}");
    ensure!(get("bob")?.status == 200, "others have their own");
    // Straight to the pod the service is asked as well.
    let pod = format!("http://{}:9080/details/0", lab.address("details-v1")?);
    let answer = lab.curl("curl", &["-H", "x-user: alice", &pod])?;
    ensure!(answer.status == 429, "{answer:?}");

    drop(service);
    until("carol", 500)?;
    lab.manifests.apply(&policy("failOpen: true"))?;
    settle(&lab, "curl", &by("carol").each_ref().map(String::as_str), 200)?;
    let _service = start_service(&lab)?;
    // Redis has kept the counts.
    settle(&lab, "curl", &by("alice").each_ref().map(String::as_str), 429).map(drop)
}
