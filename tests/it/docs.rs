//! The reference pages are current: their tables are made from the code. `UPDATE_DOCS=1 cargo test --test it docs`
//! rewrites them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use isthmus::analyze::CODES;
use isthmus::base::{ObjectKey, PolicyEffect, PolicyNote, Reason, ports};
use isthmus::check::{ROWS, Row};
use isthmus::config::{self, Description, Overrides, Settings};
use isthmus::filter::{Cx, HttpFilter, PolicySpec, RequestHead, RuleContext};
use isthmus::telemetry::{
    ConnectionStart, DnsLabels, Peer, Reporter, RequestStart, ServiceLabels, Telemetry,
    WorkerHealth,
};
use isthmus::traffic::{Destination, OutlierDetection, Policy, ServicePort};

/// Set to anything, it makes these tests write what they would compare.
const UPDATE: &str = "UPDATE_DOCS";

/// The width of the prose in `config/agent.toml`.
const WIDTH: usize = 100;

#[test]
fn settings_page_is_current() {
    let descriptions = config::describe();
    let mut text = String::new();
    for (section, settings) in by_section(&descriptions) {
        let title = if section.is_empty() {
            "At the top of the file".into()
        } else {
            format!("`[{section}]`")
        };
        text += &format!(
            "## {title}\n\n| key | value | default | meaning | why this default |\n\
             | --- | --- | --- | --- | --- |\n"
        );
        for setting in settings {
            let machine = setting.default != setting.example;
            let default =
                if machine { setting.default.clone() } else { format!("`{}`", setting.default) };
            let key = last(setting.key);
            let (kind, meaning, reason) = (&setting.kind, setting.meaning, setting.reason);
            text += &format!("| `{key}` | {kind} | {default} | {meaning} | {reason} |\n");
        }
        text.push('\n');
    }
    block("docs/settings.md", "settings", &text);
}

#[test]
fn commented_settings_file_is_current() {
    let mut text = "\
# The settings of `isthmus run`, each with its default. Take the # away from a key to change it; flags override this
# file. docs/settings.md has the same as a table, and `isthmus run` reports everything that is wrong at once.\n"
        .to_owned();
    for (section, settings) in by_section(&config::describe()) {
        if !section.is_empty() {
            text += &format!("\n[{section}]\n");
        }
        for setting in settings {
            let key = last(setting.key);
            let default = if setting.default == setting.example {
                String::new()
            } else {
                format!(" Default: {}.", setting.default)
            };
            let prose = format!("{} Value: {}.{default}", setting.meaning, setting.kind);
            text.push('\n');
            for line in wrap(&prose, WIDTH) {
                text += &format!("# {line}\n");
            }
            text += &format!("#{key} = {}\n", setting.example);
        }
    }
    same("config/agent.toml", &text);
}

#[test]
fn the_commented_settings_are_the_defaults() {
    let text = read("config/agent.toml");
    let parse = |text: &str| Settings::parse(text, &Overrides::default()).expect("good settings");
    assert_eq!(parse(&text), parse(""), "the file changes nothing as it is");
    let active: Vec<&str> = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => setting,
            _ => line,
        })
        .collect();
    let (all, defaults) = (parse(&active.join("\n")), parse(""));
    // These two depend on the machine.
    let layer4 = config::Layer4Settings { threads: defaults.layer4.threads, ..all.layer4.clone() };
    assert_eq!(Settings { node: defaults.node.clone(), layer4, ..all }, defaults);
}

#[test]
fn ports_page_is_current() {
    let mut text = "| port | where | what |\n| --- | --- | --- |\n".to_owned();
    for (port, place, purpose) in ports::ALL {
        text += &format!("| {port} | {place} | {purpose} |\n");
    }
    block("docs/ports.md", "ports", &text);

    let mut text = "| what | value |\n| --- | --- |\n".to_owned();
    for (what, value) in [
        (
            "mark of the agent's own sockets",
            format!("{:#x}/{:#x}", ports::SOCKET_MARK, ports::MARK_MASK),
        ),
        (
            "connection mark of borrowed source addresses",
            format!("{:#x}/{:#x}", ports::CONNECTION_MARK, ports::MARK_MASK),
        ),
        ("routing table for replies to borrowed addresses", ports::ROUTE_TABLE.to_string()),
        ("priority of the rule that leads there", ports::ROUTE_RULE_PRIORITY.to_string()),
        ("source address of the node's probes, IPv4", ports::PROBE_ADDRESS_V4.to_string()),
        ("source address of the node's probes, IPv6", ports::PROBE_ADDRESS_V6.to_string()),
    ] {
        text += &format!("| {what} | `{value}` |\n");
    }
    block("docs/ports.md", "marks", &text);
}

