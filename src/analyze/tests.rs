//! Golden tests: each directory `tests/golden/analyze/<name>` of manifests and what is found there, `<name>.snap`.

use std::path::{Path, PathBuf};

use super::*;
use crate::source;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn analyzed(directory: &Path, settings: &TranslateSettings) -> Report {
    let objects = source::read(directory).expect("a directory of manifests");
    analyze(&objects, settings, Extent::Part)
}

#[test]
fn each_directory_has_the_findings_that_its_snapshot_lists() {
    let folder = root().join("tests/golden/analyze");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .expect("the golden directories")
        .filter_map(|entry| entry.ok().filter(|it| it.path().is_dir()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert!(names.len() > 4, "{names:?}");
    let settings = TranslateSettings {
        tls_directory: Some("/nowhere/tls".into()),
        ..TranslateSettings::default()
    };
    let mut seen = std::collections::BTreeSet::new();
    for name in &names {
        let report = analyzed(&folder.join(name), &settings);
        seen.extend(report.findings.iter().map(|finding| finding.code));
        let mut insta = insta::Settings::clone_current();
        insta.set_snapshot_path(&folder);
        insta.set_prepend_module_to_snapshot(false);
        insta.set_omit_expression(true);
        insta.bind(|| insta::assert_snapshot!(name.as_str(), report.to_string()));
    }
    let never: Vec<&str> =
        CODES.iter().filter(|row| !seen.contains(&row.code)).map(|row| row.id).collect();
    assert!(never.is_empty(), "no golden directory has {never:?}");
}

/// Bookinfo as a cluster has it, and what the demo adds to it.
#[test]
fn good_manifests_have_no_findings() {
    let bookinfo = root().join("config/bookinfo");
    let directory = tempfile::tempdir().expect("a directory");
    for file in [
        "cluster/bookinfo.yaml",
        "cluster/clients.yaml",
        "bookinfo-versions.yaml",
        "mesh/waypoint.yaml",
        "mesh/reviews-route.yaml",
        "mesh/productpage-l4.yaml",
        "mesh/productpage-waypoint.yaml",
        "mesh/ratings-get-only.yaml",
        "mesh/peer-authentication-strict.yaml",
    ] {
        let text = std::fs::read_to_string(bookinfo.join(file)).expect("a manifest");
        let namespace = "kind: Namespace\nmetadata:\n";
        let labels =
            "  labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}\n";
        let text = text.replace(namespace, &format!("{namespace}{labels}"));
        let name = file.replace('/', "-");
        std::fs::write(directory.path().join(name), text).expect("a manifest is written");
    }
    for path in [directory.path(), &root().join("tests/golden/analyze/good")] {
        let report = analyzed(path, &TranslateSettings::default());
        assert!(report.counts.services > 0 && report.counts.policies > 0, "{report}");
        assert!(report.findings.is_empty(), "{}:\n{report}", path.display());
    }
}

#[test]
fn a_report_is_json_with_the_number_of_each_code() {
    let folder = root().join("tests/golden/analyze/routes");
    let report = analyzed(&folder, &TranslateSettings::default());
    let json = serde_json::to_value(&report).expect("a report is JSON");
    let first = &json["findings"][0];
    assert!(first["code"].as_str().is_some_and(|code| code.starts_with("ISA0")), "{first}");
    assert!(first["severity"].is_string() && first["mend"].is_string(), "{first}");
    assert_eq!(json["counts"]["errors"], report.counts.errors);
}
