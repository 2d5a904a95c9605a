//! The order of the code: a room uses only rooms of lower layers, and no files of a room use each other in a circle. The
//! table is the design's; a new room must be entered here before it can be used.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::modules::{Library, Module};

/// Room and layer. The program itself stands above its subcommands.
pub const LAYERS: [(&str, u8); 46] = [
    ("main", 13),
    ("cli", 12),
    ("app", 11),
    // The parsers, for fuzzers; not in what is shipped.
    ("fuzz", 11),
    ("node", 10),
    ("admin", 10),
    ("analyze", 10),
    ("check", 10),
    ("controller", 10),
    ("explain", 10),
    ("l4", 9),
    ("l7", 9),
    ("dns", 9),
    ("reach", 8),
    ("pool", 7),
    ("tunnel", 6),
    ("gate", 6),
    ("route", 6),
    ("balance", 6),
    ("source", 6),
    ("quota", 6),
    ("redirect", 6),
    ("resolver", 6),
    ("takeover", 6),
    ("otlp", 6),
    ("jwks", 6),
    ("workloads", 6),
    ("cni", 6),
    ("world", 5),
    ("policy", 4),
    ("rules", 4),
    ("ext_authz", 4),
    ("identity", 4),
    ("sock", 4),
    ("config", 4),
    ("model", 3),
    ("observe", 3),
    ("telemetry", 2),
    ("filter", 1),
    ("jwt", 1),
    ("trace", 1),
    ("traffic", 1),
    ("tls", 1),
    ("expression", 1),
    ("base", 0),
    // Declares the rooms and does nothing else.
    ("lib", 0),
];

/// The layers inside of a room: of its modules, by their first name below it. A room that stands here lists all of its modules;
/// its front file stands above them.
const INSIDE: [(&str, &[(&str, u8)]); 1] = [(
    "l7",
    &[
        // Open the room to benchmarks and to fuzzers; not in what is shipped.
        ("bench", 8),
        ("fuzz", 8),
        // What both halves decide, for people.
        ("explained", 8),
        ("client", 7),
        ("destination", 7),
        ("worker", 6),
        ("exchange", 5),
        ("upstream", 4),
        ("message", 3),
        ("http1", 2),
        ("budget", 1),
        ("tasks", 0),
        ("version", 0),
    ],
)];

