//! What the controller writes beside the objects of an operator: statuses and Events, by the real API server.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{apply, delete, get, inside, kubectl, until};

const CONTROLLER: &str = "isthmus.io/controller";

/// One condition of a list.
pub fn condition(conditions: &Value, kind: &str) -> Value {
    let all = conditions.as_array().cloned().unwrap_or_default();
    all.into_iter().find(|it| it["type"] == kind).unwrap_or_default()
}

/// Waits until the condition of an object has this status and reason, for the object as it is now.
pub fn has(object: &[&str], kind: &str, status: &str, reason: &str) -> Result<Value> {
    let mut last = Value::Null;
    let found = until(&format!("{object:?} to have {kind}={status} ({reason})"), || {
        let object = get(object)?;
        last = condition(&object["status"]["conditions"], kind);
        let observed = &last["observedGeneration"];
        let current = observed.is_null() || *observed == object["metadata"]["generation"];
        Ok((last["status"] == status && last["reason"] == reason && current).then(|| last.clone()))
    });
    found.with_context(|| format!("it was {last}"))
}

/// The entries of a route's parents, by controller.
fn parents(route: &str, controller: &str) -> Result<Vec<Value>> {
    let route = get(&["httproute", "-n", "statuses", route])?;
    let all = route["status"]["parents"].as_array().cloned().unwrap_or_default();
    Ok(all.into_iter().filter(|it| it["controllerName"] == controller).collect())
}

/// Writes a status as another controller would.
fn write_status(object: &[&str], patch: &Value) -> Result<()> {
    let patch = patch.to_string();
    let mut arguments = vec!["patch", "--subresource=status", "--type=merge", "-p", &patch];
    arguments.extend(object);
    kubectl(&arguments).map(drop)
}

const OBJECTS: &str = "\
apiVersion: v1
kind: Namespace
metadata: { name: statuses, labels: { istio.io/use-waypoint: waypoint } }
---
apiVersion: v1
kind: Service
metadata: { name: one, namespace: statuses }
spec: { ports: [{ name: http, port: 80 }] }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: one, namespace: statuses }
spec:
  parentRefs: [{ group: '', kind: Service, name: one }]
  rules: [{ backendRefs: [{ name: one, port: 80 }] }]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: one, namespace: statuses }
spec: { targetRefs: [{ group: '', kind: Service, name: one }], rules: [{}] }
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: one, namespace: statuses }
spec: { mtls: { mode: STRICT } }
";

const WAYPOINT: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: waypoint, namespace: statuses }
spec: { gatewayClassName: istio-waypoint, listeners: [{ name: mesh, port: 15008, protocol: HBONE }] }
";

#[test]
fn statuses_say_what_became_of_the_objects() -> Result<()> {
    delete(&format!("{OBJECTS}---\n{WAYPOINT}"))?;
    apply(OBJECTS)?;
    has(&["gatewayclass", "istio-waypoint"], "Accepted", "True", "Accepted")?;
    has(&["xmesh", "isthmus"], "Accepted", "True", "Accepted")?;
    let service = ["service", "-n", "statuses", "one"];
    let policy = ["authorizationpolicy", "-n", "statuses", "one"];
    let bound = "istio.io/WaypointBound";
    has(&["namespace", "statuses"], bound, "False", "WaypointIsNotReady")?;
    has(&service, bound, "False", "WaypointIsNotReady")?;
    has(&policy, "WaypointAccepted", "False", "AncestorNotBound")?;
    has(&["peerauthentication", "-n", "statuses", "one"], "Accepted", "True", "Accepted")?;
    until("an Event about the waypoint that does not exist", || {
        let events = get(&["events", "-n", "default"])?;
        let about = |it: &Value| {
            it["reason"] == "WaypointUnusable" && it["involvedObject"]["name"] == "statuses"
        };
        Ok(events["items"].as_array().is_some_and(|all| all.iter().any(about)).then_some(()))
    })?;

    apply(WAYPOINT)?;
    has(&["gateway", "-n", "statuses", "waypoint"], "Accepted", "True", "Accepted")?;
    has(&["gateway", "-n", "statuses", "waypoint"], "Programmed", "True", "Programmed")?;
    has(&["namespace", "statuses"], bound, "True", "WaypointAccepted")?;
    has(&service, bound, "True", "WaypointAccepted")?;
    has(&policy, "WaypointAccepted", "True", "Accepted")?;
    kubectl(&["label", "service", "-n", "statuses", "one", "istio.io/use-waypoint=none"])?;
    until("the Service to be bound to nothing", || {
        let service = get(&service)?;
        Ok(condition(&service["status"]["conditions"], bound).is_null().then_some(()))
    })?;

    routes_of_several_controllers()?;
    nothing_is_written_without_a_change()?;
    delete(&format!("{OBJECTS}---\n{WAYPOINT}"))
}

