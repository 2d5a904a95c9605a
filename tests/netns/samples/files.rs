//! Istio's module and the programs of its samples, fetched and built once a run, outside of any lab: both need the module proxy.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail, ensure};
use parking_lot::Mutex;
use serde_json::Value;

/// Where `go.mod` and `go.sum` pin Istio's module and what is built beside it, by the name of the program.
const MODULES: &str = "scripts/cluster/programs";

fn go(module: &str, arguments: &[&str]) -> Result<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(MODULES).join(module);
    let output = Command::new("go")
        .args(arguments)
        .env("CGO_ENABLED", "0")
        .current_dir(directory)
        .output()
        .context("run go: is it installed?")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "go {arguments:?}: {error}");
    Ok(output.stdout)
}

/// The directory `samples` of Istio's repository.
pub fn directory() -> Result<&'static Path> {
    static DIRECTORY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = DIRECTORY.get_or_init(|| download().map_err(|error| format!("{error:#}")));
    found.as_deref().map_err(|error| anyhow!("{error}"))
}

fn download() -> Result<PathBuf> {
    // The version is that of go.mod, and go.sum holds its checksum.
    let answer = go("echo", &["mod", "download", "-json", "istio.io/istio"])?;
    let answer: Value = serde_json::from_slice(&answer)?;
    let directory = answer["Dir"].as_str().context("no directory of the module")?;
    Ok(Path::new(directory).join("samples"))
}

/// A file below `samples`, byte for byte.
pub fn read(path: &str) -> Result<String> {
    fs::read_to_string(directory()?.join(path)).with_context(|| path.to_owned())
}

/// The program of an image, by its short name: `tcp-echo`, `go-httpbin` or `fortio`.
pub fn program(name: &'static str) -> Result<PathBuf> {
    static PROGRAMS: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut programs = PROGRAMS.lock();
    if let Some(path) = programs.get(name) {
        return Ok(path.clone());
    }
    let (module, package) = match name {
        "tcp-echo" => ("echo", "istio.io/istio/samples/tcp-echo/src"),
        "go-httpbin" => ("httpbin", "github.com/mccutchen/go-httpbin/v2/cmd/go-httpbin"),
        "fortio" => ("fortio", "fortio.org/fortio"),
        _ => bail!("no program {name}"),
    };
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    go(module, &["build", "-o", target.to_str().context("a path of UTF-8")?, package])?;
    programs.insert(name, target.clone());
    Ok(target)
}
