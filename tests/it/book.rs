//! The documentation as a book: every page is in the table of contents, and every relative link leads to a file and, with an
//! anchor, to a heading. `scripts/book` builds it.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::source_text::root;

/// The table of contents, from which mdBook makes the book.
const SUMMARY: &str = "docs/SUMMARY.md";

/// Pages that are not in `docs/`.
const OTHER_PAGES: [&str; 5] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "scripts/cluster/README.md",
];

#[test]
fn every_page_is_in_the_table_of_contents() {
    let listed: Vec<String> =
        links(&read(SUMMARY)).into_iter().map(|link| resolve(SUMMARY, &link)).collect();
    let unique: BTreeSet<&String> = listed.iter().collect();
    assert_eq!(unique.len(), listed.len(), "{SUMMARY} lists a page twice: {listed:#?}");
    let missing: Vec<String> = pages()
        .into_iter()
        .filter(|page| page != SUMMARY && page != "README.md" && !unique.contains(page))
        .collect();
    assert!(missing.is_empty(), "{SUMMARY} does not list {missing:#?}");
}

#[test]
fn every_relative_link_resolves() {
    let texts: HashMap<String, String> =
        pages().into_iter().map(|page| (page.clone(), read(&page))).collect();
    let (mut checked, mut broken) = (0, BTreeSet::new());
    for (page, text) in &texts {
        for link in links(text).into_iter().filter(|link| !link.contains("://")) {
            checked += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { page.clone() } else { resolve(page, file) };
            let has_heading = || match texts.get(&target) {
                Some(text) => anchors(text).contains(anchor),
                None => false,
            };
            if !root().join(&target).exists() || !(anchor.is_empty() || has_heading()) {
                broken.insert(format!("{page}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere: {broken:#?}");
    assert!(checked > 100, "links are found");
}

#[test]
fn links_and_anchors_are_read_as_the_book_reads_them() {
    let page = "# A page's *name*: `x_y`, etc.\n\n[a](b.md) `[no](code)` [c](d.md#e)\n\n\
                ```sh\n# no heading [no](link)\n```\n\n## Twice\n\n## Twice\n";
    assert_eq!(links(page), ["b.md", "d.md#e"]);
    let expected = ["a-pages-name-x_y-etc", "twice", "twice-1"].map(str::to_owned);
    assert_eq!(anchors(page), expected.into_iter().collect());
    assert_eq!(resolve("docs/a.md", "../b/./c.md"), "b/c.md");
}

/// Every page of the repository, relative to it.
fn pages() -> Vec<String> {
    let docs = fs::read_dir(root().join("docs")).expect("docs is readable");
    let docs = docs.map(|entry| entry.expect("a directory entry").path());
    let docs = docs.filter(|path| path.extension().is_some_and(|it| it == "md"));
    let relative = |path: PathBuf| text(path.strip_prefix(root()).expect("below the repository"));
    docs.map(relative).chain(OTHER_PAGES.map(str::to_owned)).collect()
}

/// The targets of a page's links, in order.
fn links(page: &str) -> Vec<String> {
    let prose: String = prose(page)
        .map(|line| {
            let outside_of_code = line.split('`').step_by(2);
            outside_of_code.collect::<Vec<_>>().join("`") + "\n"
        })
        .collect();
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(str::to_owned).collect()
}

/// The anchors of a page's headings. GitHub and mdBook derive them alike: letters, digits, `-` and `_` of the heading in lower
/// case, spaces as `-`, a number behind what occurs again.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let headings = prose(page).filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|it| it.is_alphanumeric() || " -_".contains(*it));
        let anchor: String = kept.map(|it| if it == ' ' { '-' } else { it }).collect();
        let times = seen.entry(anchor.clone()).and_modify(|times| *times += 1).or_default();
        if *times == 0 { anchor } else { format!("{anchor}-{times}") }
    };
    headings.map(anchor).collect()
}

/// The lines of a page that are not in a code block.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    page.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// What a relative link of `page` leads to, relative to the repository.
fn resolve(page: &str, link: &str) -> String {
    let mut path = Path::new(page).parent().expect("a page is a file").to_owned();
    for component in Path::new(link).components() {
        match component {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    text(&path)
}

fn text(path: &Path) -> String {
    path.to_str().expect("paths are UTF-8").to_owned()
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}
