//! An operator's view of real agents: open connections, and the dump that istioctl reads.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::istioctl::Dump;
use crate::profile::Profile;
use crate::support::lab::agents::{administer, socket};
use crate::support::lab::curl::{Answer, curl};
use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, Moment, process, wait};
use crate::{WAYPOINT, meshed, settle};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";
/// Long enough for anything that happens at all.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the agent of a node over its socket.
fn ask(lab: &Lab, node: &str, arguments: &[&str], path: &str) -> Result<Answer> {
    administer(lab.node(node)?, arguments, path)
}

fn get(lab: &Lab, node: &str, path: &str) -> Result<Value> {
    let answer = ask(lab, node, &[], path)?;
    ensure!(answer.status == 200, "{path}: {}: {}", answer.summary(), answer.body);
    Ok(answer.json())
}

/// The node that a pod runs on.
fn node_of(lab: &Lab, pod: &str) -> Result<String> {
    Ok(lab.pod(pod)?.plan.node.clone())
}

/// A connection of a pod that the application has answered on, so that it is open from end to end.
fn open(lab: &Lab, from: &str, to: SocketAddr, path: &str) -> Result<TcpStream> {
    let mut stream = lab.pod(from)?.attachment.namespace.run(|| TcpStream::connect(to))??;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: details\r\n\r\n")?;
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..length]);
    ensure!(answer.starts_with("HTTP/1.1 200"), "answered {answer:?}");
    Ok(stream)
}

/// The connections of `workload` in one direction, as the agent of `node` knows them.
fn rows(lab: &Lab, node: &str, workload: &str, direction: &str) -> Result<Vec<Value>> {
    let mut answer = get(lab, node, &format!("/connections?workload={workload}"))?;
    let Value::Array(rows) = answer["connections"].take() else { return Ok(Vec::new()) };
    Ok(rows.into_iter().filter(|row| row["direction"] == direction).collect())
}

#[test]
fn open_connections_are_shown_at_both_ends_until_they_close() -> Result<()> {
    let lab = meshed()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let (here, there) = (node_of(&lab, "curl")?, node_of(&lab, "details-v1")?);
    assert_ne!(here, there);
    let details = SocketAddr::new(lab.service("bookinfo", "details")?[0], 9080);
    let ratings = SocketAddr::new(lab.address("ratings-v1")?, 9080);
    let tunnelled = open(&lab, "curl", details, "/details/0")?;
    let in_process = open(&lab, "curl", ratings, "/ratings/0")?;

    let client = rows(&lab, &here, "default/curl", "outbound")?;
    let transports: Vec<&str> = client.iter().filter_map(|row| row["transport"].as_str()).collect();
    assert_eq!(transports, ["tunnel", "in_process"], "{client:#?}");
    let row = &client[0];
    let from = tunnelled.local_addr()?.to_string();
    assert_eq!(row["source"]["address"], Value::from(from.clone()), "{row:#}");
    assert_eq!(row["source"]["identity"], "spiffe://cluster.local/ns/default/sa/curl", "{row:#}");
    assert_eq!(row["destination"]["dialled"], Value::from(details.to_string()), "{row:#}");
    assert_eq!(row["destination"]["workload"], "details-v1", "{row:#}");
    assert!(row["bytesSent"].as_u64() > Some(20) && row["bytesReceived"].as_u64() > Some(20));
    assert_eq!(rows(&lab, &here, "bookinfo/ratings-v1", "inbound")?.len(), 1);

    let server = rows(&lab, &there, "bookinfo/details-v1", "inbound")?;
    assert_eq!(server.len(), 1, "{server:#?}");
    assert_eq!(server[0]["source"]["identity"], row["source"]["identity"]);
    assert_eq!(server[0]["bytesReceived"], row["bytesSent"], "each as its workload sees it");
    assert_eq!(lab.metrics()?.sum("isthmus_pool_streams", &[]), 1.0);
    let sockets = lab.metrics()?.sum("istio_tcp_sockets_open", &[("reporter", "source")]);
    assert_eq!(sockets, 2.0);

    let one = get(&lab, &here, "/connections?limit=1")?;
    assert_eq!(one["connections"].as_array().map(Vec::len), Some(1), "{one:#}");
    assert_eq!((&one["total"], &one["leftOut"]), (&3.into(), &2.into()), "{one:#}");

    let run = |arguments: &[&str]| -> Result<String> {
        let mut command = process::command(&lab.node(&here)?.namespace, &lab.programs().isthmus);
        Ok(String::from_utf8(command.args(arguments).args(["--node", &here]).output()?.stdout)?)
    };
    let asked = ["connections", "--workload", "default/curl"];
    let table = run(&asked)?;
    let line = table.lines().find(|line| line.contains("tunnel")).context(table.clone())?;
    assert!(line.contains(&from) && line.contains("details.bookinfo.svc.cluster.local"), "{table}");
    let json: Value = serde_json::from_str(&run(&[&asked[..], &["--output", "json"]].concat())?)?;
    assert_eq!(json["total"], 3, "{json:#}");
    let status: Value = serde_json::from_str(&run(&["status", "-o", "json"])?)?;
    assert_eq!((&status["node"], &status["waitingFor"]), (&json!(here), &json!([])), "{status:#}");

    drop((tunnelled, in_process));
    wait::until("the connections to be gone", || {
        let gone = rows(&lab, &here, "default/curl", "outbound")?.is_empty()
            && rows(&lab, &there, "bookinfo/details-v1", "inbound")?.is_empty();
        Ok(gone.then_some(()))
    })?;
    assert_eq!(lab.metrics()?.sum("istio_tcp_sockets_open", &[]), 0.0);
    assert_eq!(ask(&lab, &here, &[], "/connections?workload=curl")?.status, 400);
    Ok(())
}

