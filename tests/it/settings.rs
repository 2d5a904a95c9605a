//! `config/agent.toml` and `docs/settings.md` say what the agent reads: both are made from the statements that
//! read it. After a change, run the tests once with `UPDATE_DOCS=1`.

use std::fmt::Write;
use std::fs;

use isthmus::config::{Description, describe};

use crate::source_text::root;

/// The column at which comments break.
const WIDTH: usize = 110;

#[test]
fn the_commented_settings_file_is_what_the_agent_reads() {
    compare("config/agent.toml", &settings_file(&describe()));
}

#[test]
fn the_reference_of_settings_is_what_the_agent_reads() {
    compare("docs/settings.md", &reference(&describe()));
}

fn settings_file(settings: &[Description]) -> String {
    let mut text = String::from(
        "# The settings of `isthmus run`, with their defaults: a line that is commented out changes nothing.\n\
         # Flags override them; unknown keys are refused.\n",
    );
    let mut section = "";
    for setting in settings {
        let (own, key) = setting.key.rsplit_once('.').unwrap_or(("", setting.key));
        if own != section {
            section = own;
            let _ = write!(text, "\n[{section}]\n");
        } else {
            text.push('\n');
        }
        for line in wrap(setting.meaning) {
            let _ = writeln!(text, "# {line}");
        }
        let _ = writeln!(text, "# {}; default: {}", setting.kind, setting.default);
        let _ = writeln!(text, "#{key} = {}", setting.example);
    }
    text
}

fn reference(settings: &[Description]) -> String {
    let mut text = String::from(
        "# Settings\n\n`isthmus run --config FILE` reads one TOML file; `config/agent.toml` is one with comments. \
         A key with a dot is in the section before the dot. Unknown keys are refused, and all complaints are \
         reported at once.\n\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n",
    );
    for Description { key, kind, default, meaning, .. } in settings {
        let cell = |text: &str| text.replace('|', "\\|").replace('<', "&lt;");
        let (kind, default, meaning) = (cell(kind), cell(default), cell(meaning));
        let _ = writeln!(text, "| `{key}` | {kind} | {default} | {meaning} |");
    }
    text
}

fn wrap(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn compare(file: &str, wanted: &str) {
    let path = root().join(file);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(path.parent().expect("a directory")).expect("make the directory");
        fs::write(&path, wanted).expect("write the file");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "{file} is not what is read; run the tests with UPDATE_DOCS=1");
}
