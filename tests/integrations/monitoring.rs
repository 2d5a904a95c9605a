//! Dashboards and rules of `config/monitoring`: a real Prometheus scrapes two agents and a controller under load, and every
//! expression has data.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use serde_json::{Value, json};

use crate::apiserver::{ApiServer, STATUS, Trouble};
use crate::ca_client::{Ask, CaClient};
use crate::controlled::{self, PLACE, path};
use crate::monitoring_files::{ALL, DIRECTORY, Dashboard, alerts, dashboards, recordings};
use crate::programs::{node, start};
use crate::prometheus::promtool;
use crate::support::lab::curl::curl;
use crate::support::lab::manifests::{Key, child};
use crate::support::lab::metrics::Metrics;
use crate::support::lab::pods::NETWORK_NAMESPACE;
use crate::support::lab::process::Process;
use crate::support::lab::{Lab, wait};
use crate::upstream::Upstream;
use crate::{WAYPOINT, bookinfo, captured_in, settle};

const PROMETHEUS: u16 = 9090;
const METRICS: u16 = 15020;
/// In place of what Grafana would choose for a scrape each second.
const INTERVAL: &str = "10s";
const PATIENCE: Duration = Duration::from_secs(60);
/// Nobody is there: the capture answers.
const NAME_SERVER: &str = "10.96.0.10:53";
const RESOLVER: &str = "/run/resolv.conf";
const UID: &str = "first";

