mod exports;
mod tags;

use std::io::{self, Write};
use std::time::Duration;

use parking_lot::Mutex;

use super::*;

/// What the log has written.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Lab {
    telemetry: Telemetry,
    logs: Arc<Logs>,
    output: Output,
}

impl Lab {
    fn new(levels: &str, format: LogFormat) -> Self {
        let output = Output::default();
        let logs = Logs::new(Box::new(output.clone()), levels, format).expect("a thread");
        Self { telemetry: Telemetry::new(logs.clone()), logs, output }
    }

    fn log(&self) -> String {
        self.logs.flush(Duration::from_secs(10));
        String::from_utf8(self.output.0.lock().clone()).expect("UTF-8")
    }

    /// The value of the only series of a metric.
    fn value(&self, name: &str) -> String {
        let lines = self.series(name);
        assert_eq!(lines.len(), 1, "{name}: {lines:?}");
        lines[0].rsplit_once(' ').expect("a value").1.to_owned()
    }

    fn series(&self, name: &str) -> Vec<String> {
        let scraped = self.telemetry.scrape().expect("metrics");
        let prefix = format!("{name}{{");
        scraped.lines().filter(|line| line.starts_with(&prefix)).map(str::to_owned).collect()
    }
}

fn peer(name: &str) -> Peer {
    Peer {
        workload: format!("{name}-v1").into(),
        name: format!("{name}-v1-abc").into(),
        namespace: "bookinfo".into(),
        principal: format!("spiffe://cluster.local/ns/bookinfo/sa/{name}").into(),
        canonical_service: name.into(),
        canonical_revision: "v1".into(),
        app: name.into(),
        version: "v1".into(),
        cluster: "Kubernetes".into(),
    }
}

fn service() -> ServiceLabels {
    ServiceLabels {
        host: "reviews.bookinfo.svc.cluster.local".into(),
        name: "reviews".into(),
        namespace: "bookinfo".into(),
    }
}

fn connection(reporter: Reporter) -> ConnectionStart {
    ConnectionStart {
        reporter,
        source: peer("curl"),
        destination: peer("reviews"),
        service: service(),
        mutual_tls: true,
        source_address: ([10, 0, 0, 1], 40_000).into(),
        destination_address: ([10, 0, 0, 2], 15_008).into(),
        dialled: ([10, 96, 0, 2], 9_080).into(),
        hbone_authority: Some(([10, 0, 0, 2], 9_080).into()),
        server_name: None,
        waypoint_principal: Some("spiffe://cluster.local/ns/bookinfo/sa/waypoint".into()),
        policy: None,
        notes: Vec::new(),
        in_process: false,
        rules: None,
    }
}

fn request(path: &str) -> RequestStart {
    RequestStart {
        count: true,
        outbound: true,
        source: Arc::new(peer("curl")),
        service: Arc::new(service()),
        mutual_tls: true,
        source_address: ([10, 0, 0, 1], 40_000).into(),
        method: http::Method::GET,
        path: path.into(),
        authority: "reviews:9080".into(),
        protocol: "HTTP/1.1",
        grpc: false,
        waypoint_principal: None,
        policy: None,
        connection: None,
    }
}

/// A record that is neither counted nor logged anywhere.
pub(super) fn request_record() -> RequestRecord {
    Telemetry::without_log().request(request("/details"))
}

#[test]
fn bytes_are_counted_live_and_istio_s_way_round() {
    for reporter in [Reporter::Source, Reporter::Destination] {
        let lab = Lab::new("info", LogFormat::Text);
        let record = lab.telemetry.connection(connection(reporter));
        record.sent(10);
        record.sent(5);
        record.received(7);
        assert_eq!(lab.value("istio_tcp_received_bytes_total"), "15", "while it is open");
        assert_eq!(lab.value("istio_tcp_sent_bytes_total"), "7");
        assert_eq!(lab.value("istio_tcp_connections_opened_total"), "1");
        assert_eq!(lab.value("istio_tcp_connections_closed_total"), "0");
        drop(record);
        assert_eq!(lab.value("istio_tcp_connections_closed_total"), "1");
        let (own, direction) = match reporter {
            Reporter::Source => ("bytes_sent=15 bytes_recv=7 ", "direction=\"outbound\""),
            _ => ("bytes_sent=7 bytes_recv=15 ", "direction=\"inbound\""),
        };
        let log = lab.log();
        assert!(log.contains(own) && log.contains(direction), "{log}");
    }
}

