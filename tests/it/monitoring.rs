//! Dashboards and rules of `config/monitoring`: current, complete, and over metrics that exist. `tests/integrations` has a
//! Prometheus evaluate them.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::docs::{read, same};
use crate::monitoring_files::{DIRECTORY, alerts, dashboards, files, recordings};

/// Metrics that Prometheus has of its targets.
const OF_PROMETHEUS: [&str; 1] = ["up"];
const FAMILIES: [&str; 5] = ["isthmus_", "istio_", "tokio_", "process_", "workload_manager_"];

#[test]
fn the_committed_files_are_current() {
    let mut expected = BTreeSet::new();
    for (name, text) in files() {
        same(&format!("{DIRECTORY}/{name}"), &text);
        expected.extend(name.strip_prefix("dashboards/").map(str::to_owned));
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(DIRECTORY).join("dashboards");
    let entries = std::fs::read_dir(directory).unwrap();
    let committed: BTreeSet<String> =
        entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(committed, expected, "a dashboard that is generated no more");
}

/// As a user imports them.
#[test]
fn dashboards_are_json_with_unique_uids() {
    let mut uids = BTreeSet::new();
    for dashboard in dashboards() {
        let text = read(&format!("{DIRECTORY}/dashboards/{}.json", dashboard.name));
        let json: Value = serde_json::from_str(&text).unwrap();
        // Grafana's bound.
        let uid = json["uid"].as_str().unwrap();
        assert!(uid.len() <= 40 && uids.insert(uid.to_owned()), "{uid}");
        let panels = json["panels"].as_array().unwrap();
        let ids: BTreeSet<u64> = panels.iter().map(|it| it["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "{uid}");
        let variables: Vec<&str> = json["templating"]["list"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["name"].as_str().unwrap())
            .collect();
        for panel in panels.iter().filter(|it| it["type"] != "row") {
            let title = panel["title"].as_str().unwrap();
            let description = panel["description"].as_str().unwrap();
            assert!(
                description.ends_with('.') && description.len() > 20,
                "{uid}, {title}: {description}"
            );
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{uid}, {title}");
            for target in targets {
                let expression = target["expr"].as_str().unwrap();
                for variable in used(expression).filter(|it| *it != "__rate_interval") {
                    assert!(variables.contains(&variable), "{uid}, {title}: {variable}");
                }
            }
            let place = &panel["gridPos"];
            assert!(
                place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24,
                "{uid}, {title}"
            );
        }
    }
}

/// An alert on a metric that does not exist never fires.
#[test]
fn every_metric_of_dashboards_and_rules_exists() {
    let table = read("docs/metrics.md");
    let recorded: Vec<&str> = recordings().iter().map(|it| it.record).collect();
    let mut found = BTreeSet::new();
    let expressions = expressions();
    for expression in &expressions {
        let mut plain = expression.clone();
        for record in &recorded {
            plain = plain.replace(record, "");
        }
        let part_of_name = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == ':';
        let names = plain
            .split(|it| !part_of_name(it))
            .filter(|name| FAMILIES.iter().any(|family| name.starts_with(family)));
        let mut count = 0;
        for name in names {
            count += 1;
            let of_histogram =
                ["_bucket", "_sum", "_count"].iter().find_map(|it| name.strip_suffix(it));
            let is_known = |name: &str| table.contains(&format!("`{name}`"));
            assert!(is_known(name) || of_histogram.is_some_and(is_known), "{name} in {expression}");
            found.insert(name.to_owned());
        }
        let without = OF_PROMETHEUS.iter().any(|it| plain.starts_with(it)) || plain != *expression;
        assert!(count > 0 || without, "no metric is recognized in {expression}");
    }
    assert!(found.len() > 80, "{} metrics", found.len());
}

#[test]
fn every_alert_has_its_runbook() {
    let page = read("docs/monitoring.md");
    let mut names = BTreeSet::new();
    for alert in alerts() {
        assert!(names.insert(alert.name), "{} is there twice", alert.name);
        let heading = format!("\n### {}\n\n", alert.name);
        let (_, after) = page.split_once(&heading).unwrap_or_else(|| panic!("no {heading}"));
        let paragraph = after.split("\n#").next().unwrap();
        assert!(paragraph.trim().len() > 100, "{}: {paragraph}", alert.name);
        assert_eq!(alert.anchor(), alert.name.to_lowercase());
        assert!(alert.summary.ends_with('.'), "{}", alert.summary);
    }
    let headings = page.lines().filter_map(|line| line.strip_prefix("### Isthmus"));
    let unknown: Vec<&str> =
        headings.filter(|it| !names.contains(format!("Isthmus{it}").as_str())).collect();
    assert!(unknown.is_empty(), "no alerts: {unknown:?}");
}

/// A PodMonitor that selects nothing, or a port that nobody names, scrapes nothing and says nothing.
#[test]
fn pod_monitors_select_what_is_installed() {
    let parse = |path: &str| -> Vec<Value> { serde_saphyr::from_multiple(&read(path)).unwrap() };
    let installed = parse("config/install.yaml");
    let templates: Vec<&Value> =
        installed.iter().map(|it| &it["spec"]["template"]).filter(|it| it.is_object()).collect();
    assert_eq!(templates.len(), 2, "agents and controllers");
    for monitor in parse(&format!("{DIRECTORY}/pod-monitor.yaml")) {
        assert_eq!(monitor["kind"], "PodMonitor");
        let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
        let has = |it: &&&Value| {
            wanted.iter().all(|(key, value)| it["metadata"]["labels"][key] == *value)
        };
        let selected: Vec<&&Value> = templates.iter().filter(has).collect();
        let [template] = selected.as_slice() else { panic!("{wanted:?} selects {selected:?}") };
        let annotations = &template["metadata"]["annotations"];
        let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
        assert_eq!(annotations["prometheus.io/scrape"], "true");
        assert_eq!(annotations["prometheus.io/path"], endpoint["path"]);
        let port = annotations["prometheus.io/port"].as_str().unwrap();
        let relabelings = endpoint["relabelings"].to_string();
        let ports = template["spec"]["containers"][0]["ports"].as_array();
        let named = ports.into_iter().flatten().find(|it| it["name"] == endpoint["port"]);
        match named {
            Some(named) => assert_eq!(named["containerPort"].to_string(), port),
            None => assert!(relabelings.contains(&format!(":{port}\"")), "{relabelings}"),
        }
        // Dashboards and rules rely on it.
        let job = monitor["spec"]["jobLabel"].as_str().unwrap();
        let job = template["metadata"]["labels"][job].as_str().unwrap();
        assert!(job.starts_with("isthmus"), "{job}");
    }
}

/// Of all panels and rules.
fn expressions() -> Vec<String> {
    let dashboards = dashboards();
    let panels = dashboards.iter().flat_map(|it| &it.rows).flat_map(|it| &it.panels);
    let of_panels = panels.flat_map(|it| &it.queries).map(|it| it.expression.clone());
    let of_rules = recordings().into_iter().map(|it| it.expression.to_owned());
    let of_alerts = alerts().into_iter().map(|it| it.expression());
    of_panels.chain(of_rules).chain(of_alerts).collect()
}

/// The variables of a dashboard that an expression names.
fn used(expression: &str) -> impl Iterator<Item = &str> {
    expression.split('$').skip(1).map(|rest| {
        let end = rest.find(|it: char| !it.is_ascii_alphanumeric() && it != '_');
        &rest[..end.unwrap_or(rest.len())]
    })
}