/// Something of each policy that metrics tell of.
const POLICIES: &str = "
apiVersion: isthmus.io/v1alpha1
kind: TrafficPolicy
metadata: {name: reviews, namespace: bookinfo}
spec:
  targetRefs: [{group: \"\", kind: Service, name: reviews}]
  rateLimit:
    shared: {requests: 10, interval: 1s, burst: 10}
  concurrencyLimit:
    fixed: {requests: 100}
  fault:
    abort: {httpStatus: 503, percentage: 100}
    headers: [{name: x-trial, value: \"1\"}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: bookinfo}
spec:
  host: reviews.bookinfo.svc.cluster.local
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 5}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-delete, namespace: bookinfo}
spec:
  targetRefs: [{group: \"\", kind: Service, name: reviews}]
  action: DENY
  rules: [{to: [{operation: {methods: [DELETE]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: audit, namespace: bookinfo}
spec:
  targetRefs: [{group: \"\", kind: Service, name: reviews}]
  action: AUDIT
  rules: [{}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-strangers, namespace: bookinfo}
spec:
  selector: {matchLabels: {app: ratings}}
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/stranger]}}]}]
";

/// Alerts of what happens on this stage.
const PROVOKED: [&str; 4] = [
    "IsthmusCertificateRequestsRefused",
    "IsthmusConnectionsDenied",
    "IsthmusRequestsFail",
    "IsthmusStatusesNotWritten",
];

struct Stage {
    lab: Lab,
    server: ApiServer,
    _controller: Process,
    _resolver: Upstream,
}

/// An expression with the variables of a dashboard in several ways, of which one has to have data.
struct Pending {
    what: String,
    expressions: Vec<String>,
}

fn cni(node: &str, what: &str) -> String {
    path(&format!("{node}-{what}"))
}

fn settings(node: &str) -> String {
    format!(
        "[dns]\nresolv_conf = \"{RESOLVER}\"\n[cni]\nenabled = \"on\"\nconf_directory = \"{}\"\nbin_directory = \"{}\"\n\
         socket = \"{}\"\n",
        cni(node, "net.d"),
        cni(node, "bin"),
        cni(node, "cni.sock"),
    )
}

/// Bookinfo in the mesh of a controller, with a waypoint for all services but `ratings`, and with policies.
fn stage() -> Result<Stage> {
    let mut lab = bookinfo()?;
    fs::write(RESOLVER, format!("nameserver {}\n", lab.address(PLACE)?))?;
    let resolver = Upstream::start(&lab.pod(PLACE)?.attachment.namespace)?;
    for node in ["node-a", "node-b"] {
        for what in ["net.d", "bin"] {
            fs::create_dir(cni(node, what))?;
        }
        let list = r#"{"cniVersion":"1.0.0","name":"lab","plugins":[{"type":"ptp"}]}"#;
        fs::write(Path::new(&cni(node, "net.d")).join("10-lab.conflist"), list)?;
    }
    // Only the plugin tells where this one is.
    lab.manifests.change(&Key::new("Pod", "default", "curl"), |pod| {
        let metadata = child(pod, "metadata")?;
        metadata["uid"] = json!(UID);
        child(metadata, "annotations")?.as_object_mut().map(|it| it.remove(NETWORK_NAMESPACE));
        pod.as_object_mut().map(|pod| pod.remove("status"));
        Ok(())
    })?;
    let (server, controller) = controlled::start(&mut lab, settings)?;
    for namespace in ["bookinfo", "default"] {
        let key = Key::new("Namespace", "", namespace);
        lab.manifests.label(&key, &["istio.io/dataplane-mode=ambient"])?;
    }
    captured_in(&lab, "bookinfo")?;
    start_pod(&lab)?;
    captured_in(&lab, "default")?;
    lab.manifests.apply(WAYPOINT)?;
    let ratings = Key::new("Service", "bookinfo", "ratings");
    lab.manifests.label(&ratings, &["istio.io/use-waypoint=none"])?;
    let bookinfo = Key::new("Namespace", "", "bookinfo");
    lab.manifests.label(&bookinfo, &["istio.io/use-waypoint=waypoint"])?;
    lab.manifests.apply(POLICIES)?;
    settle(&lab, "curl", &["-X", "DELETE", "http://reviews.bookinfo:9080/headers"], 403)?;
    fs::write(path("message"), [0, 0, 0, 0, 1, b'x'])?;
    ensure!(!plugin(&lab, "another")?.status.success(), "a pod that nobody knows");
    let stage = Stage { lab, server, _controller: controller, _resolver: resolver };
    write_a_status(&stage)?;
    Ok(stage)
}

/// A second's traffic, or so: permitted, denied, failed; with HTTP, gRPC, TCP; names, certificates, and a starting pod.
fn load(stage: &Stage) -> Result<()> {
    let lab = &stage.lab;
    let message = format!("@{}", path("message"));
    let reviews = "http://reviews.bookinfo:9080/headers";
    let ratings = "http://ratings.bookinfo:9080/headers";
    let grpc = ["--http2-prior-knowledge", "-H", "content-type: application/grpc"];
    let call = [&grpc[..], &["-H", "te: trailers", "--data-binary", &message, reviews]].concat();
    for (client, arguments) in [
        ("curl", &["http://productpage.bookinfo:9080/productpage"][..]),
        ("curl", &["-d", "a body", "http://details.bookinfo:9080/headers"]),
        ("curl", &[reviews, reviews, reviews, reviews]),
        ("curl", &["-H", "x-trial: 1", reviews]),
        ("curl", &["-X", "DELETE", reviews]),
        ("curl", &call),
        ("curl", &[ratings]),
        ("stranger", &[ratings]),
        ("stranger", &[reviews, reviews, reviews, reviews]),
        // Plaintext from outside of the mesh.
        ("outsider", &["http://details.bookinfo:9080/headers"]),
    ] {
        lab.curl(client, arguments)?;
    }
    ask_for_a_name(lab)?;
    ask_for_certificates(stage)?;
    start_pod(lab)
}

fn ask_for_a_name(lab: &Lab) -> Result<()> {
    let mut query = Message::new(4711, MessageType::Query, OpCode::Query);
    query.add_query(Query::query(Name::from_ascii("www.example.test.")?, RecordType::A));
    let query = query.to_vec()?;
    lab.pod("curl")?.attachment.namespace.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(wait::PATIENCE))?;
        socket.send_to(&query, NAME_SERVER)?;
        socket.recv(&mut [0; 4096]).context("no answer")?;
        Ok(())
    })?
}

/// As an agent asks, and as somebody else does.
fn ask_for_certificates(stage: &Stage) -> Result<()> {
    let roots = controlled::roots(&stage.server)?;
    let address = SocketAddr::new(stage.lab.address(PLACE)?, 15012);
    let identity = "spiffe://cluster.local/ns/bookinfo/sa/bookinfo-reviews";
    let ask = async move {
        let mut controller = CaClient::new(address, &roots)?;
        controller.ask(&Ask::new("agent-node-a", identity)).await?;
        let refused = controller.ask(&Ask::new("nobody", identity)).await;
        ensure!(refused.is_err(), "a certificate for nobody");
        Ok(())
    };
    stage.lab.pod(PLACE)?.attachment.namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(ask)
    })?
}

