//! Every field of a rule, and what is told of it.

use super::*;

#[test]
fn every_field_of_load_balancers_is_carried_out_or_named() {
    use serde_json::json;
    let hash = |key: &str| format!("{{loadBalancer: {{consistentHash: {{{key}}}}}}}");
    let cookie = |key: &str, ttl: serde_json::Value| {
        let cookie = json!({"name": "u", "path": "", "ttl": ttl, "attributes": key});
        json!({"Hash": {"Cookie": cookie}})
    };
    let nothing = serde_json::Value::Null;
    let at = |field: &str| format!("loadBalancer.{field}");
    let of_hash = |field: &str| format!("loadBalancer.consistentHash{field}");
    for (policy, expected, told) in [
        ("{loadBalancer: {simple: LEAST_REQUEST}}".to_owned(), json!("LeastRequest"), vec![]),
        ("{loadBalancer: {simple: LEAST_CONN}}".to_owned(), json!("LeastRequest"), vec![]),
        ("{loadBalancer: {simple: UNSPECIFIED}}".to_owned(), nothing.clone(), vec![]),
        ("{loadBalancer: {simple: random}}".to_owned(), nothing.clone(), vec![at("simple")]),
        (
            "{loadBalancer: {warmup: {duration: 10s}, simple: RANDOM}}".to_owned(),
            json!("Random"),
            vec![at("warmup")],
        ),
        (
            "{loadBalancer: {zoneAwareLbSetting: {}}}".to_owned(),
            nothing.clone(),
            vec![at("zoneAwareLbSetting")],
        ),
        (hash("httpHeaderName: X-User"), json!({"Hash": {"Header": "x-user"}}), vec![]),
        (hash("useSourceIp: true, maglev: {}"), json!({"Hash": "SourceIp"}), vec![]),
        (hash("httpQueryParameterName: u, ringHash: {}"), json!({"Hash": {"Query": "u"}}), vec![]),
        (hash("httpCookie: {name: u}"), cookie("", nothing.clone()), vec![]),
        (
            hash("httpCookie: {name: u, ttl: 0s}"),
            cookie("", json!({"secs": 0, "nanos": 0})),
            vec![],
        ),
        (
            hash(
                "httpCookie: {name: u, ttl: 1m, attributes: [{name: Secure}, {name: SameSite, value: Lax}]}",
            ),
            cookie("; Secure; SameSite=Lax", json!({"secs": 60, "nanos": 0})),
            vec![],
        ),
        (
            hash(
                "useSourceIp: true, minimumRingSize: 9, ringHash: {minimumRingSize: 8}, maglev: {tableSize: 7}",
            ),
            json!({"Hash": "SourceIp"}),
            vec![
                of_hash(".maglev.tableSize"),
                of_hash(".minimumRingSize"),
                of_hash(".ringHash.minimumRingSize"),
            ],
        ),
        (hash(""), nothing.clone(), vec![of_hash("")]),
        (
            hash("useSourceIp: true, httpHeaderName: x"),
            json!({"Hash": {"Header": "x"}}),
            vec![of_hash("")],
        ),
        (hash("httpHeaderName: 'a b'"), nothing.clone(), vec![of_hash(".httpHeaderName")]),
        (
            hash("httpCookie: {name: 'a;b', ttl: x}"),
            nothing.clone(),
            vec![of_hash(".httpCookie.name"), of_hash(".httpCookie.ttl")],
        ),
        (
            hash("httpCookie: {name: u, attributes: [{name: \"a;b\\r\\nSet-Cookie\"}]}"),
            cookie("", nothing.clone()),
            vec![of_hash(".httpCookie.attributes")],
        ),
    ] {
        let (policy_of, found) = dumped(&policy);
        assert_eq!(policy_of["balancer"], expected, "{policy}");
        assert_eq!(found, told, "{policy}");
    }
}

