//! The order of the rooms: a room uses only rooms of lower layers. The table is the design's; a new room
//! must be entered here before it can be used.

use std::collections::BTreeSet;
use std::path::Path;

use crate::source_text::{SourceFile, files, identifier};

/// Room and layer. The program itself stands above its subcommands.
const LAYERS: [(&str, u8); 30] = [
    ("main", 10),
    ("cli", 9),
    ("app", 8),
    // The parsers, for fuzzers; not in what is shipped.
    ("fuzz", 8),
    ("node", 7),
    ("admin", 7),
    ("controller", 7),
    ("l4", 6),
    ("l7", 6),
    ("dns", 6),
    ("reach", 5),
    ("pool", 4),
    ("tunnel", 3),
    ("policy", 3),
    ("route", 3),
    ("balance", 3),
    ("source", 3),
    ("redirect", 3),
    ("resolver", 3),
    ("takeover", 3),
    ("workloads", 3),
    ("cni", 3),
    ("world", 2),
    ("identity", 2),
    ("sock", 2),
    ("config", 2),
    ("model", 1),
    ("telemetry", 1),
    ("base", 0),
    // Declares the rooms and does nothing else.
    ("lib", 0),
];

/// Names that follow `crate::` without being rooms: what `lib.rs` might export.
const NO_ROOMS: [&str; 1] = ["self"];

#[test]
fn rooms_use_only_lower_layers() {
    let mut broken = Vec::new();
    for file in files("src") {
        let module = module_path(&file.path);
        let room = module[0].as_str();
        let Some(own) = layer(room) else {
            broken.push(format!("{}: the room {room} is not in the table", file.path.display()));
            continue;
        };
        for used in rooms_used(&file, &module).iter().filter(|used| *used != room) {
            match layer(used) {
                Some(other) if other < own => {}
                Some(other) => broken.push(format!(
                    "{}: {room} (layer {own}) uses {used} (layer {other})",
                    file.path.display()
                )),
                None => broken.push(format!("{}: unknown room {used}", file.path.display())),
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_room_of_the_library_is_in_the_table() {
    let library = files("src").into_iter().find(|file| file.path == Path::new("src/lib.rs"));
    let library = library.expect("src/lib.rs");
    let rooms: Vec<&str> = library
        .code
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    assert!(rooms.len() > 10, "{rooms:?}");
    for room in rooms {
        assert!(layer(room).is_some(), "{room}");
    }
}

fn layer(room: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == room).map(|(_, layer)| *layer)
}

/// `src/l7/client/half.rs` is the module `l7::client::half`.
fn module_path(path: &Path) -> Vec<String> {
    let inside = path.strip_prefix("src").unwrap_or(path).with_extension("");
    inside.iter().map(|part| part.to_string_lossy().into_owned()).collect()
}

/// The rooms that a file names by `crate::`, by the library's name, or by enough `super::`.
fn rooms_used(file: &SourceFile, module: &[String]) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    let mut before = ' ';
    for (at, character) in file.code.char_indices() {
        let starts_word = !before.is_alphanumeric() && before != '_' && before != ':';
        before = character;
        if starts_word && let Some(rest) = from_root(&file.code[at..], module.len()) {
            rooms.extend(first_names(rest));
        }
    }
    rooms.retain(|room| !NO_ROOMS.contains(&room.as_str()));
    rooms
}

/// What follows a path's start that means the crate's root; `depth` is how many `super` lead there.
fn from_root(text: &str, depth: usize) -> Option<&str> {
    if let Some(rest) = text.strip_prefix("crate::").or_else(|| text.strip_prefix("isthmus::")) {
        return Some(rest);
    }
    let mut rest = text;
    for _ in 0..depth {
        rest = rest.strip_prefix("super::")?;
    }
    Some(rest)
}

/// The name at the start, or the first name of each path in a group.
fn first_names(text: &str) -> Vec<String> {
    let Some(group) = text.strip_prefix('{') else {
        return vec![identifier(text).to_owned()];
    };
    let mut names = Vec::new();
    let mut depth = 0;
    let mut expected = true;
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expected = true,
            c if expected && (c.is_alphanumeric() || c == '_') => {
                names.push(identifier(&group[at..]).to_owned());
                expected = false;
            }
            _ => {}
        }
    }
    names
}

#[test]
fn uses_are_found_in_every_form() {
    let file = SourceFile {
        path: "src/l4/inbound.rs".into(),
        code: "use crate::pool::Pool;\nuse crate::{base::{Str, names}, model::Workload, world};\n\
               use super::super::sock;\nuse super::listen;\nfn a(b: crate::policy::Gate) {}\n\
               let mycrate::nothing = x::crate_y;"
            .to_owned(),
    };
    let used = rooms_used(&file, &module_path(&file.path));
    let expected = ["base", "model", "policy", "pool", "sock", "world"];
    assert_eq!(used.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}