/// As a container runtime runs the plugin that the agent has installed.
fn plugin(lab: &Lab, uid: &str) -> Result<Output> {
    let plan = &lab.pod("curl")?.plan;
    let list = Path::new(&cni(&plan.node, "net.d")).join("10-lab.conflist");
    let list: Value = serde_json::from_str(&fs::read_to_string(list)?)?;
    let mut entry = list["plugins"][1].clone();
    for field in ["cniVersion", "name"] {
        entry[field] = list[field].clone();
    }
    let address = format!("{}/24", lab.address("curl")?);
    entry["prevResult"] =
        json!({"cniVersion": "1.0.0", "interfaces": [], "ips": [{"address": address}], "dns": {}});
    let mut process = Command::new(Path::new(&cni(&plan.node, "bin")).join("isthmus"))
        .env_clear()
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", "sandbox")
        .env("CNI_IFNAME", "eth0")
        .env("CNI_NETNS", format!("/var/run/netns/{}", plan.network_namespace))
        .env("CNI_ARGS", format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME=curl;K8S_POD_UID={uid}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("run the plugin that the agent installed")?;
    process.stdin.take().context("a standard input")?.write_all(entry.to_string().as_bytes())?;
    Ok(process.wait_with_output()?)
}

fn start_pod(lab: &Lab) -> Result<()> {
    let output = plugin(lab, UID)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// Of a policy, which the API server refuses at first.
fn write_a_status(stage: &Stage) -> Result<()> {
    let written = |outcome: &str| -> Result<()> {
        let url = format!("http://127.0.0.1:{METRICS}/metrics");
        let place = &stage.lab.pod(PLACE)?.attachment.namespace;
        wait::until(&format!("the controller to have {outcome} a status"), || {
            let metrics = Metrics::parse(&curl(place, &[&url])?.body);
            let labels = [("outcome", outcome)];
            let count = metrics.sum("isthmus_controller_status_writes_total", &labels);
            Ok((count > 0.0).then_some(()))
        })
    };
    stage.server.trouble(STATUS, Trouble::Status(500));
    stage.server.put(json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "any", "namespace": "bookinfo", "uid": "any", "generation": 1},
        "spec": {"targetRefs": [{"kind": "Service", "group": "", "name": "nothing"}], "rules": [{}]},
    }));
    written("failed")?;
    stage.server.recover();
    written("written")
}

fn committed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(DIRECTORY).join(name)
}

/// A target as Kubernetes' service discovery tells it, by a port that the pod declares or by none.
fn pod(address: IpAddr, app: &str, name: &str, port: &str) -> Value {
    let labels = json!({
        "__meta_kubernetes_pod_ip": address.to_string(),
        "__meta_kubernetes_pod_name": name,
        "__meta_kubernetes_pod_node_name": name,
        "__meta_kubernetes_pod_container_port_name": port,
        "__meta_kubernetes_pod_label_app_kubernetes_io_name": app,
        "__meta_kubernetes_pod_label_app_kubernetes_io_part_of": "isthmus",
        "__meta_kubernetes_pod_annotation_prometheus_io_port": METRICS.to_string(),
    });
    json!({"targets": [address.to_string()], "labels": labels})
}

