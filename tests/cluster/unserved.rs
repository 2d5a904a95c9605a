//! What Istio's ambient mode would carry out and Isthmus does not, and waypoints that do not exist yet: nothing of it is
//! silent, and what guards fails closed.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::cluster::{answers, apply, apply_file, curl, delete, get, kubectl, until};
use crate::guide::meshed;
use crate::statuses::{condition, has};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const SYSTEM: &str = "isthmus-system";

/// The definitions of Istio's that `config/crds` does not have, as far as the API server needs them.
fn definitions() -> String {
    let kinds = [("networking.istio.io", "EnvoyFilter", "envoyfilters")];
    let definition = |(group, kind, plural): &(&str, &str, &str)| {
        let singular = kind.to_ascii_lowercase();
        format!(
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: {plural}.{group}}}\n\
             spec:\n  group: {group}\n  scope: Namespaced\n  names: {{kind: {kind}, plural: {plural}, singular: {singular}}}\n  \
             versions:\n  - name: v1alpha3\n    served: true\n    storage: true\n    subresources: {{status: {{}}}}\n    \
             schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}\n"
        )
    };
    kinds.iter().map(definition).collect::<Vec<_>>().join("---\n")
}

const OBJECTS: &str = "\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: { name: jwt, namespace: bookinfo }
spec: { selector: { matchLabels: { app: details } }, jwtRules: [{ issuer: a, jwks: '{}' }] }
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: { name: details, namespace: bookinfo }
spec: { configPatches: [] }
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: ratings, namespace: bookinfo }
spec: { host: ratings, trafficPolicy: { tls: { mode: SIMPLE, credentialName: ratings } } }
";

#[test]
fn kinds_that_are_installed_later_say_that_they_are_not_carried_out() -> Result<()> {
    meshed()?;
    answers("curl", &["-H", "Authorization: Bearer x", DETAILS], 200)?;
    apply(&definitions())?;
    kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
    apply(OBJECTS)?;
    let outcome = unserved();
    delete(OBJECTS)?;
    delete(&definitions())?;
    outcome?;
    answers("curl", &["-H", "Authorization: Bearer x", DETAILS], 200).map(drop)
}

fn unserved() -> Result<()> {
    let jwt = ["requestauthentication", "-n", "bookinfo", "jwt"];
    has(&jwt, "Accepted", "True", "PartiallyInvalid")?;
    let routes = ["envoyfilter", "-n", "bookinfo", "details"];
    has(&routes, "isthmus.io/CarriedOut", "False", "NotSupported")?;
    let rule = ["destinationrule", "-n", "bookinfo", "ratings"];
    has(&rule, "Accepted", "False", "NotSupported")?;
    until("an Event about ratings", || {
        let events = get(&["events", "-n", "bookinfo"])?;
        let about = |it: &Value| {
            it["reason"] == "NotSupported" && it["involvedObject"]["name"] == "ratings"
        };
        Ok(events["items"].as_array().is_some_and(|all| all.iter().any(about)).then_some(()))
    })?;
    // From both nodes: a token that nobody verified does not reach the application.
    for client in ["curl", "far", "stranger", "outsider"] {
        let refused = answers(client, &["-H", "Authorization: Bearer a.b.c", DETAILS], 401)?;
        ensure!(refused.head.to_lowercase().contains("www-authenticate: bearer"), "{refused:?}");
        answers(client, &[&format!("{DETAILS}?access_token=x")], 401)?;
        answers(client, &[DETAILS], 200)?;
        answers(client, &["-H", "Authorization: Basic eDp5", DETAILS], 200)?;
    }
    // Traffic that should be encrypted is not sent in the clear.
    until("ratings to be refused", || {
        Ok((curl("curl", &["http://ratings.bookinfo:9080/ratings/0"])?.status == 0).then_some(()))
    })
}

/// Operators and test frameworks do that: the name stays, the object does not.
#[test]
fn an_object_that_is_replaced_by_force_has_its_status_again() -> Result<()> {
    const POLICY: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: replaced, namespace: default }
