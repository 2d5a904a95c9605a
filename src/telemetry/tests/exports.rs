//! Records of the access log for collectors, and tags of spans with a format.

use std::collections::BTreeMap;

use crate::trace::{Kind, Protocol, Provider, Rate, Receiver, Traced, Tracing, Value};

use super::*;

fn sink(body: &str, attributes: Option<&str>) -> Arc<RecordSink> {
    let provider = Provider {
        name: "otel".into(),
        host: "192.0.2.1".into(),
        namespace: None,
        tenant: None,
        port: 4317,
        protocol: Protocol::Grpc,
        timeout: Provider::TIMEOUT,
        headers: Vec::new(),
    };
    let json = |text| Arc::new(AccessFormat::json(Some(text)).expect("a format"));
    Arc::new(RecordSink {
        provider: Arc::new(provider),
        name: "a-log".into(),
        body: Arc::new(AccessFormat::text(Some(body)).expect("a format")),
        attributes: attributes.map(json),
    })
}

fn access(access: AccessRules) -> Arc<Rules> {
    Arc::new(Rules { access: Some(Arc::new(access)), ..Rules::default() })
}

/// A lab whose records somebody takes.
fn lab() -> (Lab, Receiver<Box<LogRecord>>) {
    let lab = Lab::new("info", LogFormat::Text);
    let receiver = lab.telemetry.records().receiver().expect("the first one");
    (lab, receiver)
}

fn call(lab: &Lab, start: RequestStart, rules: &Arc<Rules>) {
    let mut record = lab.telemetry.request(start);
    record.follow(rules);
    let headers = [(http::header::USER_AGENT, http::HeaderValue::from_static("curl/8"))];
    record.headers(&headers.into_iter().collect());
    record.response(http::StatusCode::OK);
    record.response_bytes(7);
}

