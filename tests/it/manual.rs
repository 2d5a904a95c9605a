//! Manual pages and completions, as the programs that read them do.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_isthmus");

/// The standard output of the program, which must succeed.
fn isthmus(arguments: &[&str]) -> String {
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// All that a program says; it must succeed.
fn said(output: &Output) -> String {
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).any(|it| it.join(program).exists())
}

/// The subcommands that `--help` of a command lists.
fn subcommands(of: &[&str]) -> Vec<String> {
    let help = isthmus(&[of, &["--help"]].concat());
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let list = list.split("\n\n").next().unwrap();
    // What continues a description is further to the right.
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn pages(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_subcommand_has_a_manual_page_without_faults() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("man1");
    assert_eq!(isthmus(&["man", "--directory", place.to_str().unwrap()]), "");
    let mut expected = BTreeSet::from(["isthmus.1".to_owned()]);
    for command in subcommands(&[]).iter().filter(|it| *it != "help") {
        expected.insert(format!("isthmus-{command}.1"));
        for more in subcommands(&[command]).iter().filter(|it| *it != "help") {
            expected.insert(format!("isthmus-{command}-{more}.1"));
        }
    }
    assert_eq!(pages(&place), expected);
    assert!(expected.contains("isthmus-cni-uninstall.1"), "{expected:?}");
    for page in &expected {
        let file = place.join(page);
        let groff = Command::new("groff").args(["-man", "-ww", "-Tutf8"]).arg(&file).output();
        let text = said(&groff.expect("groff: scripts/setup installs it"));
        assert!(!text.contains("warning:") && !text.contains("error:"), "{page}: {text}");
        let plain = std::fs::read_to_string(&file).unwrap();
        assert!(plain.contains(".SH \"EXIT STATUS\""), "{page}: {plain}");
        let name = page.trim_end_matches(".1").to_uppercase();
        assert!(text.contains(&format!("{name}(1)")), "{page}: {text}");
        assert!(text.contains(concat!("isthmus ", env!("CARGO_PKG_VERSION"))), "{page}: {text}");
        if is_installed("mandoc") {
            let lint = ["-T", "lint", "-W", "error"];
            let output = Command::new("mandoc").args(lint).arg(&file).output().unwrap();
            assert_eq!(said(&output), "");
        }
    }
    let first = std::fs::read_to_string(place.join("isthmus.1")).unwrap();
    assert_eq!(isthmus(&["man"]), first);
}

#[test]
fn shells_can_read_the_completions() {
    let directory = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = isthmus(&["completions", shell]);
        let file = directory.path().join(shell);
        std::fs::write(&file, &script).unwrap();
        // Every machine that builds this has the first.
        if shell == "bash" || is_installed(shell) {
            let checked = Command::new(shell).arg("-n").arg(&file).output().unwrap();
            assert_eq!(said(&checked), "", "{shell}");
        }
        for subcommand in subcommands(&[]) {
            assert!(script.contains(&subcommand), "{shell} does not complete {subcommand}");
        }
    }
    assert_eq!(
        Command::new(PROGRAM).args(["completions", "sh"]).output().unwrap().status.code(),
        Some(2)
    );
}

#[test]
fn bash_completes_subcommands_and_values() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("isthmus");
    std::fs::write(&file, isthmus(&["completions", "bash"])).unwrap();
    let completed = |words: &[&str]| {
        let (last, words) = (words.len(), words.join(" "));
        let ask = format!(
            ". {}; COMP_WORDS=(isthmus {words}); COMP_CWORD={last}; _isthmus isthmus \
             \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo \"${{COMPREPLY[*]}}\"",
            file.display()
        );
        let output = Command::new("bash").args(["--norc", "-c", &ask]).output().unwrap();
        said(&output).trim().to_owned()
    };
    assert_eq!(completed(&["stat"]), "status");
    assert_eq!(completed(&["status", "--output", "j"]), "json");
    assert_eq!(completed(&["completions", "z"]), "zsh");
}
