use std::time::Duration;

use crate::source::Severity;
use crate::source::tests::translated;
use crate::traffic::{
    Balancer, HttpVersion, Keepalive, Limits, OutlierDetection, PerConnection, Pings, Traffic,
    Warmup,
};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}, {name: admin, port: 81}]}
---
";

fn rule(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {spec}\n---\n"
    )
}

fn of(rules: &str) -> (Traffic, Vec<(Severity, String)>) {
    let translation = translated(&format!("{SERVICE}{rules}"));
    let of_rules = translation.complaints.iter().filter(|it| it.kind == "DestinationRule");
    let told = of_rules.map(|it| (it.severity, it.field.clone())).collect();
    (translation.mesh.services[0].traffic.clone(), told)
}

/// The balancer for a client of a namespace, by whose rule holds.
fn holds(traffic: &Traffic, namespace: &str) -> Option<&'static str> {
    Some(match traffic.of_client(namespace, &[], 80)?.balancer()? {
        Balancer::Random => "RANDOM",
        Balancer::RoundRobin => "ROUND_ROBIN",
        Balancer::LeastRequest => "LEAST_REQUEST",
        Balancer::Passthrough => "PASSTHROUGH",
        Balancer::PeakEwma => "PEAK_EWMA",
        Balancer::Hash(_) => "hash",
    })
}

fn simple(host: &str, how: &str, more: &str) -> String {
    format!("{{host: {host}, trafficPolicy: {{loadBalancer: {{simple: {how}}}}}{more}}}")
}

#[test]
fn the_clients_namespace_then_the_services_then_the_root() {
    let exact = "web.shop.svc.cluster.local";
    let own = rule("shop", "own", &simple("web", "RANDOM", ""));
    let root = rule("istio-system", "root", &simple("'*.local'", "ROUND_ROBIN", ""));
    let clients = rule("clients", "theirs", &simple(exact, "PASSTHROUGH", ""));
    let hidden = rule("shop", "own", &simple("web", "RANDOM", ", exportTo: ['.']"));
    let given = rule("shop", "own", &simple("web", "RANDOM", ", exportTo: ['.', a]"));
    let nobody = rule("shop", "own", &simple("web", "RANDOM", ", exportTo: ['~']"));
    let elsewhere = rule("clients", "theirs", &simple(exact, "PASSTHROUGH", ", exportTo: [shop]"));
    let short = rule("clients", "theirs", &simple("web", "PASSTHROUGH", ""));
    for (rules, expected) in [
        (vec![&own], [Some("RANDOM"), Some("RANDOM"), Some("RANDOM")]),
        (vec![&root], [Some("ROUND_ROBIN"), Some("ROUND_ROBIN"), Some("ROUND_ROBIN")]),
        (vec![&own, &root], [Some("RANDOM"), Some("RANDOM"), Some("RANDOM")]),
        (vec![&own, &root, &clients], [Some("RANDOM"), Some("PASSTHROUGH"), Some("RANDOM")]),
        (vec![&clients], [None, Some("PASSTHROUGH"), None]),
        (vec![&hidden, &root], [Some("RANDOM"), Some("ROUND_ROBIN"), Some("ROUND_ROBIN")]),
        (vec![&given, &root], [Some("RANDOM"), Some("ROUND_ROBIN"), Some("RANDOM")]),
        (vec![&nobody], [None, None, None]),
        // Exported away from its own clients, and another service's short name.
        (vec![&elsewhere], [None, None, None]),
        (vec![&short], [None, None, None]),
    ] {
        let text: String = rules.iter().map(|it| it.as_str()).collect();
        let (traffic, told) = of(&text);
        let found = ["shop", "clients", "a"].map(|namespace| holds(&traffic, namespace));
        assert_eq!(found, expected, "{text}");
        assert!(told.is_empty(), "{told:?}");
    }
}