#[test]
fn a_waypoint_s_connections_and_its_worker_are_shown() -> Result<()> {
    let mut lab = meshed()?;
    lab.manifests.apply(WAYPOINT)?;
    let namespace = Key::new("Namespace", "", "bookinfo");
    lab.manifests.label(&namespace, &["istio.io/use-waypoint=waypoint"])?;
    let node = node_of(&lab, "curl")?;
    let details = SocketAddr::new(lab.service("bookinfo", "details")?[0], 9080);
    let (connection, rows) = wait::until("a connection at layer 7", || {
        let connection = open(&lab, "curl", details, "/details/0")?;
        let rows = rows(&lab, &node, "default/curl", "outbound")?;
        Ok(rows.iter().any(|row| row["layer"] == 7).then_some((connection, rows)))
    })?;
    let from = Value::from(connection.local_addr()?.to_string());
    let row = rows.iter().find(|row| row["source"]["address"] == from).context("the row")?;
    assert_eq!(
        (&row["transport"], &row["requests"]),
        (&"per_request".into(), &1.into()),
        "{row:#}"
    );
    assert!(row["bytesReceived"].as_u64() > Some(20), "{row:#}");

    // The destination judges each request: that half is a worker's too.
    lab.manifests.apply(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {name: details, namespace: bookinfo}\n\
         spec:\n  targetRefs: [{kind: Service, group: '', name: details}]\n  \
         rules: [{to: [{operation: {methods: [GET]}}]}]\n",
    )?;
    settle(&lab, "curl", &["-X", "DELETE", DETAILS], 403)?;
    let there = node_of(&lab, "details-v1")?;
    let judged = open(&lab, "curl", details, "/details/0")?;
    let rows = self::rows(&lab, &there, "bookinfo/details-v1", "inbound")?;
    // The client's half may send it over the connection that the request before came over.
    let row = rows.iter().find(|row| row["layer"] == 7 && row["requests"].as_u64() >= Some(1));
    let row = row.with_context(|| format!("{rows:#?}"))?;
    assert_eq!(row["transport"], "tunnel", "{row:#}");
    assert_eq!(row["destination"]["service"], "details.bookinfo.svc.cluster.local", "{row:#}");
    drop(judged);

    let metrics = lab.metrics()?;
    let labels = [("namespace", "bookinfo")];
    let of = |name: &str| metrics.sum(name, &labels);
    assert!(of("isthmus_worker_connections") >= 1.0);
    assert!(of("isthmus_worker_buffered_bytes") > 0.0);
    assert!(of("isthmus_worker_buffered_bytes_limit") > of("isthmus_worker_buffered_bytes"));
    Ok(())
}

