use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::telemetry::LogFormat;

fn parse(text: &str) -> Result<Settings, ConfigError> {
    Settings::parse(text, &Overrides::default())
}

fn complaints(text: &str) -> Vec<String> {
    let error = parse(text).expect_err("the settings are bad");
    error.complaints.iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let settings = parse("").expect("no complaint");
    assert_eq!(settings.trust_domain, "cluster.local");
    assert_eq!(settings.cluster, "Kubernetes");
    assert_eq!(settings.pool.max_streams, 100);
    assert_eq!(settings.identity.lifetime, Duration::from_secs(86_400));
    assert_eq!(settings.admin.directory, Path::new("/run/isthmus/admin"));
    assert!(!settings.admin.tcp, "nothing is told to whoever is on the node");
    assert_eq!(settings.admin.address.to_string(), "127.0.0.1:15000");
    assert_eq!(settings.metrics.address.to_string(), "[::]:15020");
    assert!(!settings.node.is_empty());
}

#[test]
fn a_file_is_read() {
    let text = r#"
        node = "node-a"
        [source]
        directory = "/srv/mesh"
        [log]
        level = "warn,isthmus::l4=debug"
        format = "json"
        [pool]
        idle_timeout = "90s"
        [layer7]
        max_buffered_bytes = 0x100000
    "#;
    let settings = parse(text).expect("no complaint");
    assert_eq!(settings.node, "node-a");
    assert_eq!(settings.source.directory, Path::new("/srv/mesh"));
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!(settings.pool.idle_timeout, Duration::from_secs(90));
    assert_eq!(settings.layer7.max_buffered_bytes, 1 << 20);
}