#[test]
fn every_field_of_warmup_is_carried_out_or_named() {
    let ten = Duration::from_secs(10);
    let of = |least, aggression| Some(Warmup { duration: ten, least, aggression });
    for (written, expected, told) in [
        // Istio's defaults.
        ("warmup: {duration: 10s}", of(0.1, 1.0), &[][..]),
        ("simple: ROUND_ROBIN, warmup: {duration: 10s, minimumPercent: 50}", of(0.5, 1.0), &[]),
        ("simple: LEAST_REQUEST, warmup: {duration: 10s, aggression: 2.5}", of(0.1, 2.5), &[]),
        ("warmup: {duration: 10s, minimumPercent: 0}", of(0.0, 1.0), &[]),
        ("warmupDurationSecs: 10s", of(0.1, 1.0), &["warmupDurationSecs"]),
        ("warmupDurationSecs: 20s, warmup: {duration: 10s}", of(0.1, 1.0), &["warmupDurationSecs"]),
        ("warmup: {}", None, &["warmup.duration"]),
        ("warmup: {duration: soon}", None, &["warmup.duration"]),
        ("warmup: {duration: 10s, minimumPercent: 101}", of(0.1, 1.0), &["warmup.minimumPercent"]),
        ("warmup: {duration: 10s, aggression: -1}", of(0.1, 1.0), &["warmup.aggression"]),
        ("simple: RANDOM, warmup: {duration: 10s}", None, &["warmup"]),
        (
            "simple: PASSTHROUGH, warmupDurationSecs: 10s",
            None,
            &["warmupDurationSecs", "warmupDurationSecs"],
        ),
        ("consistentHash: {useSourceIp: true}, warmup: {duration: 10s}", None, &["warmup"]),
    ] {
        let (policy, found) = dumped(&format!("{{loadBalancer: {{{written}}}}}"));
        let expected = expected.map(|it| serde_json::to_value(it).unwrap()).unwrap_or_default();
        assert_eq!(policy["warmup"], expected, "{written}");
        let told: Vec<String> = told.iter().map(|it| format!("loadBalancer.{it}")).collect();
        assert_eq!(found, told, "{written}");
    }
}

/// Our own, on a rule with Istio's fields.
#[test]
fn an_annotation_says_peak_ewma_in_place_of_least_request() {
    for (value, policy, expected, told) in [
        ("PEAK_EWMA", "{}", Some("PEAK_EWMA"), 0),
        ("PEAK_EWMA", "{loadBalancer: {simple: LEAST_REQUEST}}", Some("PEAK_EWMA"), 0),
        ("PEAK_EWMA", "{outlierDetection: {}}", Some("PEAK_EWMA"), 0),
        ("PEAK_EWMA", "{loadBalancer: {simple: RANDOM}}", Some("RANDOM"), 0),
        (
            "PEAK_EWMA",
            "{portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: ROUND_ROBIN}}]}",
            Some("ROUND_ROBIN"),
            0,
        ),
        ("fastest", "{loadBalancer: {simple: RANDOM}}", Some("RANDOM"), 1),
    ] {
        let spec = format!("{{host: web, trafficPolicy: {policy}}}");
        let rule = rule("shop", "a", &spec).replace(
            "name: a,",
            &format!("annotations: {{isthmus.io/load-balancer: {value}}}, name: a,"),
        );
        let (traffic, found) = of(&rule);
        assert_eq!(holds(&traffic, "any"), expected, "{value} {policy}");
        assert_eq!(found.len(), told, "{found:?}");
    }
    // It says something by itself.
    let bare = rule("shop", "a", "{host: web}")
        .replace("name: a,", "annotations: {isthmus.io/load-balancer: PEAK_EWMA}, name: a,");
    assert_eq!(holds(&of(&bare).0, "any"), Some("PEAK_EWMA"));
}

