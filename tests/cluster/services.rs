//! The kinds of Services that Kubernetes has, through the mesh.

use anyhow::{Context, Result, ensure};

use crate::cluster::{answers, apply, curl, delete, pod, settled, until};
use crate::guide::{captured, meshed};

/// A server on each node, and one that never gets ready.
fn servers() -> String {
    let server = |name: &str, node: &str, labels: &str, path: &str| {
        format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: services, labels: {labels}}}
spec:
  nodeSelector: {{kubernetes.io/hostname: {node}}}
  terminationGracePeriodSeconds: 0
  containers:
  - name: web
    image: localhost/isthmus-bookinfo:lab
    imagePullPolicy: Never
    args: [--service, details]
    ports: [{{name: web, containerPort: 9080}}]
    readinessProbe: {{httpGet: {{path: {path}, port: web}}, periodSeconds: 1}}
---"
        )
    };
    let namespace = "
apiVersion: v1
kind: Namespace
metadata: {name: services, labels: {istio.io/dataplane-mode: ambient}}
---";
    [
        namespace.to_owned(),
        server("near", "node1", "{app: web}", "/health"),
        server("distant", "node2", "{app: web}", "/health"),
        server("unready", "node2", "{app: unready}", "/nowhere"),
    ]
    .concat()
}

fn services(near: &str) -> String {
    let service = |name: &str, spec: &str| {
        format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: services}}
spec: {spec}
---"
        )
    };
    let port = "ports: [{name: http, port: 80, targetPort: web}]";
    let plain = "ports: [{name: http, port: 80, targetPort: 9080}]";
    let web = "selector: {app: web}";
    let unready = "selector: {app: unready}";
    let slice = format!(
        "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: manual, namespace: services, labels: {{kubernetes.io/service-name: manual}}}}
addressType: IPv4
endpoints: [{{addresses: [{near}]}}]
ports: [{{name: http, port: 9080}}]
"
    );
    [
        service("named", &format!("{{{web}, {port}}}")),
        service("local", &format!("{{{web}, {port}, internalTrafficPolicy: Local}}")),
        service("same-node", &format!("{{{web}, {port}, trafficDistribution: PreferSameNode}}")),
        service("sticky", &format!("{{{web}, {port}, sessionAffinity: ClientIP}}")),
        service(
            "headless",
            &format!("{{{web}, clusterIP: None, ports: [{{name: http, port: 9080}}]}}"),
        ),
        service("manual", &format!("{{{plain}}}")),
        service("external", "{type: ExternalName, externalName: named.services.svc.cluster.local}"),
        service("hidden", &format!("{{{unready}, {port}}}")),
        service("shown", &format!("{{{unready}, {port}, publishNotReadyAddresses: true}}")),
        slice,
    ]
    .concat()
}

/// How many of twenty requests from node1, each on a separate connection, each of the two servers answered.
fn served(url: &str) -> Result<[usize; 2]> {
    let url = format!("{url}/headers?[1-20]");
    let body = curl("curl", &["-H", "Connection: close", &url])?.body;
    Ok(["near", "distant"].map(|name| body.matches(&format!("\"pod\":\"{name}\"")).count()))
}

#[test]
fn every_kind_of_service_leads_where_it_says() -> Result<()> {
    meshed()?;
    apply(&servers())?;
    for name in ["near", "distant"] {
        crate::cluster::kubectl(&[
            "wait",
            "-n",
            "services",
            "--for=condition=Ready",
            &format!("pod/{name}"),
            "--timeout=60s",
        ])?;
    }
    captured("services", "app=web", true)?;
    let near = crate::cluster::get(&["pod", "near", "-n", "services"])?["status"]["podIP"].clone();
    let services = services(near.as_str().context("an address")?);
    apply(&services)?;

    // The services are known one after the other; the last one tells that all are.
    answers("curl", &["http://shown.services/headers"], 200)?;
    pod("services", "app=unready")?;
    let hidden = curl("curl", &["http://hidden.services/headers"])?;
    ensure!(hidden.status != 200, "a pod that is not ready was reached: {hidden:?}");

    for (name, expected) in [
        ("named.services", None),
        // Its name leads to the one above, and the mesh sees that one's address.
        ("external.services", None),
        ("manual.services", Some([20, 0])),
        ("local.services", Some([20, 0])),
        ("same-node.services", Some([20, 0])),
    ] {
        let url = format!("http://{name}");
        until(&format!("{name} to answer"), || Ok((served(&url)? != [0, 0]).then_some(())))?;
        let served = served(&url)?;
        match expected {
            Some(expected) => ensure!(served == expected, "{name}: {served:?}"),
            None => ensure!(
                served[0] > 0 && served[1] > 0 && served[0] + served[1] == 20,
                "{name}: {served:?}"
            ),
        }
    }
    // A headless Service has no address, so curl dials one of its pods: the one that it took from DNS.
    let headless = served("http://headless.services:9080")?;
    ensure!(headless.iter().sum::<usize>() == 20, "headless: {headless:?}");
    let sticky = served("http://sticky.services")?;
    ensure!(sticky.contains(&20), "not always the same: {sticky:?}");
    delete(&services)?;
    delete(&servers())?;
    settled("bookinfo")
}
