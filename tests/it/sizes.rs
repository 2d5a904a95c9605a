//! Files and functions that a reader can hold in mind.

use crate::source_text::{SourceFile, files, identifier, item_length};

/// The longest file, in lines, without the tests in it.
const FILE: usize = 600;

/// The longest function, in lines: what fits a screen.
const FUNCTION: usize = 60;

/// Where our own Rust is.
const DIRECTORIES: [&str; 5] = ["src", "examples", "benches", "lab", "tests"];

#[test]
fn no_file_is_too_long() {
    let long: Vec<String> = all()
        .filter(|file| file.code.trim_end().lines().count() > FILE)
        .map(|file| format!("{}: more than {FILE} lines", file.path.display()))
        .collect();
    assert!(long.is_empty(), "\n{}", long.join("\n"));
}

#[test]
fn no_function_is_too_long() {
    let long: Vec<String> = all()
        .flat_map(|file| {
            let functions = functions(&file.code).into_iter();
            let long = functions.filter(|(_, lines)| *lines > FUNCTION);
            long.map(|(name, lines)| format!("{}: {name}: {lines} lines", file.path.display()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(long.is_empty(), "longer than {FUNCTION} lines:\n{}", long.join("\n"));
}

fn all() -> impl Iterator<Item = SourceFile> {
    DIRECTORIES.into_iter().flat_map(files)
}

/// Name and length in lines of every function.
fn functions(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let starts_word = code[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric());
        let name = identifier(&code[at + 3..]);
        if starts_word && !name.is_empty() {
            let body = &code[at..at + item_length(&code[at..])];
            found.push((name.to_owned(), body.lines().count()));
        }
    }
    found
}

#[test]
fn lengths_are_counted_from_the_signature_to_the_closing_brace() {
    let code = "fn a() {\n    if b {\n    }\n}\ntrait T {\n    fn c(&self, d: [u8; 2]);\n}\n\
                pub async fn e(\n    f: impl Fn(u8),\n) -> G {\n}\n";
    let expected = [("a", 4), ("c", 1), ("e", 4)].map(|(name, lines)| (name.to_owned(), lines));
    assert_eq!(functions(code), expected);
}