#[test]
fn every_field_of_outlier_detection_is_carried_out_or_named() {
    let default = OutlierDetection::default;
    let second = Duration::from_secs(1);
    for (written, expected, told) in [
        ("", Some(default()), &[][..]),
        (
            "consecutive5xxErrors: 7",
            Some(OutlierDetection { consecutive_errors: 7, ..default() }),
            &[],
        ),
        ("consecutive5xxErrors: 0", None, &[]),
        (
            "consecutiveGatewayErrors: 2",
            Some(OutlierDetection { consecutive_gateway_errors: 2, ..default() }),
            &[],
        ),
        (
            "consecutiveErrors: 2",
            Some(OutlierDetection { consecutive_gateway_errors: 2, ..default() }),
            &["consecutiveErrors"],
        ),
        (
            "splitExternalLocalOriginErrors: true",
            Some(OutlierDetection { consecutive_local_failures: Some(5), ..default() }),
            &[],
        ),
        (
            "splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 1",
            Some(OutlierDetection { consecutive_local_failures: Some(1), ..default() }),
            &[],
        ),
        ("consecutiveLocalOriginFailures: 1", Some(default()), &["consecutiveLocalOriginFailures"]),
        (
            "interval: 1s, baseEjectionTime: 1m",
            Some(OutlierDetection {
                interval: second,
                base_ejection_time: 60 * second,
                ..default()
            }),
            &[],
        ),
        (
            "interval: 0s, baseEjectionTime: soon",
            Some(default()),
            &["baseEjectionTime", "interval"],
        ),
        (
            "maxEjectionPercent: 100, minHealthPercent: 50",
            Some(OutlierDetection {
                max_ejection_percent: 100,
                min_health_percent: 50,
                ..default()
            }),
            &[],
        ),
        ("maxEjectionPercent: 0, minHealthPercent: 0", Some(default()), &[]),
        (
            "maxEjectionPercent: 101, minHealthPercent: 102",
            Some(default()),
            &["maxEjectionPercent", "minHealthPercent"],
        ),
        (
            "outlierDetectionHttpErrorCodes: [429, 600]",
            Some(OutlierDetection { codes: vec![429], ..default() }),
            &["outlierDetectionHttpErrorCodes"],
        ),
    ] {
        let (policy, found) = dumped(&format!("{{outlierDetection: {{{written}}}}}"));
        let expected = expected.map(|it| serde_json::to_value(it).unwrap()).unwrap_or_default();
        assert_eq!(policy["outliers"], expected, "{written}");
        let told: Vec<String> = told.iter().map(|it| format!("outlierDetection.{it}")).collect();
        assert_eq!(found, told, "{written}");
    }
}

#[test]
fn every_field_of_connection_pools_is_carried_out_or_named() {
    let second = Duration::from_secs(1);
    let per = |max_requests, idle_timeout| Limits {
        per_connection: PerConnection { max_requests, idle_timeout, ..PerConnection::default() },
        ..Limits::default()
    };
    let keepalive = |keepalive| Limits { keepalive: Some(keepalive), ..Limits::default() };
    let speaks = |http_version| Limits { http_version, ..Limits::default() };
    let http2 = |per_connection| Limits { per_connection, ..Limits::default() };
    let pings = |timeout| {
        let pings = Some(Pings { interval: second, timeout });
        http2(PerConnection { pings, ..PerConnection::default() })
    };
    for (written, expected, told) in [
        (
            "tcp: {maxConnections: 7}",
            Limits { max_connections: Some(7), ..Limits::default() },
            &[][..],
        ),
        ("tcp: {maxConnections: 0}", Limits::default(), &[]),
        (
            "tcp: {connectTimeout: 1s}",
            Limits { connect_timeout: Some(second), ..Limits::default() },
            &[],
        ),
        ("tcp: {connectTimeout: soon}", Limits::default(), &["tcp.connectTimeout"]),
        (
            "tcp: {tcpKeepalive: {probes: 3, time: 1s, interval: 2s}}",
            keepalive(Keepalive {
                probes: Some(3),
                time: Some(second),
                interval: Some(2 * second),
            }),
            &[],
        ),
        ("tcp: {tcpKeepalive: {}}", keepalive(Keepalive::default()), &[]),
        (
            "tcp: {maxConnectionDuration: 1s}",
            Limits {
                max_duration: Some(second),
                per_connection: PerConnection {
                    max_duration: Some(second),
                    ..per(None, None).per_connection
                },
                ..Limits::default()
            },
            &[],
        ),
        ("tcp: {maxConnectionDuration: 0s}", Limits::default(), &["tcp.maxConnectionDuration"]),
        ("tcp: {idleTimeout: 1s}", Limits { idle_timeout: Some(second), ..Limits::default() }, &[]),
        ("tcp: {idleTimeout: 0s}", Limits::default(), &[]),
        (
            "http: {http1MaxPendingRequests: 7}",
            Limits { max_pending_requests: Some(7), ..Limits::default() },
            &[],
        ),
        ("http: {http2MaxRequests: 7}", Limits { max_requests: Some(7), ..Limits::default() }, &[]),
        ("http: {maxRequestsPerConnection: 7}", per(Some(7), None), &[]),
        ("http: {maxRetries: 7}", Limits { max_retries: Some(7), ..Limits::default() }, &[]),
        ("http: {idleTimeout: 1s}", per(None, Some(second)), &[]),
        ("http: {h2UpgradePolicy: UPGRADE}", speaks(HttpVersion::Http2), &[]),
        ("http: {h2UpgradePolicy: DO_NOT_UPGRADE}", Limits::default(), &[]),
        ("http: {h2UpgradePolicy: DEFAULT}", Limits::default(), &[]),
        ("http: {h2UpgradePolicy: MAYBE}", Limits::default(), &["http.h2UpgradePolicy"]),
        ("http: {useClientProtocol: true}", speaks(HttpVersion::OfClient), &[]),
        (
            "http: {useClientProtocol: true, h2UpgradePolicy: UPGRADE}",
            speaks(HttpVersion::OfClient),
            &[],
        ),
        ("http: {useClientProtocol: false}", Limits::default(), &[]),
        (
            "http: {maxConcurrentStreams: 7}",
            http2(PerConnection { max_streams: Some(7), ..PerConnection::default() }),
            &[],
        ),
        ("http: {http2KeepAlive: {interval: 1s, timeout: 2s}}", pings(2 * second), &[]),
        ("http: {http2KeepAlive: {interval: 1s}}", pings(20 * second), &[]),
        ("http: {http2KeepAlive: {timeout: 1s}}", Limits::default(), &[]),
    ] {
        let (policy, found) = dumped(&format!("{{connectionPool: {{{written}}}}}"));
        let expected = Some(expected).filter(|limits| *limits != Limits::default());
        let expected = expected.map(|it| serde_json::to_value(it).unwrap()).unwrap_or_default();
        assert_eq!(policy["limits"], expected, "{written}");
        let told: Vec<String> = told.iter().map(|it| format!("connectionPool.{it}")).collect();
        assert_eq!(found, told, "{written}");
    }
}