spec: { selector: { matchLabels: { app: nobody } }, rules: [{}] }
";
    apply(POLICY)?;
    let object = ["authorizationpolicy", "-n", "default", "replaced"];
    has(&object, "ZtunnelAccepted", "True", "Accepted")?;
    let mut seen = Vec::new();
    for _ in 0..5 {
        std::thread::sleep(std::time::Duration::from_secs(2));
        crate::cluster::replace_by_force(POLICY)?;
        has(&object, "ZtunnelAccepted", "True", "Accepted")?;
        seen.push(get(&object)?["metadata"]["uid"].to_string());
    }
    seen.dedup();
    ensure!(seen.len() == 5, "the object was not made again: {seen:?}");
    delete(POLICY)
}

/// Sets `missing_waypoint` of agents and controller, and waits until all know it.
fn set_missing_waypoint(value: &str) -> Result<()> {
    for (name, workload) in
        [("isthmus", "daemonset/isthmus"), ("isthmus-controller", "deployment/isthmus-controller")]
    {
        let mut settings = get(&["configmap", "-n", SYSTEM, name])?;
        for text in settings["data"].as_object_mut().into_iter().flat_map(|data| data.values_mut())
        {
            let lines = text.as_str().unwrap_or_default().lines().map(|line| {
                match line.starts_with("missing_waypoint") {
                    true => format!("missing_waypoint = \"{value}\"\n"),
                    false => format!("{line}\n"),
                }
            });
            *text = lines.collect::<String>().into();
        }
        apply(&settings.to_string())?;
        kubectl(&["-n", SYSTEM, "rollout", "restart", workload])?;
    }
    for workload in ["daemonset/isthmus", "deployment/isthmus-controller"] {
        kubectl(&["-n", SYSTEM, "rollout", "status", workload, "--timeout=120s"])?;
    }
    crate::cluster::settled(SYSTEM)
}

#[test]
fn a_missing_waypoint_refuses_or_waits_at_layer_4_and_says_which() -> Result<()> {
    meshed()?;
    let outcome = missing_waypoint();
    kubectl(&["label", "service", "-n", "bookinfo", "details", "istio.io/use-waypoint-"])?;
    kubectl(&["delete", "-n", "bookinfo", "gateway", "waypoint", "--ignore-not-found"])?;
    delete(POLICY)?;
    set_missing_waypoint("refuse")?;
    outcome
}

/// Only a waypoint enforces it.
const POLICY: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: gets, namespace: bookinfo }
spec:
  targetRefs: [{ group: '', kind: Service, name: details }]
  rules: [{ to: [{ operation: { methods: [GET] } }] }]
";

fn missing_waypoint() -> Result<()> {
    let service = ["service", "-n", "bookinfo", "details"];
    let bound = "istio.io/WaypointBound";
    let refused = |client: &str| {
        until(&format!("{client} to be refused"), || {
            Ok((curl(client, &[DETAILS])?.status == 0).then_some(()))
        })
    };
    let label = "istio.io/use-waypoint=waypoint";
    kubectl(&["label", "service", "-n", "bookinfo", "details", label, "--overwrite"])?;
    has(&service, bound, "False", "WaypointIsNotReady")?;
    refused("curl")?;

    set_missing_waypoint("layer4")?;
    let said = has(&service, bound, "False", "WaypointIsMissing")?;
    ensure!(said["message"].to_string().contains("layer 4 alone"), "{said}");
    until("an Event about it", || {
        let events = get(&["events", "-n", "bookinfo"])?;
        let about = |it: &Value| it["reason"] == "WaypointMissing";
        Ok(events["items"].as_array().is_some_and(|all| all.iter().any(about)).then_some(()))
    })?;
    for client in ["curl", "far"] {
        answers(client, &[DETAILS], 200)?;
        answers(client, &["-X", "DELETE", DETAILS], 200)?;
    }
    // A policy that the waypoint would enforce closes it until there is one.
    apply(POLICY)?;
    has(&service, bound, "False", "WaypointIsNotReady")?;
    for client in ["curl", "far", "outsider"] {
        refused(client)?;
    }
    apply_file("config/bookinfo/mesh/waypoint.yaml")?;
    has(&service, bound, "True", "WaypointAccepted")?;
    for client in ["curl", "far"] {
        answers(client, &[DETAILS], 200)?;
        answers(client, &["-X", "DELETE", DETAILS], 403)?;
    }
    let conditions = &get(&service)?["status"]["conditions"];
    ensure!(condition(conditions, bound)["status"] == "True", "{conditions}");
    Ok(())
}
