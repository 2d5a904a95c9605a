//! What the translation says of every manifest among the samples, as `isthmus check` tells it, held as a table. Each file is
//! checked together with those that its task applies before it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::files;
use super::stage::{NAMESPACE, WITH_WAYPOINT, pods};
use crate::support::lab::manifests::{Key, Manifests, placed_in};

/// The table. `UPDATE_DOCS=1` writes it.
const TABLE: &str = "tests/golden/istio-samples.txt";

const HEAD: &str = "\
Every manifest in Istio's samples, checked together with those that its task applies before it. What means nothing to a mesh
(Deployments, accounts and so on) is left out, as is that a directory has to allot the addresses of Services.\n";

/// What has to be applied before a file, by the beginning of its name; the longest that fits counts.
const BEFORE: [(&str, &[&str]); 21] = [
    ("", &[]),
    ("open-telemetry/loki/telemetry", &["open-telemetry/loki/otel.yaml"]),
    ("open-telemetry/tracing/", &["open-telemetry/otel.yaml"]),
    ("ambient-argo/application/", &["bookinfo/platform/kube/bookinfo.yaml"]),
    (
        "ambient-argo/application/route",
        &["bookinfo/platform/kube/bookinfo.yaml", "bookinfo/platform/kube/bookinfo-versions.yaml"],
    ),
    ("bookinfo/networking/", &["bookinfo/platform/kube/bookinfo.yaml"]),
    (
        "bookinfo/networking/virtual-service-",
        &["bookinfo/platform/kube/bookinfo.yaml", "bookinfo/networking/destination-rule-all.yaml"],
    ),
    (
        "bookinfo/networking/virtual-service-details-v2",
        &[
            "bookinfo/platform/kube/bookinfo.yaml",
            "bookinfo/platform/kube/bookinfo-details-v2.yaml",
            "bookinfo/networking/destination-rule-all.yaml",
        ],
    ),
    (
        "bookinfo/networking/virtual-service-ratings-db",
        &[
            "bookinfo/platform/kube/bookinfo.yaml",
            "bookinfo/platform/kube/bookinfo-ratings-v2.yaml",
            "bookinfo/networking/destination-rule-all.yaml",
        ],
    ),
    (
        "bookinfo/networking/virtual-service-ratings-mysql.",
        &[
            "bookinfo/platform/kube/bookinfo.yaml",
            "bookinfo/platform/kube/bookinfo-ratings-v2-mysql.yaml",
            "bookinfo/networking/destination-rule-all.yaml",
        ],
    ),
    (
        "bookinfo/networking/virtual-service-ratings-mysql-vm",
        &[
            "bookinfo/platform/kube/bookinfo.yaml",
            "bookinfo/platform/kube/bookinfo-ratings-v2-mysql-vm.yaml",
            "bookinfo/networking/destination-rule-all.yaml",
        ],
    ),
    (
        "bookinfo/gateway-api/",
        &["bookinfo/platform/kube/bookinfo.yaml", "bookinfo/platform/kube/bookinfo-versions.yaml"],
    ),
    ("helloworld/helloworld-gateway", &["helloworld/helloworld.yaml"]),
    (
        "helloworld/gateway-api/",
        &["helloworld/helloworld.yaml", "helloworld/gateway-api/helloworld-versions.yaml"],
    ),
    (
        "helloworld/gateway-api/helloworld-route",
        &[
            "helloworld/helloworld.yaml",
            "helloworld/gateway-api/helloworld-versions.yaml",
            "helloworld/gateway-api/helloworld-gateway.yaml",
        ],
    ),
    ("httpbin/httpbin-gateway", &["httpbin/httpbin.yaml"]),
    ("httpbin/gateway-api/", &["httpbin/httpbin.yaml"]),
    ("tcp-echo/tcp-echo-all-v1", &["tcp-echo/tcp-echo-services.yaml"]),
    (
        "tcp-echo/tcp-echo-20-v2",
        &["tcp-echo/tcp-echo-services.yaml", "tcp-echo/tcp-echo-all-v1.yaml"],
    ),
    (
        "tcp-echo/gateway-api/",
        &["tcp-echo/tcp-echo-services.yaml", "tcp-echo/gateway-api/tcp-echo-all-v1.yaml"],
    ),
    ("websockets/route", &["websockets/app.yaml"]),
];

/// What the pages of OpenTelemetry have their reader put into MeshConfig.
const PROVIDERS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - name: otel
      envoyOtelAls: {service: opentelemetry-collector.samples.svc.cluster.local, port: 4317}
    - name: otel-tracing
      opentelemetry: {service: opentelemetry-collector.samples.svc.cluster.local, port: 4317}
";