#[test]
fn the_agents_health_is_in_the_metrics() -> Result<()> {
    let mut lab = meshed()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let metrics = lab.metrics()?;
    let captured = metrics.sum("workload_manager_active_proxy_count", &[]);
    assert!(captured > 5.0);
    assert_eq!(metrics.sum("workload_manager_proxies_started_total", &[]), captured);
    assert_eq!(metrics.sum("workload_manager_proxies_stopped_total", &[]), 0.0);
    assert_eq!(metrics.sum("isthmus_certificates_failing", &[]), 0.0);
    for runtime in ["control", "layer4"] {
        let labels = [("runtime", runtime)];
        let of = |name: &str| metrics.sum(name, &labels);
        assert!(of("tokio_num_workers") >= 2.0, "one at least of each agent");
        assert!(of("tokio_num_alive_tasks") >= 2.0, "{runtime}");
        assert!(of("tokio_worker_total_busy_duration_seconds_total") > 0.0, "{runtime}");
    }
    for role in ["client", "server"] {
        let of = |group: &[(&str, &str)]| {
            let labels = [&[("purpose", "tunnel"), ("role", role)], group].concat();
            metrics.sum("isthmus_tls_handshakes_total", &labels)
        };
        assert!(of(&[]) > 0.0, "as the {role} of a tunnel");
        assert_eq!(of(&[]), of(&[("group", "X25519MLKEM768")]), "all of agents, so all hybrid");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    for series in metrics.find("isthmus_source_last_read_timestamp_seconds", &[]) {
        assert!((now - 60.0..=now).contains(&series.value), "{series:?} at {now}");
    }

    let pod = Key::new("Pod", "bookinfo", "details-v1");
    lab.manifests.label(&pod, &["istio.io/dataplane-mode=none"])?;
    wait::until("the pod to leave", || {
        let stopped = lab.metrics()?.sum("workload_manager_proxies_stopped_total", &[]);
        Ok((stopped == 1.0).then_some(()))
    })
}

#[test]
fn istioctl_can_read_the_dump_of_a_running_agent() -> Result<()> {
    let lab = meshed()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let node = node_of(&lab, "curl")?;
    let details = SocketAddr::new(lab.service("bookinfo", "details")?[0], 9080);
    let connection = open(&lab, "curl", details, "/details/0")?;
    let answer = ask(&lab, &node, &[], "/config_dump")?;
    let dump: Dump = serde_json::from_str(&answer.body)?;

    let pod = dump.workloads.iter().find(|it| it.name == "details-v1").context("details-v1")?;
    assert_eq!((&*pod.protocol, &*pod.status), ("HBONE", "Healthy"));
    assert_eq!(pod.workload_ips[0], lab.address("details-v1")?.to_string());
    let service = dump.services.iter().find(|it| it.name == "details").context("details")?;
    assert!(service.endpoints.values().any(|it| it.workload_uid == pod.uid), "{service:#?}");

    let identity = "spiffe://cluster.local/ns/default/sa/curl";
    let held = dump.certificates.iter().find(|it| it.identity == identity).context(identity)?;
    assert_eq!(held.state, "Available");
    assert_eq!((held.cert_chain.len(), held.root_certs.len()), (1, 1));
    let leaf = &held.cert_chain[0];
    assert!(leaf.serial_number.bytes().all(|it| it.is_ascii_digit()), "{}", leaf.serial_number);
    let time = |text: &str| -> Result<time::OffsetDateTime> {
        let format = &time::format_description::well_known::Rfc3339;
        Ok(time::OffsetDateTime::parse(text, format)?)
    };
    let now = time::OffsetDateTime::now_utc();
    assert!(time(&leaf.valid_from)? <= now && now < time(&leaf.expiration_time)?);

    let uid = dump.workloads.iter().find(|it| it.name == "curl").context("curl")?.uid.clone();
    let state = &dump.workload_state[&uid];
    assert_eq!((&*state.state, &*state.info.service_account), ("Up", "curl"));
    let shown = &state.connections.outbound;
    assert_eq!(shown.len(), 1, "{shown:#?}");
    assert_eq!(shown[0].src, connection.local_addr()?.to_string());
    assert_eq!(shown[0].original_dst, details.to_string());
    assert_eq!(shown[0].protocol, "HBONE");
    Ok(())
}

#[test]
fn a_running_agent_can_be_profiled() -> Result<()> {
    let lab = meshed()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let node = node_of(&lab, "curl")?;
    let namespace = &lab.node(&node)?.namespace;
    let file = lab.logs().join("cpu.pb.gz");
    let mut taking = process::command(namespace, "curl")
        .args(["--silent", "--fail", "--output"])
        .arg(&file)
        .args(["--unix-socket", &socket(&node)])
        .arg("http://agent/debug/pprof/profile?seconds=2&frequency=1000")
        .spawn()?;
    let mut busy = false;
    let status = loop {
        assert_eq!(lab.curl("curl", &[DETAILS])?.status, 200, "traffic goes on meanwhile");
        // Something to do that is not done in system calls, where no samples are taken.
        assert_eq!(ask(&lab, &node, &[], "/config_dump?[1-20]")?.status, 200);
        if !busy {
            busy = ask(&lab, &node, &[], "/debug/pprof/profile?seconds=1")?.status == 409;
        }
        if let Some(status) = taking.try_wait()? {
            break status;
        }
    };
    ensure!(status.success(), "curl: {status}");
    assert!(busy, "one at a time");
    let profile = Profile::read(&file)?;
    assert_eq!(profile.kind(), ("cpu", "nanoseconds"));
    assert!(profile.total() > 0);
    assert!(profile.samples.iter().any(|sample| sample.locations.len() > 3));
    assert!(profile.names_functions(), "{:?}", profile.strings);
    Ok(())
}

#[test]
fn who_leaves_ends_the_profile() -> Result<()> {
    let mut lab = crate::bookinfo()?;
    lab.start_agents("")?;
    let node = node_of(&lab, "curl")?;
    let path = "/debug/pprof/profile?seconds=300";
    let left = ask(&lab, &node, &["--max-time", "0.5"], path)?;
    assert_eq!(left.status, 0, "{}", left.summary());
    wait::until("the next one to have its turn", || {
        let answer = ask(&lab, &node, &[], "/debug/pprof/profile?seconds=1")?;
        ensure!([200, 409].contains(&answer.status), "{}", answer.summary());
        Ok((answer.status == 200).then_some(()))
    })?;
    assert_eq!(ask(&lab, &node, &[], "/debug/pprof/profile?seconds=0")?.status, 400);
    assert_eq!(ask(&lab, &node, &[], "/debug/pprof/threads")?.status, 404);
    Ok(())
}

#[test]
fn the_heap_of_a_running_agent_can_be_recorded() -> Result<()> {
    let lab = meshed()?;
    let node = node_of(&lab, "curl")?;
    let heap = "/debug/pprof/heap";
    assert_eq!(ask(&lab, &node, &[], heap)?.status, 409, "nothing is recorded yet");
    let recording =
        |on| ask(&lab, &node, &["-X", "POST"], &format!("{heap}/profiling?activate={on}"));
    assert_eq!(recording("perhaps")?.status, 400);
    assert_eq!(recording("true")?.status, 200);
    let file = lab.logs().join("heap.pb.gz");
    let output = file.to_string_lossy();
    // Each dump of the configuration takes some memory for a while, so that there is something to record.
    let profile = wait::until("something to be recorded", || {
        assert_eq!(ask(&lab, &node, &[], "/config_dump")?.status, 200);
        let arguments = ["--no-include", "--output", &output];
        let answer = ask(&lab, &node, &arguments, heap)?;
        ensure!(answer.status == 200, "{}", answer.summary());
        let profile = Profile::read(&file)?;
        Ok((!profile.samples.is_empty()).then_some(profile))
    })?;
    assert_eq!(profile.kind(), ("inuse_space", "bytes"));
    assert!(profile.total() > 0);
    assert_eq!(recording("false")?.status, 200);
    assert_eq!(ask(&lab, &node, &[], heap)?.status, 409);
    Ok(())
}

#[test]
fn readiness_counts_the_workloads_that_are_not_captured_and_the_status_names_them() -> Result<()> {
    let mut lab = meshed()?;
    let node = node_of(&lab, "curl")?;
    let namespace = &lab.node(&node)?.namespace.clone();
    let ready = || curl(namespace, &["http://127.0.0.1:15021/healthz/ready"]);
    assert_eq!(ready()?.status, 200);
    lab.manifests.apply(&format!(
        "apiVersion: v1\nkind: Pod\n\
         metadata:\n  name: lost\n  namespace: default\n  \
         annotations: {{isthmus.io/node: {node}, isthmus.io/network-namespace: nowhere}}\n\
         spec: {{containers: [{{name: lost, image: none}}]}}\nstatus: {{podIP: 10.10.1.200}}\n"
    ))?;
    wait::until("the agent to say what it lacks", || {
        let answer = ready()?;
        let says = answer.body.contains("node") && answer.body.contains("1 workloads are pending");
        ensure!(!answer.body.contains("lost"), "everybody can ask: {}", answer.body);
        Ok((answer.status == 503 && says).then_some(()))
    })?;
    let status = get(&lab, &node, "/status")?;
    let rows = status["workloads"].as_array().cloned().unwrap_or_default();
    let lost = rows.iter().find(|row| row["workload"] == "default/lost").context("default/lost")?;
    ensure!(lost["state"].as_str().is_some_and(|it| it.contains("nowhere")), "{lost:#}");
    assert_eq!(lab.curl("curl", &[DETAILS])?.status, 200, "all else goes on");
    lab.manifests.delete(&Key::new("Pod", "default", "lost"))?;
    wait::until("the agent to be ready again", || Ok((ready()?.status == 200).then_some(())))
}

#[test]
fn log_levels_change_in_a_running_agent_and_go_back() -> Result<()> {
    let lab = meshed()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let node = node_of(&lab, "curl")?;
    let set = |query: &str| ask(&lab, &node, &["-X", "POST"], &format!("/logging?{query}"));
    let before = ask(&lab, &node, &[], "/logging")?.body;
    let since = lab.moment()?;
    assert_eq!(
        set("level=access:debug,isthmus::dns=off")?.body,
        "info,access=debug,isthmus::dns=off\n"
    );
    assert_eq!(lab.curl("curl", &[DETAILS])?.status, 200);
    let opened = |since| {
        let lines = lab.lines_since(since);
        lines.iter().filter(|(_, line)| line.contains("connection opened")).count()
    };
    wait::until(
        "a line at the start of the connection",
        || Ok((opened(&since) > 0).then_some(())),
    )?;

    assert_eq!(set("reset")?.body, before);
    let since = lab.moment()?;
    assert_eq!(lab.curl("curl", &[DETAILS])?.status, 200);
    wait::until("the line at the end of the connection", || {
        let lines = lab.lines_since(&since);
        let ended =
            |(of, line): &(String, String)| *of == node && line.contains("connection complete");
        Ok(lines.iter().any(ended).then_some(()))
    })?;
    assert_eq!(opened(&since), 0);
    Ok(())
}

/// The MeshConfig of Istio's root namespace.
fn mesh_config(mesh: &str) -> String {
    let mesh = mesh.replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    {mesh}\n"
    )
}