fn texts(attributes: &[crate::trace::Attribute]) -> BTreeMap<&str, String> {
    let text = |value: &Value| match value {
        Value::Text(text) => text.to_string(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|it| (it.name.as_str(), text(&it.value))).collect()
}

#[test]
fn a_record_has_the_formats_values() {
    let (lab, mut records) = lab();
    let fields = r#"{"agent": "%REQ(USER-AGENT)%", "no": "%REQ(X-NO)%", "bytes": "%BYTES_SENT%", "deep": {"a": "%PROTOCOL%"}}"#;
    let sinks = vec![sink("%REQ(:PATH)% %RESPONSE_CODE%", Some(fields)), sink("second", None)];
    let rules = access(AccessRules { exports: sinks, ..AccessRules::default() });
    call(&lab, request("/a"), &rules);
    let record = records.try_recv().expect("a record");
    assert_eq!((record.body.as_str(), record.failed), ("/a 200", false));
    let attributes = texts(&record.attributes);
    let expected =
        [("agent", "curl/8"), ("bytes", "7"), ("deep", r#"{"a":"HTTP/1.1"}"#), ("no", "-")];
    assert_eq!(attributes, expected.map(|(name, text)| (name, text.to_owned())).into());
    let resource = texts(&record.resource);
    assert_eq!(resource["service.name"], "curl.bookinfo", "the client's, whose half it is");
    assert_eq!(resource["log_name"], "a-log");
    assert_eq!(records.try_recv().expect("the other sink's").body, "second");
    assert_eq!(lab.log().lines().count(), 1, "and the agent's log");
}

/// One record a request, no line where only collectors are named, and none of what the rules leave out.
#[test]
fn records_follow_the_rules_of_the_log() {
    let only = |text: &str| {
        Some(Arc::new(crate::expression::Expression::parse(text).expect("an expression")))
    };
    let exports = || vec![sink("x", None)];
    for (rules, start, count, lines) in [
        (AccessRules { only_exports: true, ..AccessRules::default() }, request("/a"), 1, 0),
        (AccessRules { disabled: true, ..AccessRules::default() }, request("/a"), 0, 0),
        (
            AccessRules { only: only("response.code == 500"), ..AccessRules::default() },
            request("/a"),
            0,
            0,
        ),
        (
            AccessRules { only: only("response.code == 200"), ..AccessRules::default() },
            request("/a"),
            1,
            1,
        ),
        (AccessRules::default(), RequestStart { count: false, ..request("/a") }, 0, 1),
    ] {
        let (lab, mut records) = lab();
        call(&lab, start, &access(AccessRules { exports: exports(), ..rules.clone() }));
        let got = std::iter::from_fn(|| records.try_recv().ok()).count();
        assert_eq!((got, lab.log().lines().count()), (count, lines), "{rules:?}");
    }
}

#[test]
fn connections_have_records_too() {
    let (lab, mut records) = lab();
    let format = "%BYTES_RECEIVED% %BYTES_SENT% %RESPONSE_FLAGS% %UPSTREAM_HOST% %REQ(:PATH)% %DOWNSTREAM_PEER_URI_SAN%";
    let rules = AccessRules {
        exports: vec![sink(format, None)],
        only_exports: true,
        ..AccessRules::default()
    };
    let start = ConnectionStart { rules: Some(access(rules)), ..connection(Reporter::Destination) };
    let record = lab.telemetry.connection(start.clone());
    record.sent(10);
    record.received(5);
    drop(record);
    lab.telemetry.refused(start, Reason::Denied, "no policy allows it");
    let record = records.try_recv().expect("a record");
    let client = "spiffe://cluster.local/ns/bookinfo/sa/curl";
    assert_eq!(record.body, format!("10 5 - 10.0.0.2:9080 - {client}"));
    assert_eq!(texts(&record.resource)["service.name"], "reviews.bookinfo");
    let refused = records.try_recv().expect("one of the refused connection");
    assert!(refused.failed && refused.body.starts_with("0 0 DENY "), "{}", refused.body);
    assert_eq!(lab.log().lines().count(), 0);
}

/// What clients choose makes a record no longer than its bound.
#[test]
fn records_are_bounded_and_counted_when_there_is_no_room() {
    let (lab, mut records) = lab();
    let many = (0..200).map(|it| format!("\"{it}\":\"%REQ(:PATH)%\"")).collect::<Vec<_>>();
    let fields = format!("{{{}}}", many.join(","));
    let exports = vec![sink(&"%REQ(:PATH)%".repeat(200), Some(&fields))];
    let rules = access(AccessRules { exports, ..AccessRules::default() });
    call(&lab, request(&"/x".repeat(5_000)), &rules);
    let record = records.try_recv().expect("a record");
    let attributes: usize = texts(&record.attributes).values().map(String::len).sum();
    assert!(record.body.len() < 12 * 1024, "{} bytes", record.body.len());
    assert!(attributes < 12 * 1024, "{attributes} bytes");
    let rules = access(AccessRules { exports: vec![sink("x", None)], ..AccessRules::default() });
    for _ in 0..3_000 {
        call(&lab, request("/a"), &rules);
    }
    assert_eq!(lab.telemetry.record_metrics().queue.get(), 3_000 - 1_024, "half of the queue");
}

#[test]
fn a_tag_of_a_span_has_a_format() {
    let lab = Lab::new("off", LogFormat::Text);
    let mut spans = lab.telemetry.spans().receiver().expect("the first one");
    let tag = |name: &str, format: &str| {
        let format = Arc::new(AccessFormat::text(Some(format)).expect("a format"));
        SpanTag { name: name.into(), format }
    };
    let tags = vec![tag("both", "%REQ(USER-AGENT)%/%RESPONSE_CODE%"), tag("none", "%REQ(X-NO)%")];
    let rules = Arc::new(Rules { span_tags: tags, ..Rules::default() });
    let tracing = Tracing { rate: Rate::of_percentage(100.0), ..Tracing::default() };
    let Traced::Recorded(span) = Arc::new(tracing).begin(Kind::Client, &http::HeaderMap::new())
    else {
        panic!("not recorded")
    };
    let mut record = lab.telemetry.request(request("/a"));
    record.follow(&rules);
    record.trace(span);
    let headers = [(http::header::USER_AGENT, http::HeaderValue::from_static("curl/8"))];
    record.headers(&headers.into_iter().collect());
    record.response(http::StatusCode::OK);
    drop(record);
    let span = spans.try_recv().expect("a span");
    let attributes = texts(&span.attributes);
    assert_eq!((attributes["both"].as_str(), attributes["none"].as_str()), ("curl/8/200", "-"));
}