#[test]
fn metrics_page_is_current() {
    let scraped = scrape();
    let mut text = "| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    let mut sets: Vec<(String, Vec<String>)> = Vec::new();
    for line in scraped.lines() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '))
        else {
            continue;
        };
        let kind = scraped
            .lines()
            .find_map(|line| line.strip_prefix(&format!("# TYPE {name} ")))
            .expect("a type");
        let labels = labels_of(&scraped, name);
        let set = match labels.len() {
            0 => "-".to_owned(),
            1..=4 => labels.join(", "),
            _ => {
                let known = sets.iter().position(|(_, other)| *other == labels);
                let index = known.unwrap_or_else(|| {
                    sets.push((name.to_owned(), labels));
                    sets.len() - 1
                });
                ["connections", "requests"][index].to_owned()
            }
        };
        // In Prometheus' format, the type names a counter as its samples do.
        let suffix = if kind == "counter" && !name.ends_with("_total") { "_total" } else { "" };
        let help = help.trim_end_matches('.');
        text += &format!("| `{name}{suffix}` | {kind} | {set} | {help} |\n");
    }
    assert_eq!(sets.len(), 2, "connections and requests");
    block("docs/metrics.md", "metrics", &text);

    let mut text = "| labels | of connections | of requests |\n| --- | --- | --- |\n".to_owned();
    let mut seen = BTreeSet::new();
    for label in sets.iter().flat_map(|(_, labels)| labels) {
        if seen.insert(label) {
            let of = |index: usize| if sets[index].1.contains(label) { "yes" } else { "-" };
            text += &format!("| `{label}` | {} | {} |\n", of(0), of(1));
        }
    }
    block("docs/metrics.md", "labels", &text);
}

#[test]
fn memory_page_is_current() {
    const MIB: f64 = 1024.0 * 1024.0;
    let settings = Settings::parse("", &Overrides::default()).expect("the defaults");
    let bound = settings.memory_bound();
    let mut text = "| what | how much | with the defaults |\n| --- | --- | --- |\n".to_owned();
    let mut rows = |parts: &[config::MemoryPart], of: &str| {
        for config::MemoryPart { what, formula, bytes } in parts {
            text += &format!("| {of}{what} | {formula} | {:.0} MiB |\n", *bytes as f64 / MIB);
        }
    };
    rows(&bound.agent, "");
    rows(&bound.worker, "each waypoint worker: ");
    for (what, workers) in [("without a waypoint", 0), ("with four waypoint workers", 4)] {
        let total = bound.total(workers) as f64 / MIB;
        text += &format!("| **all, {what}** | the sum x 5/4 | **{total:.0} MiB** |\n");
    }
    block("docs/observability.md", "memory", &text);
}

/// The chart's limit has room for what its comment says.
#[test]
fn the_limit_of_memory_is_above_the_bound() {
    let settings = Settings::parse("", &Overrides::default()).expect("the defaults");
    let bound = settings.memory_bound().total(4);
    for file in ["config/helm/isthmus/values.yaml", "config/install.yaml"] {
        let text = read(file);
        let limits = text.lines().filter_map(|line| line.trim().strip_prefix("memory: "));
        let gib = limits.filter_map(|it| it.strip_suffix("Gi")?.parse::<usize>().ok()).max();
        let limit = gib.expect("a limit in GiB") << 30;
        assert!(bound < limit && limit < 2 * bound, "{file}: {limit}, and the bound is {bound}");
    }
}