#[test]
fn mesh_config_gives_the_access_log_its_format_at_once() -> Result<()> {
    let mut lab = meshed()?;
    lab.manifests.apply(WAYPOINT)?;
    let bookinfo = Key::new("Namespace", "", "bookinfo");
    lab.manifests.label(&bookinfo, &["istio.io/use-waypoint=waypoint"])?;
    let logged = |lab: &Lab, wanted: &str| {
        wait::until(&format!("a line {wanted:?}"), || {
            let since = lab.moment()?;
            lab.curl("curl", &[DETAILS, "--user-agent", "teller \"x\""])?;
            std::thread::sleep(Duration::from_millis(50));
            let lines = lab.lines_since(&since);
            Ok(lines.iter().any(|(_, line)| line.contains(wanted)).then_some(()))
        })
    };
    let format = "accessLogFormat: '%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% \"%REQ(USER-AGENT)%\" %REQ(X-NO)%'";
    lab.manifests.apply(&mesh_config(format))?;
    let line = "GET /details/0 200 \"teller \\\"x\\\"\" -";
    logged(&lab, line)?;
    // A text that cannot be read changes nothing.
    let since = lab.moment()?;
    lab.manifests.apply(&mesh_config("accessLogFormat: ["))?;
    wait::until("the complaint", || {
        let lines = lab.lines_since(&since);
        let told = |line: &str| line.contains("data.mesh: its text is not YAML");
        Ok(lines.iter().any(|(_, line)| told(line)).then_some(()))
    })?;
    logged(&lab, line)?;
    lab.manifests.apply(&mesh_config("accessLogEncoding: JSON"))?;
    logged(&lab, "\"response_code\":200,")?;
    lab.manifests.delete(&Key::new("ConfigMap", "istio-system", "istio"))?;
    logged(&lab, "request complete")
}

