//! TrafficPolicies by the real API server: the definition and its admission, a rate limit, a fault, and statuses with one
//! entry for each target.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::{answers, apply, apply_file, curl, delete, get, inside, kubectl, until};
use crate::guide::meshed;
use crate::statuses::condition;

const CONTROLLER: &str = "isthmus.io/controller";
const DEFINITION: &str = "trafficpolicies.isthmus.io";
const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const HEALTH: &str = "http://details.bookinfo:9080/health";

/// Each client may ask for `/details` three times, and for anything else as often as it likes. The younger policy says the
/// same of the route, which conflicts, and injects a fault; the last one names a port and a Service that does not exist.
const POLICIES: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: traffic, namespace: bookinfo }
spec:
  parentRefs: [{ group: '', kind: Service, name: details }]
  rules:
  - { name: limited, matches: [{ path: { value: /details } }], backendRefs: [{ name: details, port: 9080 }] }
  - { name: rest, backendRefs: [{ name: details, port: 9080 }] }
---
apiVersion: isthmus.io/v1alpha1
kind: TrafficPolicy
metadata: { name: a-limit, namespace: bookinfo }
spec:
  targetRefs:
  - { group: gateway.networking.k8s.io, kind: HTTPRoute, name: traffic, sectionName: limited }
  rateLimit: { local: { requests: 3, interval: 1h, keys: [{ type: Identity }] } }
---
apiVersion: isthmus.io/v1alpha1
kind: TrafficPolicy
metadata: { name: b-younger, namespace: bookinfo }
spec:
  targetRefs:
  - { group: gateway.networking.k8s.io, kind: HTTPRoute, name: traffic, sectionName: limited }
  rateLimit: { local: { requests: 1000, interval: 1s } }
---
apiVersion: isthmus.io/v1alpha1
kind: TrafficPolicy
metadata: { name: c-fault, namespace: bookinfo }
spec:
  targetRefs:
  - { group: '', kind: Service, name: details, sectionName: http }
  - { group: '', kind: Service, name: nobody }
  fault:
    abort: { grpcStatus: UNAVAILABLE }
    headers: [{ type: Prefix, name: x-trial, value: 'yes' }]
";

#[test]
fn a_policy_limits_injects_and_says_what_became_of_it() -> Result<()> {
    meshed()?;
    definition()?;
    apply_file("config/bookinfo/mesh/waypoint.yaml")?;
    kubectl(&["label", "namespace", "bookinfo", "istio.io/use-waypoint=waypoint", "--overwrite"])?;
    let outcome = policies();
    delete(POLICIES)?;
    // A limit ends with its policy.
    let ended = outcome.and_then(|()| answers("curl", &[DETAILS], 200).map(drop));
    kubectl(&["label", "namespace", "bookinfo", "istio.io/use-waypoint-"])?;
    kubectl(&["delete", "-n", "bookinfo", "gateway", "waypoint"])?;
    ended
}

/// `config/crds` was applied; applied once more, it is served, has a status, and turns unknown fields away.
fn definition() -> Result<()> {
    let file = crate::cluster::root().join(format!("config/crds/{DEFINITION}.yaml"));
    kubectl(&["apply", "--server-side", "-f", &file.display().to_string()])?;
    kubectl(&["wait", "--for=condition=Established", "crd", DEFINITION, "--timeout=60s"])?;
    let definition = get(&["crd", DEFINITION])?;
    let version = &definition["spec"]["versions"][0];
    ensure!(version["name"] == "v1alpha1" && version["served"] == true, "{version}");
    ensure!(version["subresources"]["status"].is_object(), "{version}");
    let misspelt = "\
apiVersion: isthmus.io/v1alpha1
kind: TrafficPolicy
metadata: { name: misspelt, namespace: bookinfo }
spec: { targetRefs: [{ group: '', kind: Service, name: details }], rateLimits: {} }
";
    let file = std::env::temp_dir().join(format!("isthmus-traffic-{}.yaml", std::process::id()));
    std::fs::write(&file, misspelt)?;
    let path = file.display().to_string();
    // The admission policy takes effect a moment after it was installed.
    let rejected = until("an unknown field to be rejected", || {
        let arguments = ["apply", "--validate=false", "--dry-run=server", "-f", &path];
        let output = inside("kubectl", &arguments).output()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((!output.status.success()).then_some(error))
    });
    std::fs::remove_file(&file)?;
    let error = rejected?;
    ensure!(error.contains("rateLimit"), "rejected for another reason: {error}");
    Ok(())
}

fn policies() -> Result<()> {
    answers("curl", &[DETAILS], 200)?;
    apply(POLICIES)?;
    let limited = answers("curl", &[DETAILS], 429)?;
    let head = limited.head.to_lowercase();
    ensure!(limited.body == "local_rate_limited", "{limited:?}");
    for header in ["retry-after: ", "x-ratelimit-limit: 3", "x-ratelimit-remaining: 0"] {
        ensure!(head.contains(header), "{header} is missing: {limited:?}");
    }
    // The bucket is this identity's, for this rule, on whichever node the client is.
    ensure!(curl("curl", &[DETAILS])?.status == 429, "the bucket was filled again");
    answers("curl", &[HEALTH], 200)?;
    answers("stranger", &[DETAILS], 200)?;

    let trial = ["-H", "x-trial: yes, please", HEALTH];
    let aborted = answers("far", &trial, 503)?;
    ensure!(aborted.body == "fault filter abort", "{aborted:?}");
    answers("far", &["-H", "x-trial: no", HEALTH], 200)?;

    status("a-limit", 0, "Accepted", "True", "Accepted")?;
    status("a-limit", 0, "Programmed", "True", "Programmed")?;
    let conflict = status("b-younger", 0, "Accepted", "False", "Conflicted")?;
    ensure!(conflict["message"].to_string().contains("bookinfo/a-limit"), "{conflict}");
    status("c-fault", 0, "Accepted", "True", "Accepted")?;
    status("c-fault", 1, "Accepted", "False", "TargetNotFound")?;
    let ancestors = ancestors("c-fault")?;
    ensure!(ancestors.len() == 2, "{ancestors:?}");
    let reference = &ancestors[0]["ancestorRef"];
    ensure!(reference["name"] == "details" && reference["sectionName"] == "http", "{reference}");

    // The conflict ends with the older policy.
    kubectl(&["delete", "-n", "bookinfo", "trafficpolicy", "a-limit"])?;
    status("b-younger", 0, "Accepted", "True", "Accepted")?;
    answers("curl", &[DETAILS], 200).map(drop)
}

/// The entries of a policy that are ours.
fn ancestors(policy: &str) -> Result<Vec<Value>> {
    let policy = get(&["trafficpolicy", "-n", "bookinfo", policy])?;
    let all = policy["status"]["ancestors"].as_array().cloned().unwrap_or_default();
    Ok(all.into_iter().filter(|it| it["controllerName"] == CONTROLLER).collect())
}

/// Waits until the condition of a policy's target has this status and reason.
fn status(policy: &str, target: usize, kind: &str, status: &str, reason: &str) -> Result<Value> {
    let mut last = Vec::new();
    let found = until(&format!("{policy}: {kind}={status} ({reason}) of target {target}"), || {
        last = ancestors(policy)?;
        let Some(entry) = last.get(target) else { return Ok(None) };
        let condition = condition(&entry["conditions"], kind);
        let is = condition["status"] == status && condition["reason"] == reason;
        Ok(is.then_some(condition))
    });
    found.with_context(|| format!("its status was {last:?}"))
}