/// As the committed settings find both agents and the controller; this Prometheus knows no Kubernetes.
fn start_prometheus(lab: &Lab) -> Result<Process> {
    let agents = lab.network().nodes().iter();
    let mut pods: Vec<Value> =
        agents.map(|it| pod(it.addresses[0], "isthmus", &it.name, "")).collect();
    for port in ["grpc-ca", "metrics", "readiness"] {
        pods.push(pod(lab.address(PLACE)?, "isthmus-controller", "controller-0", port));
    }
    let text = fs::read_to_string(committed("prometheus-kubernetes.yaml"))?;
    let mut settings: Value = serde_saphyr::from_str(&text)?;
    settings["global"] = json!({"scrape_interval": "1s", "evaluation_interval": "1s"});
    settings["rule_files"] = json!([committed("rules.yaml")]);
    let job = settings["scrape_configs"][0].as_object_mut().context("a job")?;
    job.remove("kubernetes_sd_configs").context("Kubernetes")?;
    job.insert("static_configs".into(), pods.into());
    let file = path("prometheus.yaml");
    fs::write(&file, settings.to_string())?;
    promtool(&["check", "config", &file], "")?;
    let config = format!("--config.file={file}");
    let data = format!("--storage.tsdb.path={}", path("prometheus"));
    start(lab, Path::new("prometheus"), &[&config, &data], PROMETHEUS)
}

/// Whether an expression has a finite value; an error if it is none.
fn has_data(lab: &Lab, expression: &str) -> Result<bool> {
    let url = format!("http://127.0.0.1:{PROMETHEUS}/api/v1/query");
    let query = format!("query={expression}");
    let answer = curl(&node(lab)?.namespace, &["--data-urlencode", &query, &url])?.json();
    ensure!(answer["status"] == "success", "{expression}: {answer}");
    let samples = answer["data"]["result"].as_array().into_iter().flatten();
    let mut values = samples.filter_map(|it| it["value"][1].as_str()?.parse::<f64>().ok());
    Ok(values.any(f64::is_finite))
}

/// The alerts whose expression is true, whether or not for long enough.
fn told(lab: &Lab) -> Result<BTreeSet<String>> {
    let url = format!("http://127.0.0.1:{PROMETHEUS}/api/v1/query");
    let answer = curl(&node(lab)?.namespace, &["--data-urlencode", "query=ALERTS", &url])?.json();
    let alerts = answer["data"]["result"].as_array().context("alerts")?;
    let name = |it: &Value| it["metric"]["alertname"].as_str().map(str::to_owned);
    Ok(alerts.iter().filter_map(name).collect())
}

type Values = &'static [(&'static str, &'static str)];

/// What a reader selects: of each list, one selection has to show something.
fn selections(dashboard: &Dashboard) -> Vec<Vec<Values>> {
    match dashboard.name {
        "mesh" => vec![vec![&[("namespace", ALL)]], vec![&[("namespace", "bookinfo")]]],
        "node-agent" => {
            vec![vec![&[("node", ALL)]], vec![&[("node", "node-a")], &[("node", "node-b")]]]
        }
        "service" => vec![vec![
            &[("namespace", "bookinfo"), ("service", "reviews")],
            // Without a waypoint: connections, and no requests.
            &[("namespace", "bookinfo"), ("service", "ratings")],
        ]],
        _ => vec![vec![
            &[("namespace", "bookinfo"), ("workload", "reviews-v1")],
            &[("namespace", "bookinfo"), ("workload", "ratings-v1")],
            &[("namespace", "default"), ("workload", "curl")],
            &[("namespace", "default"), ("workload", "stranger")],
        ]],
    }
}