/// A request of the client, with a header that the filter looks at.
fn ask_details(lab: &Lab, path: &str, status: u16) -> Result<()> {
    let url = format!("http://details.bookinfo:9080/{path}");
    settle(lab, "curl", &["-H", "x-who: me", &url], status)?;
    Ok(())
}

/// How many lines of requests for a path one of the halves has logged.
fn lines_of(lab: &Lab, since: &Moment, path: &str, direction: &str) -> usize {
    let (path, direction) = (format!("path=\"/{path}\""), format!("direction=\"{direction}\""));
    let lines = lab.lines_since(since);
    lines.iter().filter(|(_, line)| line.contains(&path) && line.contains(&direction)).count()
}

/// A filter sees requests as they ended, a namespace decides about its own clients, and disabled metrics are not recorded.
#[test]
fn telemetry_objects_say_which_requests_are_logged_and_counted() -> Result<()> {
    let mut lab = meshed()?;
    lab.manifests.apply(WAYPOINT)?;
    let bookinfo = Key::new("Namespace", "", "bookinfo");
    lab.manifests.label(&bookinfo, &["istio.io/use-waypoint=waypoint"])?;
    wait::until("the waypoint", || {
        let since = lab.moment()?;
        ask_details(&lab, "details/0", 200)?;
        std::thread::sleep(Duration::from_millis(50));
        Ok((lines_of(&lab, &since, "details/0", "outbound") == 1).then_some(()))
    })?;
    lab.manifests.apply(TELEMETRY)?;
    wait::until("only the failed request of the client in the log", || {
        let since = lab.moment()?;
        let sizes = lab.metrics()?.sum("istio_request_bytes_count", &[]);
        ask_details(&lab, "details/0", 200)?;
        ask_details(&lab, "missing", 404)?;
        std::thread::sleep(Duration::from_millis(50));
        let counted = lab.metrics()?.sum("istio_request_bytes_count", &[]) - sizes;
        let failed = lines_of(&lab, &since, "missing", "outbound") == 1;
        let others = lines_of(&lab, &since, "details/0", "outbound");
        Ok((failed && others == 0 && counted == 0.0).then_some(()))
    })?;
    // Clients of another namespace, which has no Telemetry, are logged as before; and other metrics are recorded.
    let since = lab.moment()?;
    let count = lab.metrics()?.sum("istio_requests_total", &[]);
    settle(&lab, "curl", &["http://productpage.bookinfo:9080/productpage"], 200)?;
    wait::until("the line of productpage's request", || {
        Ok((lines_of(&lab, &since, "details/0", "outbound") >= 1).then_some(()))
    })?;
    ensure!(lab.metrics()?.sum("istio_requests_total", &[]) > count);
    Ok(())
}