#[test]
fn what_is_not_carried_out_is_named() {
    for (policy, told) in [
        ("{tunnel: {}}", &["tunnel"][..]),
        ("{portLevelSettings: [{}]}", &["portLevelSettings[0].port.number"]),
        (
            "{portLevelSettings: [{port: {number: 80}}, {port: {number: 80}}]}",
            &["portLevelSettings[1].port.number"],
        ),
    ] {
        assert_eq!(dumped(policy).1, told, "{policy}");
    }
}

/// What cannot be read is not in force, and says which field is wrong; what it wants encrypted is refused all the same.
#[test]
fn a_spec_that_breaks_the_type_is_not_in_force() {
    for (spec, field, encrypted) in [
        (
            "{host: web, trafficPolicy: {loadBalancer: {simple: RANDOM}, outlier: {}}}",
            "spec.trafficPolicy.outlier",
            false,
        ),
        (
            "{host: web, trafficPolicy: {outlierDetection: {interval: 5}}}",
            "spec.trafficPolicy.outlierDetection.interval",
            false,
        ),
        ("{host: web, trafficPolicy: {tls: {mode: SIMPLE}}, unknown: 1}", "spec.unknown", true),
        ("{trafficPolicy: {}}", "spec", false),
    ] {
        let translation = translated(&format!("{SERVICE}{}", rule("shop", "a", spec)));
        let errors = translation.complaints.iter().filter(|it| it.severity == Severity::Error);
        let errors: Vec<_> = errors.map(|it| it.field.as_str()).collect();
        assert!(errors.contains(&field), "{spec}: {errors:?}");
        let web = &translation.mesh.services[0];
        assert!(web.traffic.is_empty());
        assert_eq!(!web.encryption.is_empty(), encrypted, "{spec}");
    }
}

#[test]
fn a_proxy_protocol_holds_for_all_ports() {
    use serde_json::json;
    for (written, expected, told) in [
        ("{proxyProtocol: {}}", json!("V1"), &[][..]),
        ("{proxyProtocol: {version: V1}}", json!("V1"), &[]),
        ("{proxyProtocol: {version: V2}}", json!("V2"), &[]),
        ("{proxyProtocol: {version: V3}}", json!(null), &["proxyProtocol.version"]),
        (
            "{proxyProtocol: {version: V2}, portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}",
            json!("V2"),
            &[],
        ),
    ] {
        let (policy, found) = dumped(written);
        assert_eq!(policy["limits"]["proxy_protocol"], expected, "{written}");
        assert_eq!(found, told, "{written}");
    }
}