#[test]
fn the_most_specific_host_then_the_oldest_rule_holds() {
    let rules = [
        rule("shop", "b", &simple("'*.cluster.local'", "RANDOM", "")),
        rule("shop", "c", &simple("'*.shop.svc.cluster.local'", "ROUND_ROBIN", "")),
    ];
    assert_eq!(holds(&of(&rules.concat()).0, "shop"), Some("ROUND_ROBIN"));
    let rules = [rules.concat(), rule("shop", "a", &simple("web", "PASSTHROUGH", ""))];
    assert_eq!(holds(&of(&rules.concat()).0, "shop"), Some("PASSTHROUGH"));
    let later = rule("shop", "z", &simple("WEB.shop.svc.cluster.local.", "RANDOM", ""));
    let (traffic, told) = of(&[rules.concat(), later].concat());
    assert_eq!(holds(&traffic, "shop"), Some("PASSTHROUGH"));
    assert_eq!(told, [(Severity::Warning, String::new())], "it conflicts");
}

#[test]
fn a_port_with_settings_of_its_own_inherits_none() {
    let policy = "loadBalancer: {simple: RANDOM}, outlierDetection: {}";
    let ports = "portLevelSettings: [{port: {number: 81}, loadBalancer: {simple: ROUND_ROBIN}}]";
    let (traffic, told) =
        of(&rule("shop", "a", &format!("{{host: web, trafficPolicy: {{{policy}, {ports}}}}}")));
    assert!(told.is_empty(), "{told:?}");
    let on = |port| traffic.of_client("any", &[], port).unwrap();
    assert_eq!((on(80).balancer(), on(80).listens()), (Some(&Balancer::Random), true));
    assert_eq!((on(81).balancer(), on(81).listens()), (Some(&Balancer::RoundRobin), false));
}

/// The policy as it is dumped; `null` where nothing holds.
fn dumped(policy: &str) -> (serde_json::Value, Vec<String>) {
    let (traffic, told) =
        of(&rule("shop", "a", &format!("{{host: web, trafficPolicy: {policy}}}")));
    let dumped = traffic.of_client("any", &[], 80).map(|it| serde_json::to_value(it).unwrap());
    let told =
        told.into_iter().map(|(_, field)| field.replace("spec.trafficPolicy.", "")).collect();
    (dumped.unwrap_or_default()["policy"].clone(), told)
}

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

/// The policy of a subset on a port, as it is dumped.
fn of_subset(spec: &str, subset: &str, port: u16) -> serde_json::Value {
    let (traffic, told) = of(&rule("shop", "a", spec));
    assert!(told.is_empty(), "{told:?}");
    let found = traffic.subsets_of("any", &[])[subset].on(port);
    let dumped = found.map(|it| serde_json::to_value(it).unwrap()["policy"].take());
    dumped.unwrap_or_default()
}

/// As Istio merges them (`MergeSubsetTrafficPolicy`): field by field, each as a whole, and settings of a port inherit nothing.
#[test]
fn a_subsets_policy_replaces_the_rules_field_by_field() {
    let spec = |subset: &str| {
        format!(
            "{{host: web, trafficPolicy: {{loadBalancer: {{simple: RANDOM}}, connectionPool: {{tcp: {{maxConnections: 7}}}}, \
             portLevelSettings: [{{port: {{number: 81}}, loadBalancer: {{simple: PASSTHROUGH}}}}]}}, \
             subsets: [{{name: v1, labels: {{version: v1}}, trafficPolicy: {subset}}}]}}"
        )
    };
    let found = |subset: &str, port: u16| {
        let policy = of_subset(&spec(subset), "v1", port);
        (policy["balancer"].clone(), policy["limits"]["max_connections"].clone())
    };
    let none = serde_json::Value::Null;
    let some = |text: &str| serde_json::Value::from(text);
    let many = |number: u32| serde_json::Value::from(number);
    for (subset, port, expected) in [
        ("{}", 80, (some("Random"), many(7))),
        ("{}", 81, (some("Passthrough"), none.clone())),
        ("{loadBalancer: {simple: ROUND_ROBIN}}", 80, (some("RoundRobin"), many(7))),
        ("{loadBalancer: {simple: ROUND_ROBIN}}", 81, (some("RoundRobin"), none.clone())),
        ("{connectionPool: {tcp: {connectTimeout: 1s}}}", 80, (some("Random"), none.clone())),
        ("{connectionPool: {}}", 80, (some("Random"), none.clone())),
        (
            "{portLevelSettings: [{port: {number: 80}, connectionPool: {tcp: {maxConnections: 3}}}]}",
            80,
            (none.clone(), many(3)),
        ),
    ] {
        assert_eq!(found(subset, port), expected, "{subset} {port}");
    }
}