/// Of the client's namespace.
const TELEMETRY: &str = r#"
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: logs, namespace: default}
spec:
  accessLogging: [{filter: {expression: 'response.code >= 400 && request.headers["x-who"] == "me"'}}]
  metrics: [{overrides: [{match: {metric: REQUEST_SIZE}, disabled: true}]}]
"#;

/// Labels are removed, set and added, of connections without a waypoint and of requests with one; and the log of connections follows
/// Telemetry as that of requests does.
#[test]
fn telemetry_objects_change_labels_and_hold_at_layer_4() -> Result<()> {
    let mut lab = meshed()?;
    lab.manifests.apply(LABELS)?;
    let opened = "istio_tcp_connections_opened_total";
    let labelled = [("to_port", "9080"), ("reporter", "source"), ("source_workload", "curl")];
    wait::until("connections by their port, and no line of the client's", || {
        let since = lab.moment()?;
        let before = lab.metrics()?.sum(opened, &labelled);
        settle(&lab, "curl", &[DETAILS], 200)?;
        wait::until("the server's line", || {
            let lines = lab.lines_since(&since);
            Ok(lines.iter().any(|(_, line)| is_line(line, "inbound")).then_some(()))
        })?;
        let logged = lab.lines_since(&since).iter().any(|(_, line)| is_line(line, "outbound"));
        Ok((lab.metrics()?.sum(opened, &labelled) > before && !logged).then_some(()))
    })?;
    let metrics = lab.metrics()?;
    let series = metrics.find(opened, &labelled).next().context("no series")?;
    ensure!(!series.labels.contains_key("source_principal"), "{series:?}");
    ensure!(metrics.sum("istio_tcp_connections_closed_total", &labelled) == 0.0, "it is disabled");
    // The server's namespace says nothing.
    let server = [("reporter", "destination"), ("source_workload", "curl")];
    ensure!(metrics.find(opened, &server).all(|it| it.labels.contains_key("source_principal")));

    lab.manifests.apply(WAYPOINT)?;
    let bookinfo = Key::new("Namespace", "", "bookinfo");
    lab.manifests.label(&bookinfo, &["istio.io/use-waypoint=waypoint"])?;
    wait::until("requests by what their expressions say", || {
        ask_details(&lab, "details/0", 200)?;
        let labels =
            [("who", "me"), ("code", "2xx"), ("to_port", "9080"), ("reporter", "waypoint")];
        let metrics = lab.metrics()?;
        Ok((metrics.sum("istio_requests_total", &labels) > 0.0).then_some(()))
    })
}

/// Whether it is the last line of a connection.
fn is_line(line: &str, direction: &str) -> bool {
    line.contains("connection complete")
        && line.contains("src.workload=\"curl\"")
        && line.contains(&format!("direction=\"{direction}\""))
}

/// Of the client's namespace.
const LABELS: &str = r#"
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: labels, namespace: default}
spec:
  accessLogging: [{match: {mode: CLIENT}, disabled: true}]
  metrics:
  - overrides:
    - match: {mode: CLIENT}
      tagOverrides:
        source_principal: {operation: REMOVE}
        to_port: {value: 'string(destination.port)'}
    - match: {metric: REQUEST_COUNT, mode: CLIENT}
      tagOverrides:
        who: {value: 'request.headers["x-who"]'}
        code: {value: 'string(response.code / 100) + "xx"'}
    - {match: {metric: TCP_CLOSED_CONNECTIONS, mode: CLIENT}, disabled: true}
"#;