#[test]
fn all_complaints_come_at_once_with_place_and_advice() {
    let text = r#"node = "Node A"
max_stream = 3
[pool]
max_streams = 0
idle_timeout = "5 minutes"
idle_timout = "5m"
[admin]
address = "0.0.0.0:15000"
[metrics]
address = "localhost"
[readiness]
address = "127.0.0.1:15000"
[log]
level = "loud"
format = "xml"
[identity]
lifetime = 24
istio_address = "http://istiod.istio-system.svc:15010"
istio_token_file = "token"
[layer5]
threads = 1
[drain]
max_streams = 1
"#;
    let found = complaints(text);
    let expected = [
        ("line 1: node:", "not a DNS name"),
        ("line 2: max_stream:", "did you mean `pool.max_streams`?"),
        ("line 4: pool.max_streams:", "0 is out of range; give a number from 1 to 1000"),
        ("line 5: pool.idle_timeout:", "not a duration"),
        ("line 6: pool.idle_timout:", "did you mean `idle_timeout`?"),
        ("line 8: admin.address:", "loopback"),
        ("line 10: metrics.address:", "not an address with a port"),
        ("line 12: readiness.address:", "conflicts with 0.0.0.0:15000 of admin.address"),
        ("line 14: log.level:", "loud"),
        ("line 15: log.format:", "\"text\", \"json\""),
        ("line 17: identity.lifetime:", "write it in quotes"),
        ("line 18: identity.istio_address:", "plain text; write it as \"https://istiod"),
        ("line 19: identity.istio_token_file:", "not an absolute path"),
        ("line 20: layer5:", "did you mean `layer4`?"),
        ("line 23: drain.max_streams:", "did you mean `pool.max_streams`?"),
    ];
    for ((place, reason), complaint) in expected.iter().zip(&found) {
        assert!(complaint.starts_with(place) && complaint.contains(reason), "{place}: {complaint}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

/// As one that was moved between versions: what resembles it in its own section is not meant.
#[test]
fn a_setting_of_another_section_is_told_where_it_belongs() {
    for (misplaced, place) in [
        ("[layer4]\ndetect_timeout = \"1s\"\n", "layer7.detect_timeout"),
        ("[layer7]\nmax_peer_tunnels = 1\n", "layer4.max_peer_tunnels"),
        ("upgrades = []\n", "layer7.upgrades"),
    ] {
        let found = complaints(misplaced);
        let advice = format!("did you mean `{place}`?");
        assert!(matches!(&found[..], [one] if one.contains(&advice)), "{found:?}");
    }
}

#[test]
fn the_address_of_istiod_is_checked() {
    let with =
        |address: &str| format!("[identity]\nissuer = \"istio\"\nistio_address = \"{address}\"\n");
    for good in
        ["https://istiod.istio-system.svc:15012", "https://[fd00::1]:15012", "http://127.0.0.1:1/"]
    {
        let settings = parse(&with(good)).expect(good).identity;
        assert_eq!((settings.issuer, &*settings.istio_address), (IssuerKind::Istio, good));
    }
    for (bad, reason) in [
        ("", "not an address"),
        ("istiod:15012", "does not begin with https://"),
        ("https://istiod", "has no port"),
        ("https://istiod:0", "has no port"),
        ("https://istiod:15012/ca", "goes on after the port"),
        ("http://10.0.0.1:15010", "plain text"),
    ] {
        let found = complaints(&with(bad));
        assert!(found.len() == 1 && found[0].contains(reason), "{bad}: {found:?}");
        assert!(found[0].starts_with("line 3: identity.istio_address:"), "{found:?}");
    }
}

#[test]
fn the_names_of_the_trust_domain_and_the_revocation_lists_are_read() {
    let settings = parse(
        "trust_domain_aliases = [\"old.mesh\", \"older.mesh\"]\n[identity]\ncrl = \"/etc/crl.pem\"\n",
    );
    let settings = settings.expect("settings");
    assert_eq!(settings.trust_domain_aliases, ["old.mesh", "older.mesh"]);
    assert_eq!(settings.identity.crl.as_deref(), Some(Path::new("/etc/crl.pem")));
    for (bad, reason) in [
        ("trust_domain_aliases = \"old.mesh\"", "write a list of texts"),
        ("trust_domain_aliases = [1]", "write a list of texts"),
        ("trust_domain_aliases = [\"a/b\"]", "trust_domain_aliases"),
        ("[identity]\ncrl = \"crl.pem\"", "not an absolute path"),
    ] {
        let found = complaints(bad);
        assert!(found.len() == 1 && found[0].contains(reason), "{bad}: {found:?}");
    }
}

#[test]
fn broken_syntax_is_a_complaint_with_its_line() {
    let found = complaints("node = \"a\"\n[pool\nmax_streams = 5\n");
    assert!(found.iter().any(|complaint| complaint.starts_with("line 2:")), "{found:?}");
}

#[test]
fn a_section_is_no_value() {
    assert!(complaints("pool = 3\n")[0].contains("write [pool] on a line of its own"));
}

#[test]
fn flags_override_the_file_and_are_named_when_they_are_bad() {
    let overrides = Overrides {
        node: Some("from-flag".to_owned()),
        directory: Some("/from/flag".to_owned()),
        log_level: Some("debug".to_owned()),
    };
    let text = "node = \"Bad Name\"\n[log]\nlevel = \"warn\"\n";
    let settings = Settings::parse(text, &overrides).expect("the flag replaces the bad value");
    assert_eq!((&*settings.node, &*settings.log.level), ("from-flag", "debug"));
    assert_eq!(settings.source.directory, Path::new("/from/flag"));

    let overrides = Overrides { directory: Some("here".to_owned()), ..Overrides::default() };
    let error = Settings::parse("", &overrides).expect_err("the path is relative");
    assert_eq!(error.complaints[0].key, "--directory");
}

#[test]
fn a_missing_file_is_named() {
    let error = Settings::load(Some(Path::new("/nowhere/agent.toml")), &Overrides::default());
    let text = error.expect_err("there is no such file").to_string();
    assert!(text.contains("/nowhere/agent.toml") && text.contains("--config"), "{text}");
}

#[test]
fn every_setting_is_described_once_and_its_example_can_be_written() {
    let descriptions = describe();
    for description in &descriptions {
        let same = descriptions.iter().filter(|other| other.key == description.key);
        assert_eq!(same.count(), 1, "{}", description.key);
        assert!(description.meaning.ends_with('.'), "{}", description.key);
        assert!(description.reason.len() > 10, "{}", description.key);
        let line = format!("{} = {}", description.key, description.example);
        assert!(parse(&line).is_ok(), "{line}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "(\\PC|\n){0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_value_panics(section in "(pool|log|admin|identity|layer4)", key in "[a-z_]{1,16}", value in ".{0,40}") {
        let _ = parse(&format!("[{section}]\n{key} = {value}\n"));
        let _ = parse(&format!("[{section}]\n{key} = {value:?}\n"));
    }

    #[test]
    fn durations_round_trip(milliseconds in 0u64..1 << 50) {
        let duration = Duration::from_millis(milliseconds);
        prop_assert_eq!(duration::parse(&duration::format(duration)), Some(duration));
    }
}