/// All files that end in `.yaml`, by their path below the samples.
fn manifests(directory: &Path, below: &str, found: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().context("a name of UTF-8")?;
        let path = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
        if entry.file_type()?.is_dir() {
            manifests(&entry.path(), &path, found)?;
        } else if name.ends_with(".yaml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}

/// The objects of a file; `None` if it is no manifest: a template, a description of an API, or a program's settings.
fn objects(text: &str) -> Option<Vec<Value>> {
    let objects = placed_in(NAMESPACE, text).ok()?;
    let is_object = |it: &Value| {
        it["kind"].is_string() && it["apiVersion"].is_string() && it["metadata"]["name"].is_string()
    };
    (!objects.is_empty() && objects.iter().all(is_object)).then_some(objects)
}

/// A directory with these files in it, as a cluster would hold them.
fn directory(path: &Path, files: &[&str]) -> Result<()> {
    let mut manifests = Manifests::new(path)?;
    manifests.apply(WITH_WAYPOINT)?;
    manifests.apply(PROVIDERS)?;
    let mut host = 0_u8;
    for file in files {
        let text = files::read(file)?;
        manifests.apply_in(NAMESPACE, &text)?;
        for mut pod in pods(&text, NAMESPACE)? {
            host = host.checked_add(1).context("that many pods")?;
            let address = format!("10.244.0.{host}");
            pod["status"] = json!({"podIP": address, "podIPs": [{"ip": address}]});
            manifests.apply(&serde_saphyr::to_string(&pod).map_err(|error| anyhow!("{error}"))?)?;
        }
    }
    Ok(())
}

/// What `check` says of each object: the object, and its lines without the file's name.
fn said(path: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    let output = Command::new(env!("CARGO_BIN_EXE_isthmus")).arg("check").arg(path).output()?;
    let mut said: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let Some((severity, rest)) = line.split_once(": ") else { continue };
        let rest = rest.split_once(", document 1: ").map_or(rest, |(_, rest)| rest);
        let (object, reason) = rest.split_once(": ").unwrap_or((rest, ""));
        said.entry(object.to_owned()).or_default().push(format!("{severity}: {reason}"));
    }
    Ok(said)
}

/// Kinds that say nothing of traffic.
const BESIDE: [&str; 5] =
    ["ServiceAccount", "ConfigMap", "Namespace", "ClusterRole", "ClusterRoleBinding"];

/// Why an object is another's to carry out, which its class says.
fn of_others(object: &Value) -> Option<String> {
    let class = object["spec"]["gatewayClassName"].as_str().filter(|it| *it != "istio-waypoint")?;
    Some(format!("is of the class {class}, and left to its controller"))
}

/// Whether a line has nothing to do with what the object asks of a mesh.
fn is_of_no_interest(line: &str) -> bool {
    line.ends_with(" means nothing to the mesh")
        || line.starts_with("note: spec.clusterIP: is not given")
}

fn row(table: &mut String, file: &str, work: &Path) -> Result<()> {
    let text = files::read(file)?;
    let Some(objects) = objects(&text) else {
        writeln!(table, "\n{file}\n  is no manifest")?;
        return Ok(());
    };
    let fits = BEFORE.iter().filter(|(begin, _)| file.starts_with(begin));
    let (_, before) = fits.max_by_key(|(begin, _)| begin.len()).context("the first fits all")?;
    let together: Vec<&str> = before.iter().copied().chain([file]).collect();
    directory(work, &together)?;
    let said = said(work)?;
    fs::remove_dir_all(work)?;
    let (mut good, mut lines) = (Vec::new(), Vec::new());
    for object in &objects {
        let key = Key::of(object)?;
        let of_it = said.get(&key.to_string()).map(Vec::as_slice).unwrap_or_default();
        let nothing = of_it.iter().any(|line| line.ends_with(" means nothing to the mesh"));
        let told: Vec<&String> = of_it.iter().filter(|line| !is_of_no_interest(line)).collect();
        let name = format!("{} {}", key.kind, key.name);
        match of_others(object) {
            Some(why) => lines.push(format!("  {name}: {why}\n")),
            None if told.is_empty() && !nothing && !BESIDE.contains(&key.kind.as_str()) => {
                good.push(name.clone());
            }
            None => (),
        }
        lines.extend(told.into_iter().map(|line| format!("  {name}: {line}\n")));
    }
    writeln!(table, "\n{file}")?;
    if !good.is_empty() {
        writeln!(table, "  accepted whole: {}", good.join(", "))?;
    }
    if good.is_empty() && lines.is_empty() {
        writeln!(table, "  nothing of a mesh")?;
    }
    table.extend(lines);
    Ok(())
}

#[test]
fn every_sample_is_carried_out_or_told() -> Result<()> {
    let mut found = Vec::new();
    manifests(files::directory()?, "", &mut found)?;
    let work =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("samples-{}", std::process::id()));
    let mut table = HEAD.to_owned();
    for file in &found {
        row(&mut table, file, &work).with_context(|| file.clone())?;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(TABLE);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, table)?;
        return Ok(());
    }
    let expected = fs::read_to_string(path)?;
    let news: Vec<&str> = table.lines().filter(|line| !expected.contains(*line)).collect();
    let gone: Vec<&str> = expected.lines().filter(|line| !table.contains(*line)).collect();
    ensure!(table == expected, "{TABLE} is not current: new {news:#?}, gone {gone:#?}");
    Ok(())
}