#[test]
fn rooms_use_only_lower_layers() {
    let library = Library::read();
    let mut broken = Vec::new();
    for module in library.modules() {
        let (file, room) = (module.file.display(), room(module));
        let Some(own) = layer(room) else {
            broken.push(format!("{file}: the room {room} is not in the table"));
            continue;
        };
        for used in library.rooms_used(module).iter().filter(|used| *used != room) {
            match layer(used) {
                Some(other) if other < own => {}
                Some(other) => {
                    broken
                        .push(format!("{file}: {room} (layer {own}) uses {used} (layer {other})"));
                }
                None => broken.push(format!("{file}: unknown room {used}")),
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_room_is_in_the_table_and_the_table_has_no_others() {
    let library = Library::read();
    let rooms: BTreeSet<&str> = library.modules().map(room).collect();
    let table: BTreeSet<&str> = LAYERS.iter().map(|(room, _)| *room).collect();
    assert_eq!(rooms, table);
}

#[test]
fn modules_inside_of_a_room_use_only_lower_layers() {
    let library = Library::read();
    for (name, layers) in INSIDE {
        let broken = broken_inside(&library, name, layers);
        assert!(broken.is_empty(), "\n{}", broken.join("\n"));
    }
}

/// What a room's modules use although they must not, for people.
fn broken_inside(library: &Library, name: &str, layers: &[(&str, u8)]) -> Vec<String> {
    let files: BTreeMap<&Path, &Module> =
        library.modules().map(|module| (module.file.as_path(), module)).collect();
    let layer = |module: &Module| match module.name.get(1) {
        Some(part) => layers.iter().find(|(name, _)| name == part).map(|(_, layer)| *layer),
        None => Some(u8::MAX),
    };
    let mut broken = Vec::new();
    for module in library.modules().filter(|module| room(module) == name) {
        let file = module.file.display();
        let Some(own) = layer(module) else {
            broken.push(format!("{file}: is not in the table of {name}"));
            continue;
        };
        let used = library.files_used(module).into_iter().filter_map(|file| files.get(file));
        // The front file defines what all of them share.
        let part = |it: &Module| it.name.get(1).cloned();
        let elsewhere =
            used.filter(|it| room(it) == name && part(it).is_some() && part(it) != part(module));
        for used in elsewhere.filter(|used| layer(used).is_some_and(|layer| layer >= own)) {
            broken.push(format!("{file}: uses {}, which is not below it", used.file.display()));
        }
    }
    broken
}

#[test]
fn no_files_of_a_room_use_each_other_in_a_circle() {
    let library = Library::read();
    let uses = uses_inside(&library);
    let found = in_circles(&uses);
    let circles: Vec<String> = found.iter().map(|file| described(&uses, &found, file)).collect();
    assert!(
        circles.is_empty(),
        "these files use each other in a circle; move down what they share:\n{}",
        circles.join("\n")
    );
}

/// The files of its own room that each file uses. The front file of a folder defines the vocabulary of the files in
/// the folder: that they use it makes no circle.
type Uses<'l> = BTreeMap<&'l Path, BTreeSet<&'l Path>>;

fn uses_inside(library: &Library) -> Uses<'_> {
    // Of the modules of one file the first is the file's own.
    let mut names: BTreeMap<&Path, &[String]> = BTreeMap::new();
    for module in library.modules() {
        names.entry(&module.file).or_insert(&module.name);
    }
    let mut uses = Uses::new();
    for module in library.modules() {
        let counts = |file: &&Path| {
            let name = names.get(file).copied().unwrap_or_default();
            name.first() == module.name.first() && !module.name.starts_with(name)
        };
        let used = library.files_used(module).into_iter().filter(counts);
        uses.entry(&module.file).or_default().extend(used);
    }
    uses
}

/// The files that come back to themselves along their uses.
fn in_circles<'l>(uses: &Uses<'l>) -> BTreeSet<&'l Path> {
    uses.keys().copied().filter(|file| reached(uses, file).contains(file)).collect()
}

/// The files that a file uses, and those that these use, and so on.
fn reached<'l>(uses: &Uses<'l>, from: &Path) -> BTreeSet<&'l Path> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&Path> = uses[from].iter().copied().collect();
    while let Some(file) = next.pop() {
        if reached.insert(file) {
            next.extend(&uses[file]);
        }
    }
    reached
}

/// A file, and those of its circle that it uses.
fn described(uses: &Uses<'_>, circles: &BTreeSet<&Path>, file: &Path) -> String {
    let back = |used: &&&Path| circles.contains(**used) && reached(uses, used).contains(file);
    let used: Vec<String> =
        uses[file].iter().filter(back).map(|it| it.display().to_string()).collect();
    format!("{} uses {}", file.display(), used.join(", "))
}

fn layer(room: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == room).map(|(_, layer)| *layer)
}

/// The first name of a module; `lib` for the crate's root.
fn room(module: &Module) -> &str {
    module.name.first().map_or("lib", String::as_str)
}

#[test]
fn circles_are_found_and_chains_are_not() {
    let mut library = Library::default();
    for (file, text) in [
        ("src/a.rs", "mod b;\nmod c;\nmod d;\npub struct A;\nfn a() { b::f(); }"),
        ("src/a/b.rs", "pub fn f() { super::c::f(); super::A; }"),
        ("src/a/c.rs", "use super::d::f as g;\npub fn f() { g(); }"),
        ("src/a/d.rs", "pub fn f() { super::b::f(); }"),
        ("src/e.rs", "pub fn e() { crate::a::b::f(); }"),
    ] {
        library.add(Path::new(file), text);
    }
    let uses = uses_inside(&library);
    let files = ["src/a/b.rs", "src/a/c.rs", "src/a/d.rs"].map(Path::new);
    assert_eq!(in_circles(&uses), BTreeSet::from(files));
    assert_eq!(described(&uses, &in_circles(&uses), files[0]), "src/a/b.rs uses src/a/c.rs");

    let layers = [("b", 2), ("c", 1)];
    let broken = broken_inside(&library, "a", &layers);
    assert_eq!(broken, ["src/a/d.rs: is not in the table of a"]);
    let broken = broken_inside(&library, "a", &[("b", 2), ("c", 1), ("d", 0)]);
    assert_eq!(broken, ["src/a/d.rs: uses src/a/b.rs, which is not below it"]);
}
