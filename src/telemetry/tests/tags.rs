//! Labels that Telemetry objects change.

use crate::expression::Expression;

use super::*;

/// Removes a label, or sets it to an expression's value.
fn changes(rows: &[(&str, Option<&str>)]) -> TagChanges {
    let value = |text: &str| Arc::new(Expression::parse(text).expect("an expression"));
    rows.iter().map(|(name, text)| (Str::from(*name), text.map(value))).collect()
}

/// Rules that change labels of these metrics.
fn rules(metrics: &[Metric], rows: &[(&str, Option<&str>)]) -> Arc<Rules> {
    let changes = changes(rows);
    let of = |set: MetricSet| {
        let metrics = metrics.iter().filter(|metric| set.has(**metric));
        TagRules::of(metrics.map(|metric| (*metric, &changes)))
    };
    Arc::new(Rules {
        request_tags: of(MetricSet::REQUESTS),
        connection_tags: of(MetricSet::CONNECTIONS),
        ..Rules::default()
    })
}

fn call(lab: &Lab, start: RequestStart, rules: Option<&Arc<Rules>>) {
    let mut record = lab.telemetry.request(start);
    if let Some(rules) = rules {
        record.follow(rules);
    }
    let headers = [("x-user", "jason")].map(|(name, value)| {
        (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
    });
    record.headers(&headers.into_iter().collect());
    record.request_bytes(10);
    record.response(http::StatusCode::OK);
}

fn lab() -> Lab {
    Lab::new("off", LogFormat::Text)
}

#[test]
fn labels_are_removed_set_and_added() {
    let lab = lab();
    let rules = rules(
        &Metric::ALL,
        &[
            ("source_principal", None),
            ("request_protocol", Some("request.protocol")),
            ("user", Some("request.headers['x-user']")),
            ("missing", Some("response.headers['x-no']")),
            ("size", Some("string(request.size) + '/' + request.url_path")),
        ],
    );
    call(&lab, request("/details?a=b"), Some(&rules));
    let series = lab.series("istio_requests_total");
    assert_eq!(series.len(), 1);
    for part in [
        "request_protocol=\"HTTP/1.1\"",
        "missing=\"unknown\",size=\"10//details\",user=\"jason\"} 1",
        "source_workload=\"curl-v1\"",
    ] {
        assert!(series[0].contains(part), "{part}: {series:?}");
    }
    assert!(!series[0].contains("source_principal"), "{series:?}");
    assert_eq!(lab.series("istio_request_bytes_sum").len(), 1);
    assert!(lab.series("istio_request_bytes_sum")[0].contains("user=\"jason\"} 10.0"));
}

/// A metric that another one's changes do not concern keeps its labels, and has no series for them.
#[test]
fn a_metric_alone_has_other_labels() {
    let lab = lab();
    let rules = rules(&[Metric::RequestCount], &[("path", Some("request.path"))]);
    call(&lab, request("/a"), Some(&rules));
    call(&lab, request("/b"), Some(&rules));
    let all = lab.series("istio_requests_total");
    let counted: Vec<_> = all.iter().filter(|line| line.contains("path=\"/")).collect();
    assert_eq!(counted.len(), 2, "{all:?}");
    assert_eq!(all.iter().filter(|line| line.ends_with("} 1")).count(), 2, "{all:?}");
    let durations = lab.series("istio_request_duration_milliseconds_count");
    assert_eq!(durations.len(), 1, "{durations:?}");
    assert!(durations[0].ends_with(" 2") && !durations[0].contains("path="), "{durations:?}");
}

/// Scrapers reject two series with the same labels.
#[test]
fn the_same_labels_are_one_series_however_they_came_about() {
    let lab = lab();
    let set = rules(
        &Metric::ALL,
        &[
            ("source_app", Some("'curl'")),
            ("source_version", Some("'unknown'")),
            ("request_protocol", Some("'http'")),
            ("response_code", Some("string(response.code)")),
            ("response_flags", Some("'-'")),
            ("grpc_response_status", Some("''")),
            ("connection_security_policy", Some("'mutual_tls'")),
            ("reporter", Some("'waypoint'")),
        ],
    );
    let unversioned = || {
        let mut start = request("/");
        Arc::make_mut(&mut start.source).version = Str::new();
        start
    };
    call(&lab, RequestStart { grpc: true, ..request("/") }, Some(&set));
    call(&lab, unversioned(), None);
    assert_eq!(lab.value("istio_requests_total"), "2");
    // A value that the label never has otherwise.
    let class =
        rules(&Metric::ALL, &[("response_code", Some("string(response.code / 100) + 'xx'"))]);
    call(&lab, unversioned(), Some(&class));
    let odd = rules(&Metric::ALL, &[("response_code", Some("'fine'"))]);
    call(&lab, unversioned(), Some(&odd));
    let series = lab.series("istio_requests_total");
    for (code, count) in [("200", 2), ("2xx", 1), ("fine", 1)] {
        let part = format!("response_code=\"{code}\"");
        let one = series.iter().find(|line| line.contains(&part)).expect(code);
        assert!(one.ends_with(&format!(" {count}")), "{one}");
    }
}

/// The client's Telemetry takes room of the client's namespace; what finds none is counted with the usual labels.
#[test]
fn values_of_clients_take_room_of_their_own_namespace() {
    let telemetry =
        Telemetry::with_limits(Logs::discard(), SeriesLimits { total: 1_000, namespace: 40 });
    let lab = Lab { telemetry, ..lab() };
    let rules = rules(&[Metric::RequestCount], &[("path", Some("request.path"))]);
    let from = |namespace: &str| {
        let mut start = request("/");
        Arc::make_mut(&mut start.source).namespace = namespace.into();
        start
    };
    for number in 0..100 {
        let path = format!("/{number}").into();
        call(&lab, RequestStart { path, ..from("evil") }, Some(&rules));
    }
    let series = lab.series("istio_requests_total");
    let sum: u64 =
        series.iter().map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum();
    assert_eq!(sum, 100, "none is lost");
    let of_paths = series.iter().filter(|line| line.contains("path=\"/")).count();
    assert_eq!(of_paths, 10, "a quarter of the namespace's");
    // Others have all of theirs.
    for number in 0..10 {
        let app = Str::from(format!("app-{number}"));
        let mut start = from("bookinfo");
        Arc::make_mut(&mut start.source).app = app;
        call(&lab, start, None);
    }
    let series = lab.series("istio_requests_total");
    assert_eq!(series.iter().filter(|line| line.contains("source_app=\"app-")).count(), 10);
}

/// A series takes no more memory than others, however many labels it is to have.
#[test]
fn labels_that_are_too_long_together_are_counted_with_the_usual_ones() {
    let lab = lab();
    let names: Vec<String> = (0..32).map(|it| format!("l{it}")).collect();
    let rows: Vec<_> = names.iter().map(|name| (name.as_str(), Some("request.path"))).collect();
    let rules = rules(&Metric::ALL, &rows);
    for (path, tagged) in [("/a".to_owned(), 1), ("/x".repeat(200), 1)] {
        call(&lab, request(&path), Some(&rules));
        let series = lab.series("istio_requests_total");
        let longest = series.iter().map(String::len).max().expect("a series");
        assert!(longest < 4 * 1024, "{longest} bytes");
        assert_eq!(series.iter().filter(|line| line.contains("l0=")).count(), tagged, "{path}");
    }
    assert!(lab.telemetry.scrape().expect("metrics").contains("isthmus_metrics_folded_total 1"));
}

#[test]
fn connections_have_labels_and_disabled_metrics_too() {
    let lab = lab();
    let tags = rules(
        &Metric::ALL,
        &[
            ("source_principal", None),
            ("destination_port", Some("string(destination.port)")),
            ("host", Some("request.host")),
            ("pod", Some("filter_state.upstream_peer.name")),
        ],
    );
    let rules = Rules {
        disabled: MetricSet::NONE.with(Metric::TcpOpenedConnections),
        ..Rules::clone(&tags)
    };
    let start = ConnectionStart { rules: Some(Arc::new(rules)), ..connection(Reporter::Source) };
    let record = lab.telemetry.connection(start);
    record.sent(10);
    drop(record);
    assert_eq!(lab.series("istio_tcp_connections_opened_total"), [""; 0]);
    let received = lab.series("istio_tcp_received_bytes_total");
    assert_eq!(received.len(), 1);
    assert!(
        received[0]
            .ends_with("destination_port=\"9080\",host=\"unknown\",pod=\"reviews-v1-abc\"} 10"),
        "{received:?}"
    );
    assert!(!received[0].contains("source_principal"), "{received:?}");
    assert_eq!(lab.value("istio_tcp_connections_closed_total"), "1");
}

#[test]
fn connections_are_logged_as_telemetry_says() {
    for (access, lines) in [
        (AccessRules::default(), 2),
        (AccessRules { disabled: true, ..AccessRules::default() }, 0),
        (only("request.size > 5"), 1),
        (only("source.port == 40000 && connection.mtls && destination.port == 9080"), 2),
        (only("connection.uri_san_peer_certificate.endsWith('/sa/other')"), 0),
        (only("connection.tls_version == 'TLSv1.3'"), 2),
        (only("connection.uri_san_local_certificate.endsWith('/sa/nobody')"), 0),
        (only("response.code_details.contains('policy')"), 1),
        (only("filter_state.downstream_peer.namespace != 'bookinfo'"), 0),
        // It says nothing of connections.
        (only("response.code >= 400"), 2),
    ] {
        let lab = Lab::new("info", LogFormat::Text);
        let rules = Rules { access: Some(Arc::new(access.clone())), ..Rules::default() };
        let start =
            ConnectionStart { rules: Some(Arc::new(rules)), ..connection(Reporter::Source) };
        lab.telemetry.refused(start.clone(), Reason::Denied, "no policy allows it");
        let record = lab.telemetry.connection(start);
        record.sent(10);
        drop(record);
        assert_eq!(lab.log().lines().count(), lines, "{access:?}");
    }
}

fn only(text: &str) -> AccessRules {
    let only = Some(Arc::new(Expression::parse(text).expect("an expression")));
    AccessRules { only, ..AccessRules::default() }
}