fn routes_of_several_controllers() -> Result<()> {
    let route = ["httproute", "-n", "statuses", "one"];
    until("our entry", || Ok((parents("one", CONTROLLER)?.len() == 1).then_some(())))?;
    let mut all = parents("one", CONTROLLER)?;
    all.insert(
        0,
        json!({
            "parentRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "ingress" },
            "controllerName": "example.org/other",
            "conditions": [{
                "type": "Accepted", "status": "True", "reason": "Accepted", "message": "theirs",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        }),
    );
    write_status(&route, &json!({ "status": { "parents": all } }))?;
    let theirs = parents("one", "example.org/other")?;
    let wrong = json!([{ "group": "", "kind": "Service", "name": "one", "port": 81 }]).to_string();
    let patch = format!("{{\"spec\":{{\"parentRefs\":{wrong}}}}}");
    kubectl(&["patch", "httproute", "-n", "statuses", "one", "--type=merge", "-p", &patch])?;
    until("the entry for a port that does not exist", || {
        let ours = parents("one", CONTROLLER)?;
        let accepted = ours.first().map(|it| condition(&it["conditions"], "Accepted"));
        let said = accepted
            .is_some_and(|it| it["reason"] == "NoMatchingParent" && it["observedGeneration"] == 2);
        Ok((ours.len() == 1 && said).then_some(()))
    })?;
    ensure!(parents("one", "example.org/other")? == theirs, "another controller's entry changed");
    // A parent that is gone takes our entry along, and no other.
    kubectl(&["delete", "service", "-n", "statuses", "one"])?;
    until("no entry of ours", || Ok(parents("one", CONTROLLER)?.is_empty().then_some(())))?;
    ensure!(parents("one", "example.org/other")? == theirs, "another controller's entry changed");
    Ok(())
}

/// The versions of all objects that have a status of ours stay what they are.
fn nothing_is_written_without_a_change() -> Result<()> {
    const KINDS: &str = "gatewayclasses,xmeshes,gateways,httproutes,services,authorizationpolicies,peerauthentications";
    let versions = || -> Result<Vec<(String, String)>> {
        let all = get(&[KINDS, "-A"])?;
        let items = all["items"].as_array().cloned().unwrap_or_default();
        let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
        let version =
            |it: &Value| (text(&it["metadata"]["uid"]), text(&it["metadata"]["resourceVersion"]));
        Ok(items.iter().map(version).collect())
    };
    std::thread::sleep(std::time::Duration::from_secs(2));
    let before = versions()?;
    ensure!(before.len() > 4, "{before:?}");
    std::thread::sleep(std::time::Duration::from_secs(5));
    ensure!(versions()? == before, "something was written");
    Ok(())
}

/// With our own definitions of Istio's kinds, a misspelt field reaches the reader, which refuses the policy.
#[test]
fn a_misspelt_policy_is_refused_aloud() -> Result<()> {
    let policy = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": { "name": "misspelt", "namespace": "default" },
        "spec": {
            "selector": { "matchLabels": { "app": "nobody" } },
            "rules": [{ "from": [{ "source": { "principal": ["x"] } }] }],
        },
    });
    let file = std::env::temp_dir().join(format!("isthmus-misspelt-{}.json", std::process::id()));
    std::fs::write(&file, policy.to_string())?;
    let path = file.display().to_string();
    // As a client does that does not look: kubectl itself would not send it where Istio's definitions are.
    let output = inside("kubectl", &["apply", "--validate=false", "-f", &path]).output()?;
    std::fs::remove_file(&file)?;
    let object = ["authorizationpolicy", "-n", "default", "misspelt"];
    if output.status.success() {
        let said = has(&object, "ZtunnelAccepted", "False", "UnsupportedValue")?;
        ensure!(said["message"].to_string().contains("principal"), "{said}");
        kubectl(&["delete", "authorizationpolicy", "-n", "default", "misspelt"])?;
    } else {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(error.contains("principal"), "{error}");
    }
    Ok(())
}

fn mesh_config(text: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{ name: istio-system }}\n---\napiVersion: v1\nkind: ConfigMap\n\
         metadata: {{ name: istio, namespace: istio-system }}\ndata: {{ mesh: '{text}' }}\n"
    )
}

/// A ConfigMap has no status.
#[test]
fn events_say_what_is_wrong_with_meshconfig() -> Result<()> {
    let mut last = String::new();
    for (text, words) in [
        ("ingressClass: istio", ["Misconfigured", "ingressClass: is not carried out"]),
        ("extensionProviders: [", ["Refused", "is not YAML"]),
    ] {
        last = mesh_config(text);
        apply(&last)?;
        until(&format!("an Event with {words:?}"), || {
            let events = kubectl(&["describe", "-n", "istio-system", "configmap", "istio"])?;
            Ok(words.iter().all(|word| events.contains(word)).then_some(()))
        })?;
    }
    delete(&last)
}