#[test]
fn subsets_of_rules_with_the_same_host_are_merged() {
    let one = |subset: &str, more: &str| {
        format!("{{host: web, subsets: [{{name: {subset}, labels: {{version: {subset}}}}}]{more}}}")
    };
    let random = ", trafficPolicy: {loadBalancer: {simple: RANDOM}}";
    let named = |rules: &[(&str, String)]| {
        let rules: Vec<String> =
            rules.iter().map(|(name, spec)| rule("shop", name, spec)).collect();
        let (traffic, told) = of(&rules.concat());
        let names: Vec<String> =
            traffic.subsets_of("any", &[]).keys().map(ToString::to_string).collect();
        let fields: Vec<String> = told.into_iter().map(|(_, field)| field).collect();
        (names.join(" "), holds(&traffic, "any"), fields.join(" "))
    };
    for (rules, expected) in [
        (vec![("a", one("v1", "")), ("b", one("v2", ""))], ("v1 v2", None, "")),
        (vec![("a", one("v1", "")), ("b", one("v2", random))], ("v1 v2", Some("RANDOM"), "")),
        (
            vec![("a", simple("web", "PASSTHROUGH", "")), ("b", one("v2", random))],
            ("v2", Some("PASSTHROUGH"), "spec.trafficPolicy"),
        ),
        (vec![("a", one("v1", "")), ("b", one("v1", ""))], ("v1", None, "spec.subsets")),
        (vec![("a", one("v1", "")), ("b", one("v2", ", exportTo: ['.']"))], ("v1", None, "")),
    ] {
        let (names, holds, fields) = named(&rules);
        assert_eq!((&*names, holds, &*fields), expected, "{rules:?}");
    }
}