fn select(expression: &str, values: Values) -> String {
    let expression = expression.replace("$__rate_interval", INTERVAL);
    values.iter().fold(expression, |text, (name, value)| text.replace(&format!("${name}"), value))
}

/// The values that a variable offers, as an expression with a series for each.
fn offered(query: &str) -> Result<String> {
    let inside = |function: &str| query.strip_prefix(function)?.strip_suffix(')');
    if let Some(expression) = inside("query_result(") {
        return Ok(expression.to_owned());
    }
    let values = inside("label_values(").context("neither label_values nor query_result")?;
    let (selector, label) = values.rsplit_once(',').context("a selector and a label")?;
    let label = label.trim();
    Ok(format!("count by ({label}) ({{{label}!=\"\"}} and {selector})"))
}

fn all() -> Result<Vec<Pending>> {
    let mut all = Vec::new();
    for dashboard in dashboards() {
        for alternatives in selections(&dashboard) {
            let of = |expression: &str| -> Vec<String> {
                alternatives.iter().map(|values| select(expression, values)).collect()
            };
            for variable in &dashboard.variables {
                let what = format!("the variable {} of {}", variable.name, dashboard.name);
                all.push(Pending { what, expressions: of(&offered(variable.query)?) });
            }
            for panel in dashboard.rows.iter().flat_map(|it| &it.panels) {
                for query in &panel.queries {
                    let what = format!("{}, {}: {}", dashboard.name, panel.title, query.legend);
                    all.push(Pending { what, expressions: of(&query.expression) });
                }
            }
        }
    }
    for rule in recordings() {
        let what = format!("the recording {}", rule.record);
        all.push(Pending { what, expressions: vec![rule.record.to_owned()] });
    }
    for alert in alerts() {
        let what = format!("the value of {}", alert.name);
        all.push(Pending { what, expressions: vec![alert.value.to_owned()] });
    }
    Ok(all)
}

#[test]
fn every_expression_has_data() -> Result<()> {
    let stage = stage()?;
    let lab = &stage.lab;
    let _prometheus = start_prometheus(lab)?;
    let mut pending = all()?;
    ensure!(pending.len() > 250, "{} expressions", pending.len());
    let waited = wait::within(PATIENCE, "every expression to have data", || {
        load(&stage)?;
        let mut left = Vec::new();
        for each in pending.drain(..) {
            let mut found = false;
            for expression in &each.expressions {
                found = found || has_data(lab, expression)?;
            }
            if !found {
                left.push(each);
            }
        }
        pending = left;
        Ok(pending.is_empty().then_some(()))
    });
    let left: Vec<String> = pending
        .iter()
        .map(|it| format!("{}: {}", it.what, it.expressions.join("\n  or ")))
        .collect();
    ensure!(waited.is_ok(), "{waited:?}\n{}", left.join("\n"));
    for alert in alerts() {
        // Whether it fires or not.
        has_data(lab, &alert.expression())?;
    }
    let told = told(lab)?;
    ensure!(told.contains("IsthmusCertificateRequestsRefused"), "{told:?}");
    let unexpected: Vec<&String> =
        told.iter().filter(|it| !PROVOKED.contains(&it.as_str())).collect();
    ensure!(unexpected.is_empty(), "alerts about what is well: {unexpected:?}");
    // Both kinds of processes have been asked for everything.
    let url = format!("http://127.0.0.1:{METRICS}/metrics");
    let places = lab.network().nodes().iter().map(|it| &it.namespace);
    for place in places.chain([&lab.pod(PLACE)?.attachment.namespace]) {
        promtool(&["check", "metrics"], &curl(place, &[&url])?.body)?;
    }
    Ok(())
}

#[test]
fn promtool_accepts_the_committed_files() -> Result<()> {
    for (kind, name) in [("rules", "rules.yaml"), ("config", "prometheus.yaml")] {
        let file = committed(name);
        let file = file.to_str().context("a path")?;
        promtool(&["check", kind, file], "")?;
    }
    Ok(())
}