#[test]
fn labels_are_complete_and_unknown_when_absent() {
    let lab = Lab::new("off", LogFormat::Text);
    drop(lab.telemetry.connection(connection(Reporter::Destination)));
    let unknown = ConnectionStart {
        source: Peer::default(),
        service: ServiceLabels::default(),
        mutual_tls: false,
        ..connection(Reporter::Destination)
    };
    drop(lab.telemetry.connection(unknown));
    let mut series = lab.series("istio_tcp_connections_opened_total");
    series.sort();
    insta::assert_snapshot!(series.join("\n").replace(',', ",\n  "), @r#"
    istio_tcp_connections_opened_total{reporter="destination",
      source_workload="curl-v1",
      source_workload_namespace="bookinfo",
      source_principal="spiffe://cluster.local/ns/bookinfo/sa/curl",
      source_canonical_service="curl",
      source_canonical_revision="v1",
      source_app="curl",
      source_version="v1",
      source_cluster="Kubernetes",
      destination_service="reviews.bookinfo.svc.cluster.local",
      destination_service_namespace="bookinfo",
      destination_service_name="reviews",
      destination_workload="reviews-v1",
      destination_workload_namespace="bookinfo",
      destination_principal="spiffe://cluster.local/ns/bookinfo/sa/reviews",
      destination_canonical_service="reviews",
      destination_canonical_revision="v1",
      destination_app="reviews",
      destination_version="v1",
      destination_cluster="Kubernetes",
      request_protocol="tcp",
      response_flags="-",
      connection_security_policy="mutual_tls"} 1
    istio_tcp_connections_opened_total{reporter="destination",
      source_workload="unknown",
      source_workload_namespace="unknown",
      source_principal="unknown",
      source_canonical_service="unknown",
      source_canonical_revision="unknown",
      source_app="unknown",
      source_version="unknown",
      source_cluster="unknown",
      destination_service="unknown",
      destination_service_namespace="unknown",
      destination_service_name="unknown",
      destination_workload="reviews-v1",
      destination_workload_namespace="bookinfo",
      destination_principal="spiffe://cluster.local/ns/bookinfo/sa/reviews",
      destination_canonical_service="reviews",
      destination_canonical_revision="v1",
      destination_app="reviews",
      destination_version="v1",
      destination_cluster="Kubernetes",
      request_protocol="tcp",
      response_flags="-",
      connection_security_policy="unknown"} 1
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_connection_line_has_ztunnel_s_fields_in_ztunnel_s_order() {
    let lab = Lab::new("info", LogFormat::Text);
    let mut record = lab.telemetry.connection(connection(Reporter::Source));
    record.fail(Reason::PeerReset, "connection reset by peer".to_owned());
    record.fail(Reason::Timeout, "a later cause".to_owned());
    drop(record);
    let log = lab.log();
    let (_, rest) = log.split_once('\t').expect("a time");
    let fields = rest.replace(' ', "\n");
    insta::assert_snapshot!(fields.replace('\t', "\n"), @r#"
    error
    access
    connection
    complete
    src.addr=10.0.0.1:40000
    src.workload="curl-v1-abc"
    src.namespace="bookinfo"
    src.identity="spiffe://cluster.local/ns/bookinfo/sa/curl"
    src.cluster="Kubernetes"
    dst.addr=10.0.0.2:15008
    dst.hbone_addr=10.0.0.2:9080
    dst.service="reviews.bookinfo.svc.cluster.local"
    dst.workload="reviews-v1-abc"
    dst.namespace="bookinfo"
    dst.identity="spiffe://cluster.local/ns/bookinfo/sa/reviews"
    dst.cluster="Kubernetes"
    waypoint.identity="spiffe://cluster.local/ns/bookinfo/sa/waypoint"
    direction="outbound"
    bytes_sent=0
    bytes_recv=0
    duration="0ms"
    response_flags="UC"
    error="connection
    reset
    by
    peer"
    "#);
    assert_eq!(lab.value("istio_tcp_connections_failed_total"), "1");
    assert!(lab.series("istio_tcp_connections_failed_total")[0].contains("response_flags=\"UC\""));
}

#[tokio::test(start_paused = true)]
async fn a_line_of_json_has_the_same_keys_in_the_same_order() {
    let lab = Lab::new("info", LogFormat::Json);
    let mut record = lab.telemetry.connection(connection(Reporter::Source));
    record.fail(Reason::PeerReset, "connection reset by peer".to_owned());
    drop(record);
    let line: serde_json::Value = serde_json::from_str(&lab.log()).expect("one JSON object");
    let keys: Vec<&str> = line.as_object().expect("an object").keys().map(String::as_str).collect();
    let ztunnel = [
        "time",
        "level",
        "scope",
        "message",
        "src.addr",
        "src.workload",
        "src.namespace",
        "src.identity",
        "src.cluster",
        "dst.addr",
        "dst.hbone_addr",
        "dst.service",
        "dst.workload",
        "dst.namespace",
        "dst.identity",
        "dst.cluster",
        "direction",
        "bytes_sent",
        "bytes_recv",
        "duration",
        "error",
    ];
    let ours = ["waypoint.identity", "response_flags"];
    let shared: Vec<&str> = keys.iter().copied().filter(|key| !ours.contains(key)).collect();
    assert_eq!(shared, ztunnel);
    assert_eq!(line["duration"], "0ms");
    assert_eq!((&line["scope"], &line["bytes_sent"]), (&"access".into(), &0.into()));
}

#[test]
fn a_refusal_is_counted_and_logged_once() {
    let lab = Lab::new("info", LogFormat::Text);
    lab.telemetry.refused(connection(Reporter::Destination), Reason::Denied, "policy a/b");
    assert_eq!(lab.value("istio_tcp_connections_failed_total"), "1");
    assert!(lab.series("istio_tcp_connections_opened_total").is_empty());
    let log = lab.log();
    assert_eq!(log.lines().count(), 1);
    assert!(log.contains("\twarn\taccess\tconnection failed\t"), "{log}");
    assert!(log.ends_with("response_flags=\"DENY\" error=\"policy a/b\"\n"), "{log}");
}

#[test]
fn a_request_is_counted_once_with_its_histograms() {
    let lab = Lab::new("off", LogFormat::Json);
    for _ in 0..2 {
        let mut record = lab.telemetry.request(request("/reviews/0"));
        record.destination(Arc::new(peer("reviews")), ([10, 0, 0, 2], 9_080).into());
        record.response(http::StatusCode::OK);
        record.response_bytes(30);
        record.response_bytes(30);
    }
    assert_eq!(lab.value("istio_requests_total"), "2");
    assert_eq!(lab.value("istio_response_bytes_sum"), "120.0");
    let buckets = lab.series("istio_response_bytes_bucket");
    assert_eq!(buckets.len(), 20);
    assert!(
        buckets.iter().any(|it| it.contains("le=\"50.0\"") && it.ends_with(" 0")),
        "{buckets:?}"
    );
    assert!(buckets.iter().any(|it| it.contains("le=\"100.0\"") && it.ends_with(" 2")));
    assert!(buckets.iter().any(|it| it.contains("le=\"+Inf\"") && it.ends_with(" 2")));
    let series = &lab.series("istio_requests_total")[0];
    for label in [
        "reporter=\"waypoint\"",
        "request_protocol=\"http\"",
        "response_code=\"200\"",
        "grpc_response_status=\"\"",
        "response_flags=\"-\"",
        "destination_workload=\"reviews-v1\"",
    ] {
        assert!(series.contains(label), "{label}: {series}");
    }
}

#[test]
fn the_half_that_does_not_count_logs() {
    let lab = Lab::new("info", LogFormat::Json);
    drop(lab.telemetry.request(RequestStart { count: false, ..request("/") }));
    assert!(lab.series("istio_requests_total").is_empty());
    assert_eq!(lab.log().lines().count(), 1);
}

#[test]
fn the_format_of_mesh_config_holds_at_once_and_one_half_writes() {
    let lab = Lab::new("info", LogFormat::Json);
    let format =
        AccessFormat::text(Some("%REQ(:METHOD)% %REQ(X-A)% %RESPONSE_CODE%")).expect("valid");
    lab.telemetry.set_access_format(Some(Arc::new(format)));
    drop(lab.telemetry.request(RequestStart { count: false, ..request("/") }));
    let mut record = lab.telemetry.request(request("/"));
    let headers = http::HeaderMap::from_iter([(
        http::HeaderName::from_static("x-a"),
        http::HeaderValue::from_static("b"),
    )]);
    record.headers(&headers);
    record.response(http::StatusCode::OK);
    drop(record);
    drop(lab.telemetry.request(request("/")));
    assert_eq!(lab.log(), "GET b 200\nGET - 0\n");
    lab.telemetry.set_access_format(None);
    drop(lab.telemetry.request(request("/")));
    assert!(lab.log().lines().last().is_some_and(|line| line.contains("request complete")));
}

#[test]
fn a_request_line_has_envoy_s_keys() {
    let lab = Lab::new("info", LogFormat::Json);
    let mut record = lab.telemetry.request(request("/reviews/0?x=1"));
    let mut headers = http::HeaderMap::new();
    headers.insert("user-agent", http::HeaderValue::from_static("curl/8"));
    headers.insert("x-request-id", http::HeaderValue::from_bytes(b"a\xff\"b").expect("a value"));
    record.headers(&headers);
    record.destination(Arc::new(peer("reviews")), ([10, 0, 0, 2], 9_080).into());
    record.route("bookinfo/reviews".into());
    record.response(http::StatusCode::FORBIDDEN);
    record.fail(Reason::Denied, "no rule of bookinfo/viewer allows it".to_owned());
    drop(record);
    let line: serde_json::Value = serde_json::from_str(&lab.log()).expect("one JSON object");
    let keys: Vec<&str> = line.as_object().expect("an object").keys().map(String::as_str).collect();
    insta::assert_snapshot!(keys.join(" "), @"time level scope message start_time method path protocol response_code response_flags response_code_details bytes_received bytes_sent duration user_agent request_id authority upstream_host downstream_remote_address route_name src.workload src.namespace src.identity dst.service dst.workload dst.namespace direction");
    assert_eq!(line["path"], "/reviews/0?x=1");
    assert_eq!(line["response_code"], 403);
    assert_eq!(line["response_code_details"], "no rule of bookinfo/viewer allows it");
    assert_eq!(line["request_id"], "a\u{fffd}\"b");
}

#[test]
fn values_that_peers_choose_are_few_series_and_short_lines() {
    let lab = Lab::new("info", LogFormat::Json);
    let long = "x".repeat(100_000);
    for status in 0..2_000 {
        let mut record = lab.telemetry.request(request(&long));
        record.response(http::StatusCode::from_u16(100 + status % 900).expect("a code"));
        record.grpc_status(u32::from(status) * 7919);
        let value = http::HeaderValue::from_str(&long).expect("a value");
        record.headers(&[(http::header::USER_AGENT, value)].into_iter().collect());
    }
    let series = lab.series("istio_requests_total");
    assert!(series.len() < 200, "{}", series.len());
    let values: Vec<u64> = series
        .iter()
        .filter_map(|line| line.rsplit_once(' ').and_then(|(_, value)| value.parse().ok()))
        .collect();
    assert_eq!(values.iter().sum::<u64>(), 2_000, "each is counted");
    assert!(series.iter().any(|line| line.contains("grpc_response_status=\"other\"")));
    let log = lab.log();
    let line: serde_json::Value =
        serde_json::from_str(log.lines().next().expect("a line")).expect("JSON");
    for key in ["path", "user_agent"] {
        let shown = line[key].as_str().expect("a text");
        assert!(shown.len() < MAX_FIELD + 4 && shown.ends_with("x…"), "{key}: {shown}");
    }
}

#[test]
fn a_tenant_s_labels_do_not_take_another_s_place() {
    let limits = SeriesLimits { total: 100, namespace: 40 };
    let telemetry = Telemetry::with_limits(Logs::discard(), limits);
    let call = |client: &str, server: &str, number: usize| {
        let mut start = connection(Reporter::Destination);
        start.source.namespace = client.into();
        start.destination.namespace = server.into();
        start.source.version = format!("v{number}").into();
        drop(telemetry.connection(start));
    };
    (0..1_000).for_each(|number| call("evil", "shop", number));
    (0..20).for_each(|number| call("web", "shop", number % 5));
    let scraped = telemetry.scrape().expect("metrics");
    let opened = |of: &str| {
        let name = "istio_tcp_connections_opened_total{";
        let lines = scraped.lines().filter(|it| it.starts_with(name) && it.contains(of));
        let values = lines.filter_map(|it| it.rsplit_once(' ')?.1.parse::<u64>().ok());
        values.collect::<Vec<_>>()
    };
    let evil = opened("source_workload_namespace=\"evil\"");
    assert_eq!(
        (evil.len(), evil.iter().sum::<u64>()),
        (11, 1_000),
        "a quarter, and the rest in one"
    );
    assert_eq!(opened("source_workload_namespace=\"web\""), [4; 5]);
    assert!(scraped.contains("\nisthmus_metrics_folded_total 990\n"), "{scraped}");
}

#[test]
fn levels_hold_for_the_access_log_and_can_be_changed() {
    let lab = Lab::new("info,access=off", LogFormat::Text);
    let once = || drop(lab.telemetry.connection(connection(Reporter::Source)));
    once();
    assert_eq!(lab.log(), "");
    lab.logs.add_levels("error,access:info").expect("ztunnel's way to write it");
    once();
    assert_eq!(lab.log().lines().count(), 1);
    assert_eq!(lab.logs.levels(), "error,access=info");
    lab.logs.add_levels("debug").expect("a level");
    once();
    assert_eq!(lab.log().lines().count(), 2, "the access log keeps its own level");
    lab.logs.add_levels("access=debug,isthmus::l4:trace").expect("levels");
    once();
    assert_eq!(lab.log().lines().count(), 4, "at debug the start of a connection is logged too");
    assert_eq!(lab.logs.levels(), "debug,access=debug,isthmus::l4=trace");
    assert!(lab.logs.add_levels("isthmus::l4=loud").is_err());
    assert_eq!(lab.logs.levels(), "debug,access=debug,isthmus::l4=trace", "all or nothing");
    lab.logs.reset_levels(Some("isthmus::l7=debug")).expect("levels");
    assert_eq!(lab.logs.levels(), "info,access=off,isthmus::l7=debug");
    lab.logs.reset_levels(None).expect("no levels");
    assert_eq!(lab.logs.levels(), "info,access=off");
    for bad in ["", "loud", "info,", "access=", "=info", "info,a b=debug", "3"] {
        assert!(check_levels(bad).is_err(), "{bad}");
    }
}

#[test]
fn events_of_tracing_are_lines_of_the_same_log() {
    let lab = Lab::new("info,isthmus::quiet=warn", LogFormat::Json);
    tracing::subscriber::with_default(log::subscriber(lab.logs.clone()), || {
        tracing::info!(target: "isthmus::node", workload = "a\nb", count = 3, "captured");
        tracing::info!(target: "isthmus::quiet", "not this");
        tracing::debug!("nor this");
    });
    let line: serde_json::Value = serde_json::from_str(&lab.log()).expect("one JSON object");
    assert_eq!(line["message"], "captured");
    assert_eq!(line["workload"], "a\nb");
    assert_eq!(line["count"], 3);
    assert_eq!((&line["level"], &line["scope"]), (&"info".into(), &"isthmus::node".into()));
}

#[test]
fn a_label_cannot_forge_a_series() {
    let lab = Lab::new("off", LogFormat::Text);
    let mut start = connection(Reporter::Destination);
    start.service.host = "a\"} 1\nistio_requests_total{x=\"\\".into();
    drop(lab.telemetry.connection(start));
    assert_eq!(lab.value("istio_tcp_connections_opened_total"), "1");
    assert!(lab.series("istio_requests_total").is_empty());
}

#[test]
fn metrics_of_the_agent_are_there_from_the_start() {
    let lab = Lab::new("off", LogFormat::Text);
    lab.telemetry.agent().active_workloads.set(3);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let handle = runtime.handle().clone();
    lab.telemetry.watch_runtimes("control", &[handle.clone(), handle]);
    let worker = |namespace: &str, requests| WorkerHealth {
        namespace: namespace.to_owned(),
        requests,
        ..WorkerHealth::default()
    };
    lab.telemetry.health().workers(&[worker("gone", 1)]);
    lab.telemetry.health().workers(&[worker("shop", 7)]);
    let scraped = lab.telemetry.scrape().expect("metrics");
    assert!(!scraped.contains("gone"), "a worker that has ended is shown no more");
    for line in [
        "workload_manager_active_proxy_count 3",
        "isthmus_log_lines_dropped_total 0",
        "istio_build{component=\"isthmus\"",
        "process_open_fds ",
        "process_max_fds ",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
        "istio_tcp_sockets_open{reporter=\"source\"} 0",
        "isthmus_worker_requests{namespace=\"shop\"} 7",
        "isthmus_log_lines_waiting 0",
        "tokio_num_workers{runtime=\"control\"} 2",
        "tokio_worker_total_busy_duration_seconds_total{runtime=\"control\",worker=\"1\"} ",
    ] {
        assert!(scraped.lines().any(|it| it.starts_with(line)), "{line}: {scraped}");
    }
    assert!(scraped.ends_with("# EOF\n"));
}

#[test]
fn a_panic_is_a_line_in_the_log_and_counted() {
    let lab = Lab::new("info", LogFormat::Text);
    let before = panics::panics();
    report_panics();
    let caught = tracing::subscriber::with_default(log::subscriber(lab.logs.clone()), || {
        std::panic::catch_unwind(|| panic!("provoked by test {}", 1))
    });
    // Other tests want the standard one.
    drop(std::panic::take_hook());
    assert_eq!(crate::base::panic_text(&*caught.unwrap_err()), "provoked by test 1");
    let text = lab.log();
    assert!(text.contains("provoked by test 1"), "{text}");
    assert!(text.contains("src/telemetry/tests.rs:"), "{text}");
    assert!(panics::panics() > before);
    let scraped = lab.telemetry.scrape().expect("metrics");
    assert!(scraped.lines().any(|line| line.starts_with("isthmus_panics_total ")), "{scraped}");
}