#[test]
fn a_subset_has_a_name_of_its_own_and_there_are_not_too_many() {
    let named = |names: &[&str]| {
        let subsets: Vec<String> = names.iter().map(|name| format!("{{name: '{name}'}}")).collect();
        let (traffic, told) =
            of(&rule("shop", "a", &format!("{{host: web, subsets: [{}]}}", subsets.join(", "))));
        let fields: Vec<String> = told.into_iter().map(|(_, field)| field).collect();
        (traffic.subsets_of("any", &[]).len(), fields.join(" "))
    };
    assert_eq!(
        named(&["a", "b", "a", ""]),
        (2, "spec.subsets[2].name spec.subsets[3].name".into())
    );
    let many: Vec<String> = (0..200).map(|number| format!("v{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(named(&many), (128, "spec.subsets[128]".into()));
}

fn mesh_config(text: &str) -> String {
    let indented = text.replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    {indented}\n---\n"
    )
}

/// Istio's table (`applyDefaultTrafficPolicy`): each block for itself, replaced as a whole.
#[test]
fn the_default_of_the_mesh_holds_block_by_block() {
    let both = "defaultTrafficPolicy:\n  connectionPool: {tcp: {maxConnections: 100}}\n  \
                outlierDetection: {consecutive5xxErrors: 50}";
    let pool = "defaultTrafficPolicy: {connectionPool: {tcp: {maxConnections: 100}}}";
    const OF_MESH: &str = "defaultTrafficPolicy of MeshConfig";
    const OF_RULE: &str = "DestinationRule shop/own";
    let (own_pool, own_outliers) = (
        "connectionPool: {tcp: {maxConnections: 7}}",
        "outlierDetection: {consecutive5xxErrors: 9}",
    );
    for (mesh, policy, connections, errors, by) in [
        ("enableTracing: false", "", None, None, None),
        (both, "", Some(100), Some(50), Some(OF_MESH)),
        (both, "loadBalancer: {simple: RANDOM}", Some(100), Some(50), Some(OF_MESH)),
        (both, own_pool, Some(7), Some(50), Some(OF_RULE)),
        (both, own_outliers, Some(100), Some(9), Some(OF_MESH)),
        (both, &format!("{own_pool}, {own_outliers}"), Some(7), Some(9), Some(OF_RULE)),
        (pool, own_outliers, Some(100), Some(9), Some(OF_MESH)),
        // A block that asks for nothing replaces as well.
        (both, "connectionPool: {http: {maxRetries: 0}}", None, Some(50), Some(OF_RULE)),
        (pool, "connectionPool: {http: {maxRetries: 0}}", None, None, None),
        (both, "outlierDetection: {consecutive5xxErrors: 0}", Some(100), None, Some(OF_MESH)),
        // Settings of a port inherit nothing of their rule, but what the mesh says.
        (
            both,
            &format!("{own_pool}, portLevelSettings: [{{port: {{number: 80}}, {own_outliers}}}]"),
            Some(100),
            Some(9),
            Some(OF_MESH),
        ),
    ] {
        let rule = match policy {
            "" => String::new(),
            policy => rule("shop", "own", &format!("{{host: web, trafficPolicy: {{{policy}}}}}")),
        };
        let text = format!("{SERVICE}{rule}{}", mesh_config(mesh));
        let translation = translated(&text);
        let ours = |it: &&crate::source::Complaint| it.kind != "Service";
        assert_eq!(translation.complaints.iter().find(ours), None, "{text}");
        let traffic = &translation.mesh.services[0].traffic;
        let held = serde_json::to_value(traffic.of_client("anyone", &[], 80)).unwrap();
        let found = |path: &str| held.pointer(path).cloned();
        let expected = |number: Option<u32>| number.map(serde_json::Value::from);
        assert_eq!(found("/policy/limits/max_connections"), expected(connections), "{text}");
        assert_eq!(found("/policy/outliers/consecutive_errors"), expected(errors), "{text}");
        assert_eq!(found("/policy/by"), by.map(serde_json::Value::from), "{text}");
    }
}

#[test]
fn mistakes_in_the_default_of_the_mesh_are_told() {
    for (written, expected) in [
        (
            "{outlierDetection: {interval: soon}}",
            "data.mesh, defaultTrafficPolicy.outlierDetection.interval",
        ),
        ("{outlierDetection: {intervall: 1s}}", "data.mesh, defaultTrafficPolicy.outlierDetection"),
        ("{tls: {mode: SIMPLE}}", "data.mesh, defaultTrafficPolicy"),
        ("nothing", "data.mesh, defaultTrafficPolicy"),
    ] {
        let text = format!("{SERVICE}{}", mesh_config(&format!("defaultTrafficPolicy: {written}")));
        let mut complaints = translated(&text).complaints;
        complaints.retain(|it| it.kind != "Service");
        let [complaint] = &complaints[..] else { panic!("{complaints:#?}") };
        assert!(complaint.field.starts_with(expected), "{complaint:?}");
        assert_eq!(complaint.kind, "ConfigMap");
    }
}

#[test]
fn rules_without_export_to_go_as_far_as_the_mesh_says() {
    let rule = |more: &str| rule("shop", "own", &simple("web", "RANDOM", more));
    for (default, more, others) in [
        ("['.']", "", None),
        ("['*']", "", Some("RANDOM")),
        ("[a]", "", Some("RANDOM")),
        ("['~']", "", None),
        ("['.']", ", exportTo: ['*']", Some("RANDOM")),
    ] {
        let mesh = mesh_config(&format!("defaultDestinationRuleExportTo: {default}"));
        let (traffic, told) = of(&format!("{}{mesh}", rule(more)));
        assert_eq!(holds(&traffic, "a"), others, "{default} {more}");
        assert!(told.is_empty(), "{told:?}");
    }
}

mod bounds;
mod places;
mod selecting;
