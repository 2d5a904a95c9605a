//! Rust source read as text: enough of the language for the tests of structure. Not a parser: it relies on
//! rustfmt's layout and knows no macros.

use std::fs;
use std::path::{Path, PathBuf};

/// One source file with everything blanked that is not code.
pub struct SourceFile {
    /// Relative to the repository.
    pub path: PathBuf,
    /// Comments, strings and `#[cfg(test)]` items are spaces; line numbers are those of the file.
    pub code: String,
}

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below `directory`, without those that hold only tests.
pub fn files(directory: &str) -> Vec<SourceFile> {
    paths(directory)
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a source file is readable");
            let code = without_tests(&blank(&text));
            let path = path.strip_prefix(root()).expect("below the repository").to_owned();
            SourceFile { path, code }
        })
        .collect()
}

/// The paths of all Rust files below `directory`, without those that hold only tests.
pub fn paths(directory: &str) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    walk(&root().join(directory), &mut paths);
    paths.sort();
    paths
}

fn walk(directory: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a source directory is readable") {
        let path = entry.expect("a directory entry").path();
        let tests = path.file_stem().is_some_and(|name| name == "tests");
        if path.is_dir() && !tests {
            walk(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !tests {
            paths.push(path);
        }
    }
}

/// Blanks comments, strings and character literals, keeping every line break.
pub fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = literal_or_comment(rest, out.chars().next_back());
        if length == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    out
}

/// The length of the comment or literal at the start of `text`; 0 when there is none.
fn literal_or_comment(text: &str, before: Option<char>) -> usize {
    let until = |end: &str| text.find(end).map_or(text.len(), |at| at + end.len());
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return until("*/");
    }
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if !in_word && (text.starts_with("r\"") || text.starts_with("r#")) {
        let hashes = text[1..].chars().take_while(|c| *c == '#').count();
        if text[1 + hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = 2 + hashes;
            return text[start..].find(&end).map_or(text.len(), |at| start + at + end.len());
        }
    }
    match text.as_bytes()[0] {
        b'"' => quoted(text, '"'),
        // A lifetime has no closing quote right after its first character.
        b'\'' if text.starts_with("'\\") || text.chars().nth(2) == Some('\'') => quoted(text, '\''),
        _ => 0,
    }
}

/// The length of a quoted literal with backslash escapes.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            other if other == quote => return at + other.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// Blanks the items that `#[cfg(test)]` marks.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        out += &rest[..at];
        let length = MARK.len() + item_length(&rest[at + MARK.len()..]);
        out.extend(rest[at..at + length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[at + length..];
    }
    out + rest
}

/// The length of the item at the start of `code`: to its semicolon, or to its closing brace.
pub fn item_length(code: &str) -> usize {
    let mut depth = 0;
    let mut nested = 0;
    for (at, character) in code.char_indices() {
        match character {
            '(' | '[' => nested += 1,
            ')' | ']' => nested -= 1,
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 && nested == 0 {
                    return at + 1;
                }
            }
            ';' if depth == 0 && nested == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// The identifier at the start of `text`, empty when there is none.
pub fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

#[test]
fn what_is_not_code_is_blanked() {
    let text = "let a = \"x\\\"y\"; // crate::b\nlet c = 'd'; /* e\n */ f::<'g>(r#\"h\"i\"#, '\\'', b\"j\");";
    let code = blank(text);
    for gone in ["x", "y", "crate", "d", "e\n", "h", "i", "j"] {
        assert!(!code.replace("let", "").contains(gone), "{gone} in {code}");
    }
    assert!(code.contains("f::<'g>("), "{code}");
    assert_eq!(code.lines().count(), text.lines().count());
}

#[test]
fn test_items_are_blanked() {
    let code =
        "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n#[cfg(test)]\nuse c;\nfn d() {}\n";
    let left = without_tests(code);
    assert!(left.contains("fn a") && left.contains("fn d"), "{left}");
    assert!(!left.contains("fn b") && !left.contains("use c"), "{left}");
}
