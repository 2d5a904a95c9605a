//! What DestinationRules and BackendTLSPolicies make of the connections to a service, field by field.

use crate::model::Demand;
use crate::source::tests::translated_with;
use crate::source::{TranslateSettings, Translation};
use crate::tls::{Material, Roots, SubjectName};

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
    spec: {selector: {app: web}, clusterIP: 10.96.0.9, ports: [{name: http, port: 80}, {name: more, port: 81}]}\n";

fn rule(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

fn policy(name: &str, second: u8, spec: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
         metadata: {{name: {name}, namespace: shop, creationTimestamp: \"2026-01-01T00:00:{second:02}Z\"}}\nspec: {spec}\n"
    )
}

fn translation(text: &str) -> Translation {
    let settings =
        TranslateSettings { tls_directory: Some("/tls".into()), ..TranslateSettings::default() };
    translated_with(&format!("{SERVICE}{text}"), &settings)
}

/// What holds for clients of a namespace on a port, in short.
fn holds(translation: &Translation, namespace: &str, port: u16) -> String {
    holds_of(translation, namespace, port, None)
}

/// The same of connections to a subset.
fn holds_of(translation: &Translation, namespace: &str, port: u16, subset: Option<&str>) -> String {
    let web = &translation.mesh.services[0];
    match web.encryption.on(namespace, port, subset) {
        None => "nothing".into(),
        Some((wish, Demand::Tls(origin))) => {
            let sni = origin.settings().sni.as_deref().unwrap_or("-");
            format!("{} {sni}", wish.by.rsplit('/').next().unwrap())
        }
        Some((_, Demand::Plaintext)) => "plaintext".into(),
        Some((_, Demand::Mesh)) => "mesh".into(),
        Some((_, Demand::Impossible(why))) => format!("refused: {why}"),
        Some((_, Demand::Nothing)) => unreachable!("it is skipped"),
    }
}

const WEB: &str = "host: web.shop.svc.cluster.local";

fn simple(sni: &str) -> String {
    format!("{{{WEB}, trafficPolicy: {{tls: {{mode: SIMPLE, sni: {sni}}}}}}}")
}

const SYSTEM: &str = "validation: {wellKnownCACertificates: System, hostname: backend.example}";
const TARGET: &str = "targetRefs: [{group: '', kind: Service, name: web}]";

#[test]
fn the_nearest_rule_that_speaks_of_tls_holds_and_policies_fill_the_gaps() {
    let policy = policy("policy", 0, &format!("{{{TARGET}, {SYSTEM}}}"));
    let own = |spec: &str| rule("client", "own", spec);
    let service = rule("shop", "service", &simple("service.example"));
    let root = rule("istio-system", "root", &simple("root.example"));
    let silent = format!("{{{WEB}, trafficPolicy: {{loadBalancer: {{simple: RANDOM}}}}}}");
    let disable = format!("{{{WEB}, trafficPolicy: {{tls: {{mode: DISABLE}}}}}}");
    let selecting =
        |spec: &str| spec.replacen('{', "{workloadSelector: {matchLabels: {app: a}}, ", 1);
    let narrow = format!(
        "{{{WEB}, exportTo: [client], trafficPolicy: {{tls: {{mode: SIMPLE, sni: narrow.example}}}}}}"
    );
    let port = format!(
        "{{{WEB}, trafficPolicy: {{tls: {{mode: SIMPLE, sni: rest.example}}, portLevelSettings: [{{port: {{number: 81}}, \
         tls: {{mode: SIMPLE, sni: port.example}}}}]}}}}"
    );
    for (text, client, other, second_port) in [
        (String::new(), "nothing", "nothing", "nothing"),
        (
            service.clone(),
            "service service.example",
            "service service.example",
            "service service.example",
        ),
        (root.clone(), "root root.example", "root root.example", "root root.example"),
        (
            root.clone() + &service,
            "service service.example",
            "service service.example",
            "service service.example",
        ),
        (own(&simple("own.example")), "own own.example", "nothing", "own own.example"),
        (
            own(&simple("own.example")) + &service,
            "own own.example",
            "service service.example",
            "own own.example",
        ),
        // A rule that a client does not see takes the root namespace's from nobody.
        (
            root.clone() + &rule("shop", "narrow", &narrow),
            "narrow narrow.example",
            "root root.example",
            "narrow narrow.example",
        ),
        (
            root.clone() + &rule("shop", "own", &silent.replacen('{', "{exportTo: [client], ", 1)),
            "nothing",
            "root root.example",
            "nothing",
        ),
        (root.clone() + &rule("shop", "own", &silent), "nothing", "nothing", "nothing"),
        // One for selected workloads neither.
        (
            root.clone() + &rule("shop", "own", &selecting(&silent)),
            "root root.example",
            "root root.example",
            "root root.example",
        ),
        (
            rule("client", "a", &selecting(&disable))
                + &own(&simple("own.example").replace(WEB, "host: '*.local'")),
            "own own.example",
            "nothing",
            "own own.example",
        ),
        (
            own(&selecting(&simple("own.example"))) + &service,
            "refused: the rule has a workloadSelector",
            "service service.example",
            "refused: the rule has a workloadSelector",
        ),
        // A nearer rule that says nothing of TLS lifts nothing, one that says DISABLE does, for its own clients.
        (
            own(&silent) + &service,
            "service service.example",
            "service service.example",
            "service service.example",
        ),
        (own(&disable) + &service, "plaintext", "service service.example", "plaintext"),
        (
            rule("shop", "narrow", &narrow),
            "narrow narrow.example",
            "nothing",
            "narrow narrow.example",
        ),
        (
            rule("shop", "port", &port),
            "port rest.example",
            "port rest.example",
            "port port.example",
        ),
        (
            policy.clone(),
            "policy backend.example",
            "policy backend.example",
            "policy backend.example",
        ),
        (
            policy.clone() + &service,
            "service service.example",
            "service service.example",
            "service service.example",
        ),
        (policy.clone() + &own(&disable), "plaintext", "policy backend.example", "plaintext"),
        (
            policy + &rule("shop", "silent", &silent),
            "policy backend.example",
            "policy backend.example",
            "policy backend.example",
        ),
    ] {
        let translation = translation(&text);
        assert_eq!(holds(&translation, "client", 80), client, "{text}");
        assert_eq!(holds(&translation, "other", 80), other, "{text}");
        assert_eq!(holds(&translation, "client", 81), second_port, "{text}");
    }
}

#[test]
fn each_field_of_tls_settings_is_carried_out_or_refuses() {
    let file = |path: &str| Material::File(path.into());
    let read = |tls: &str| {
        let spec = format!("{{{WEB}, trafficPolicy: {{tls: {tls}}}}}");
        let translation = translation(&rule("shop", "web", &spec));
        let web = &translation.mesh.services[0];
        let fields: Vec<_> = translation.complaints.iter().map(|it| it.field.clone()).collect();
        (web.encryption.on("shop", 80, None).map(|(_, demand)| demand.clone()), fields)
    };
    let settings = |tls: &str| match read(tls) {
        (Some(Demand::Tls(origin)), _) => origin.settings().clone(),
        (other, complaints) => panic!("{tls}: {other:?} {complaints:?}"),
    };
    let bare = settings("{mode: SIMPLE}");
    assert_eq!((bare.sni, bare.names.len(), bare.roots), (None, 0, Roots::System));
    let names = settings("{mode: SIMPLE, subjectAltNames: [a.example, 'spiffe://a']}").names;
    assert_eq!(names, ["a.example", "spiffe://a"].map(|name| SubjectName::Any(name.into())));
    assert_eq!(settings("{mode: SIMPLE, caCertificates: system}").roots, Roots::System);
    let roots = settings("{mode: SIMPLE, caCertificates: /etc/ca.pem}").roots;
    assert_eq!(roots, Roots::Of(vec![file("/tls/shop/etc/ca.pem")]));
    assert_eq!(settings("{mode: SIMPLE, caCrl: crl.pem}").crl, Some(file("/tls/shop/crl.pem")));
    let mutual = settings("{mode: MUTUAL, clientCertificate: cert.pem, privateKey: key.pem}");
    let client = mutual.client.expect("a certificate of the client");
    assert_eq!((client.chain, client.key), (file("/tls/shop/cert.pem"), file("/tls/shop/key.pem")));
    assert_eq!(settings("{mode: SIMPLE, clientCertificate: c, privateKey: k}").client, None);
    let unverified = "{mode: SIMPLE, insecureSkipVerify: true}";
    assert_eq!(settings(unverified).roots, Roots::Unverified);
    assert_eq!(read(unverified).1, ["spec.trafficPolicy.tls.insecureSkipVerify"]);
    assert_eq!(read("{mode: DISABLE}").0, Some(Demand::Plaintext));
    assert_eq!(read("{}").0, Some(Demand::Plaintext));
    assert_eq!(read("{mode: ISTIO_MUTUAL}").0, Some(Demand::Mesh));
    for refused in [
        "{mode: MUTUAL}",
        "{mode: MUTUAL, clientCertificate: cert.pem}",
        "{mode: SIMPLE, credentialName: secret}",
        "{mode: SIMPLE, caCertificates: ../evil/ca.pem}",
        "{mode: MUTUAL, clientCertificate: cert.pem, privateKey: ../../key.pem}",
        "{mode: UNHEARD}",
        "{mode: SIMPLE, unknown: 1}",
    ] {
        let (demand, fields) = read(refused);
        assert!(matches!(demand, Some(Demand::Impossible(_))), "{refused}: {demand:?}");
        assert!(!fields.is_empty(), "{refused}");
    }
    let without = rule(
        "shop",
        "web",
        &format!("{{{WEB}, trafficPolicy: {{tls: {{mode: SIMPLE, caCertificates: ca.pem}}}}}}"),
    );
    let without = translated_with(&format!("{SERVICE}{without}"), &TranslateSettings::default());
    assert!(holds(&without, "shop", 80).starts_with("refused"), "there is no directory");
}

#[test]
fn rules_with_a_selector_refuse() {
    let spec = "trafficPolicy: {tls: {mode: SIMPLE}}, workloadSelector: {matchLabels: {app: a}}";
    let translation = translation(&rule("shop", "web", &format!("{{{WEB}, {spec}}}")));
    assert!(holds(&translation, "shop", 80).starts_with("refused"), "{spec}");
}

#[test]
fn subsets_say_their_own() {
    let subset =
        |name: &str, policy: &str| format!("{{name: {name}, trafficPolicy: {{{policy}}}}}");
    let all = [
        subset("v1", "tls: {mode: SIMPLE, sni: one}"),
        subset("v2", "tls: {mode: DISABLE}"),
        subset("v3", "portLevelSettings: [{port: {number: 81}, tls: {mode: SIMPLE, sni: three}}]"),
        subset("v4", "tls: {mode: SIMPLE, caCertificates: ../ca.pem}"),
        subset("v1", "tls: {mode: SIMPLE, sni: again}"),
    ];
    let all = all.join(", ");
    let of = |spec: &str| {
        translation(&rule("shop", "web", &format!("{{{WEB}, {spec}subsets: [{all}]}}")))
    };
    for (spec, whole) in
        [("", "nothing"), ("trafficPolicy: {tls: {mode: SIMPLE, sni: whole}}, ", "web whole")]
    {
        let translation = of(spec);
        for (subset, port, expected) in [
            (None, 80, whole),
            (Some("v1"), 80, "web one"),
            (Some("v2"), 80, "plaintext"),
            (Some("v3"), 80, whole),
            (Some("v3"), 81, "web three"),
            (Some("other"), 80, whole),
        ] {
            let found = holds_of(&translation, "shop", port, subset);
            assert_eq!(found, expected, "{spec}: {subset:?} {port}");
        }
        let refused = holds_of(&translation, "shop", 80, Some("v4"));
        assert!(refused.starts_with("refused"), "{refused}");
        let fields = translation.complaints.iter().map(|it| it.field.as_str());
        assert!(fields.into_iter().any(|it| it == "spec.subsets"));
    }
}

#[test]
fn a_service_entry_says_the_names_of_its_servers() {
    let entry = "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e, namespace: shop}\n\
        spec: {hosts: [api.example], resolution: DNS, subjectAltNames: [server.example], ports: [{number: 80, name: http, protocol: HTTP, targetPort: 443}]}\n";
    for (more, expected) in
        [("", "server.example"), (", subjectAltNames: [rule.example]", "rule.example")]
    {
        let spec = format!("{{host: api.example, trafficPolicy: {{tls: {{mode: SIMPLE{more}}}}}}}");
        let translation = translation(&(entry.to_owned() + &rule("shop", "web", &spec)));
        let service = translation.mesh.services.iter().find(|it| it.hostname == "api.example");
        let (_, demand) = service.unwrap().encryption.on("shop", 80, None).expect("TLS is wanted");
        let Demand::Tls(origin) = demand else { panic!("{demand:?}") };
        assert_eq!(origin.settings().names, [SubjectName::Any(expected.into())]);
    }
}

#[test]
fn a_policy_holds_for_its_targets_and_the_oldest_of_each() {
    let section = "targetRefs: [{group: '', kind: Service, name: web, sectionName: more}]";
    let later = SYSTEM.replace("backend", "later");
    let text = policy("whole", 2, &format!("{{{TARGET}, {SYSTEM}}}"))
        + &policy("section", 3, &format!("{{{section}, {later}}}"))
        + &policy("late", 4, &format!("{{{TARGET}, {later}}}"));
    let translation = translation(&text);
    assert_eq!(holds(&translation, "shop", 80), "whole backend.example");
    assert_eq!(holds(&translation, "shop", 81), "section later.example");
    let [complaint] = &translation.complaints[..] else { panic!("{:?}", translation.complaints) };
    let reason = complaint.condition.map(|condition| condition.reason.name());
    assert_eq!((complaint.field.as_str(), reason), ("spec.targetRefs[0]", Some("Conflicted")));
}

#[test]
fn a_target_that_leads_to_nothing_gets_no_tls_and_is_told() {
    let entry = "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e, namespace: shop}\n\
        spec: {hosts: [api.example], resolution: DNS, ports: [{number: 80, name: plain, protocol: HTTP}]}\n";
    let service = "group: '', kind: Service, name: web";
    let of_entry = "group: networking.istio.io, kind: ServiceEntry, name: e";
    for (target, field, words) in [
        (format!("{service}, sectionName: more"), "", ""),
        (format!("{of_entry}, sectionName: plain"), "", ""),
        (
            format!("{service}, sectionName: https"),
            "spec.targetRefs[0].sectionName",
            r#"Service shop/web has no port "https"; it has "http", "more""#,
        ),
        (
            format!("{of_entry}, sectionName: tls"),
            "spec.targetRefs[0].sectionName",
            r#"ServiceEntry shop/e has no port "tls""#,
        ),
        (
            "group: '', kind: Service, name: gone".into(),
            "spec.targetRefs[0]",
            "no Service shop/gone",
        ),
        ("group: '', kind: Service, name: e".into(), "spec.targetRefs[0]", "no Service shop/e"),
    ] {
        let spec = format!("{{targetRefs: [{{{target}}}], {SYSTEM}}}");
        let translation = translation(&(entry.to_owned() + &policy("p", 0, &spec)));
        let told: Vec<_> = translation.complaints.iter().collect();
        assert_eq!(told.len(), usize::from(!field.is_empty()), "{target}: {told:?}");
        for complaint in told {
            let condition = complaint.condition.expect("a condition");
            let reason = (condition.kind.name(), condition.reason.name(), condition.parent);
            assert_eq!(reason, ("Accepted", "TargetNotFound", Some(0)), "{target}");
            assert_eq!(complaint.field, field, "{target}");
            assert!(complaint.reason.contains(words), "{target}: {}", complaint.reason);
        }
        if target.starts_with(service) && !field.is_empty() {
            assert_eq!(holds(&translation, "shop", 80), "nothing", "{target}");
            assert_eq!(holds(&translation, "shop", 81), "nothing", "{target}");
        }
    }
}

#[test]
fn each_field_of_a_policy_is_carried_out_or_refuses() {
    const CA: &str = "-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n";
    let config = format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca, namespace: shop}}\ndata: {{ca.crt: \"{CA}\"}}\n"
    );
    let of = |validation: &str| {
        let spec = format!("{{{TARGET}, validation: {validation}}}");
        translation(&(config.clone() + &policy("p", 0, &spec)))
    };
    let settings = |translation: &Translation| match translation.mesh.services[0]
        .encryption
        .on("shop", 80, None)
    {
        Some((_, Demand::Tls(origin))) => Some(origin.settings().clone()),
        _ => None,
    };
    let conditions = |translation: &Translation| -> Vec<(&str, &str)> {
        let all = translation.complaints.iter().filter_map(|it| it.condition);
        all.map(|it| (it.kind.name(), it.reason.name())).collect()
    };
    let ours = "{group: '', kind: ConfigMap, name: ca}";
    let alone = of(&format!("{{hostname: a.example, caCertificateRefs: [{ours}]}}"));
    let found = settings(&alone).expect("it is carried out");
    assert!(matches!(&found.roots, Roots::Of(found) if found.len() == 1), "{found:?}");
    assert_eq!((found.sni.as_deref(), conditions(&alone).len()), (Some("a.example"), 0));
    let names =
        "subjectAltNames: [{type: Hostname, hostname: b.example}, {type: URI, uri: 'spiffe://c'}]";
    let named = of(&format!("{{hostname: a.example, wellKnownCACertificates: System, {names}}}"));
    let expected = [SubjectName::Dns("b.example".into()), SubjectName::Uri("spiffe://c".into())];
    assert_eq!(settings(&named).expect("it is carried out").names, expected);
    let gone = "{group: '', kind: ConfigMap, name: gone}";
    let other = "{group: certificates.k8s.io, kind: ClusterTrustBundle, name: b}";
    // Of several references one is enough.
    let some = of(&format!("{{hostname: a.example, caCertificateRefs: [{ours}, {gone}]}}"));
    assert!(settings(&some).is_some());
    assert_eq!(conditions(&some), [("ResolvedRefs", "InvalidCACertificateRef")]);
    for (validation, expected) in [
        (
            format!("{{hostname: a.example, caCertificateRefs: [{gone}]}}"),
            &[("Accepted", "NoValidCACertificate"), ("ResolvedRefs", "InvalidCACertificateRef")][..],
        ),
        (
            format!("{{hostname: a.example, caCertificateRefs: [{other}]}}"),
            &[("Accepted", "NoValidCACertificate"), ("ResolvedRefs", "InvalidKind")],
        ),
        ("{hostname: a.example}".into(), &[("Accepted", "Invalid")]),
        ("{wellKnownCACertificates: System}".into(), &[("Accepted", "Invalid")]),
        (
            "{hostname: 10.0.0.1, wellKnownCACertificates: System}".into(),
            &[("Accepted", "Invalid")],
        ),
        (
            "{hostname: a.example, wellKnownCACertificates: Unheard}".into(),
            &[("Accepted", "Invalid")],
        ),
        (
            format!(
                "{{hostname: a.example, wellKnownCACertificates: System, caCertificateRefs: [{ours}]}}"
            ),
            &[("Accepted", "Invalid")],
        ),
        (
            "{hostname: a.example, wellKnownCACertificates: System, unknown: 1}".into(),
            &[("Accepted", "Invalid")],
        ),
    ] {
        let refused = of(&validation);
        assert!(holds(&refused, "shop", 80).starts_with("refused"), "{validation}");
        let mut found = conditions(&refused);
        found.sort_unstable();
        assert_eq!(found, expected, "{validation}");
    }
}