/// An alert on a metric that is not there never fires.
#[test]
fn metrics_that_the_pages_name_exist() {
    const FAMILIES: [&str; 5] = ["isthmus_", "istio_", "tokio_", "process_", "workload_manager_"];
    let table = read("docs/metrics.md");
    let (mut found, mut missing) = (0, BTreeSet::new());
    for page in [
        "docs/observability.md",
        "docs/monitoring.md",
        "docs/troubleshooting.md",
        "docs/policies.md",
        "docs/dns.md",
    ] {
        let text = read(page);
        let part_of_name = |it: char| it.is_ascii_alphanumeric() || it == '_';
        let names = text
            .split(|it| !part_of_name(it))
            .filter(|name| FAMILIES.iter().any(|family| name.starts_with(family)));
        for name in names {
            found += 1;
            if !table.contains(&format!("`{name}`")) {
                missing.insert(format!("{page}: {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "docs/metrics.md has no {missing:?}");
    assert!(found > 15, "names are found");
}

#[test]
fn flags_page_is_current() {
    let mut text = "| flag | meaning |\n| --- | --- |\n".to_owned();
    for reason in Reason::ALL {
        text += &format!("| `{}` | {} |\n", reason.flag(), reason.advice());
    }
    block("docs/troubleshooting.md", "flags", &text);
}

#[test]
fn analysis_page_is_current() {
    let mut text = "| code | severity | what is found |\n| --- | --- | --- |\n".to_owned();
    for row in CODES {
        let (id, anchor) = (row.id, row.id.to_ascii_lowercase());
        text += &format!("| [{id}](#{anchor}) | {} | {} |\n", row.level, row.finds);
    }
    for row in CODES {
        let found = row.finds;
        text += &format!(
            "\n### {}\n\n**{}.** {} *Mend:* {}\n",
            row.id,
            capital(found),
            row.why,
            row.mend
        );
    }
    block("docs/analyze.md", "analysis", &text);
}

#[test]
fn checks_page_is_current() {
    let mut text =
        "| id | section | what is looked at | if it does not pass |\n| --- | --- | --- | --- |\n"
            .to_owned();
    for Row { id, section, looks, mend, .. } in ROWS {
        text += &format!("| `{id}` | {section} | {looks} | {mend} |\n");
    }
    block("docs/check.md", "checks", &text);
}

/// The first letter in upper case.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Whatever the source understands, a reader can look up.
#[test]
fn everything_the_source_reads_is_documented() {
    let page = read("docs/resources.md");
    let mut missing = BTreeSet::new();
    let mut found = 0;
    for text in sources("src/source") {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            for key in keys_in(line) {
                found += 1;
                if !page.contains(&format!("`{key}`")) {
                    missing.insert(key);
                }
            }
        }
    }
    assert!(missing.is_empty(), "docs/resources.md does not say what these are: {missing:?}");
    assert!(found > 10, "labels and annotations are found in src/source");
}

/// The settings of each section, in the order of the file.
fn by_section(descriptions: &[Description]) -> Vec<(&str, Vec<&Description>)> {
    let mut sections: Vec<(&str, Vec<&Description>)> = Vec::new();
    for description in descriptions {
        let section = description.key.rsplit_once('.').map_or("", |(section, _)| section);
        match sections.last_mut().filter(|(last, _)| *last == section) {
            Some((_, settings)) => settings.push(description),
            None => sections.push((section, vec![description])),
        }
    }
    sections
}

fn last(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("never empty");
        if !line.is_empty() && line.len() + 1 + word.len() > width {
            lines.push(word.to_owned());
        } else {
            let space = if line.is_empty() { "" } else { " " };
            let _ = write!(line, "{space}{word}");
        }
    }
    lines
}

/// With the series of the metrics that each destination has.
fn ejecting() -> Destination {
    let (namespace, service) = ("namespace".into(), "service".into());
    let policy = Policy { outliers: Some(OutlierDetection::default()), ..Policy::default() };
    Destination::of("".into(), &ServicePort { namespace, service, port: 80 }, policy)
}

/// A question of each kind.
fn ask(telemetry: &Telemetry) {
    let questions = telemetry.dns().questions(&DnsLabels::default());
    questions.asked();
    questions.passed_on(std::time::Duration::ZERO);
    questions.failed();
}

/// A concurrency limit that a request has come to.
fn limited() -> Vec<HttpFilter> {
    struct Policy;

    impl RuleContext for Policy {}

    let spec: PolicySpec = serde_json::from_value(serde_json::json!({
        "targetRefs": [{"kind": "Service", "name": "name"}],
        "concurrencyLimit": {"fixed": {"requests": 1}},
    }))
    .expect("a policy");
    let filters: Vec<HttpFilter> =
        spec.filters(&Policy).into_iter().filter_map(Result::ok).collect();
    let (method, uri) = (http::Method::GET, http::Uri::from_static("/"));
    let mut headers = http::HeaderMap::new();
    let address = std::net::Ipv4Addr::LOCALHOST.into();
    let (service, pod) = (None, "");
    let cx = Cx {
        port: 80,
        identity: None,
        address,
        service,
        pod,
        route: None,
        spread: None,
        claims: None,
        level: None,
    };
    for filter in &filters {
        let mut head = RequestHead { method: &method, uri: &uri, headers: &mut headers };
        drop(filter.request(&mut head, &cx));
    }
    filters
}

/// All metrics after one connection, one refusal, one request and one question.
fn scrape() -> String {
    let telemetry = Telemetry::without_log();
    let _ejecting = ejecting();
    let address: SocketAddr = ([127, 0, 0, 1], 80).into();
    let start = ConnectionStart {
        reporter: Reporter::Source,
        source: Peer::default(),
        destination: Peer::default(),
        service: ServiceLabels::default(),
        mutual_tls: true,
        source_address: address,
        destination_address: address,
        dialled: address,
        hbone_authority: None,
        server_name: None,
        waypoint_principal: None,
        policy: None,
        notes: vec![PolicyNote {
            policy: ObjectKey::new("namespace", "name"),
            effect: PolicyEffect::Audit,
        }],
        in_process: false,
        rules: None,
    };
    drop(telemetry.connection(start.clone()));
    telemetry.refused(start, Reason::Denied, "");
    let mut request = telemetry.request(RequestStart {
        count: true,
        outbound: true,
        source: Arc::default(),
        service: Arc::default(),
        mutual_tls: true,
        source_address: address,
        method: http::Method::GET,
        path: "/".into(),
        authority: "".into(),
        protocol: "HTTP/1.1",
        grpc: true,
        waypoint_principal: None,
        policy: None,
        connection: None,
    });
    request.messages(1, 1);
    drop(request);
    telemetry.shared_limits().tokens("", 1);
    telemetry.controller().refuse("");
    telemetry.controller().write("");
    telemetry.cni().request("", "");
    telemetry.health().workers(&[WorkerHealth::default()]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    telemetry.watch_runtimes("control", std::slice::from_ref(runtime.handle()));
    ask(&telemetry);
    // It is shown for as long as its policy is there.
    let _limit = limited();
    telemetry.scrape().expect("metrics")
}

/// The labels of a metric's first series.
fn labels_of(scraped: &str, name: &str) -> Vec<String> {
    let series = scraped.lines().find(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| ["{", " ", "_total", "_sum"].iter().any(|it| rest.starts_with(it)))
    });
    let inside = series.and_then(|line| line.split_once('{')).map_or("", |(_, rest)| rest);
    inside.split(',').filter_map(|pair| Some(pair.split_once("=\"")?.0.to_owned())).collect()
}

/// The string literals of a line that are keys of labels or annotations.
fn keys_in(line: &str) -> Vec<String> {
    const DOMAINS: [&str; 3] = ["istio.io", "isthmus.io", "kubernetes.io"];
    let is_key = |text: &&str| {
        let domain = text.split_once('/').map_or("", |(domain, _)| domain);
        DOMAINS.iter().any(|known| domain.ends_with(known))
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-./_".contains(&byte))
            && !text.ends_with("/v1")
    };
    line.split('"').skip(1).step_by(2).filter(is_key).map(str::to_owned).collect()
}

/// The texts of all Rust files below a directory, without those that hold only tests.
fn sources(directory: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut directories = vec![root().join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.file_stem().is_some_and(|name| name != "tests") {
                let text = fs::read_to_string(&path).expect("a file");
                let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
                texts.push(code.to_owned());
            }
        }
    }
    texts
}

/// Compares, or replaces, what stands between the markers of a page's generated block.
pub fn block(path: &str, name: &str, content: &str) {
    let start = format!("<!-- generated: {name} -->\n");
    block_of(path, (&start, "<!-- end -->"), &format!("\n{}\n\n", content.trim()));
}

/// The same with markers of another form.
pub fn block_of(path: &str, (start, end): (&str, &str), content: &str) {
    let page = read(path);
    let (before, rest) = page.split_once(start).unwrap_or_else(|| panic!("{path} has no {start}"));
    let (_, after) = rest.split_once(end).unwrap_or_else(|| panic!("{path}: {start} has no {end}"));
    same(path, &format!("{before}{start}{content}{end}{after}"));
}

/// Compares, or replaces, a whole file.
pub fn same(path: &str, content: &str) {
    if std::env::var_os(UPDATE).is_some() {
        fs::write(root().join(path), content).expect("the file can be written");
    }
    assert!(
        read(path) == content,
        "{path} is not current; run `{UPDATE}=1 cargo test --test it -- --test-threads=1`"
    );
}

pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_default()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A test is named as `suite module::test`; a whole module of tests beside the code, or a fuzzer's target, may stand for its
/// own.
#[test]
fn every_test_that_pages_name_exists() {
    for (path, at_least) in [("docs/security.md", 20), ("docs/virtual-services.md", 8)] {
        let page = fs::read_to_string(root().join(path)).unwrap();
        let named = page.split('`').skip(1).step_by(2).filter_map(|text| text.split_once(' '));
        let tests: Vec<_> = named.filter(|(suite, _)| SUITES.contains(suite)).collect();
        assert!(tests.len() > at_least, "{path}: {tests:?}");
        let missing: BTreeSet<_> =
            tests.iter().filter(|(suite, path)| !is_there(suite, path)).collect();
        assert!(missing.is_empty(), "{path} names tests that do not exist: {missing:?}");
    }
}

const SUITES: [&str; 5] = ["adversary", "netns", "cluster", "lib", "fuzz"];

fn is_there(suite: &str, path: &str) -> bool {
    if suite == "fuzz" {
        return root().join("fuzz/corpus").join(path).is_dir();
    }
    let base = if suite == "lib" { root().join("src") } else { root().join("tests").join(suite) };
    let is_test = |file: &Path, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.match_indices(&format!("fn {name}(")).any(|(at, _)| {
            let before: Vec<&str> = text[..at].lines().rev().take(4).collect();
            before.iter().any(|line| line.contains("test"))
        })
    };
    match path.rsplit_once("::") {
        Some((module, test)) => {
            let module = base.join(module.replace("::", "/"));
            let whole = base.join(path.replace("::", "/")).with_extension("rs");
            let files = [module.with_extension("rs"), module.join("tests.rs")];
            files.iter().any(|file| is_test(file, test))
                || fs::read_to_string(whole).is_ok_and(|text| text.contains("#[cfg(test)]"))
        }
        None => is_test(&base.join("main.rs"), path),
    }
}

/// A merge that was committed as it stood: compilers find these in code, and nobody in prose.
#[test]
fn no_page_has_marks_of_a_merge() {
    let pages = ["docs", "."].into_iter().flat_map(|directory| {
        let entries = fs::read_dir(root().join(directory)).expect("a directory");
        entries.map(|entry| entry.expect("an entry").path())
    });
    let pages: Vec<_> = pages.filter(|it| it.extension().is_some_and(|it| it == "md")).collect();
    assert!(pages.len() > 10, "{pages:?}");
    for page in pages {
        let text = fs::read_to_string(&page).expect("a page");
        let is_marked = |line: &str| line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ");
        assert!(!text.lines().any(is_marked), "{}", page.display());
    }
}
