//! Objects by the look of their lines: keys that every object has, quoted or not, in block style or in braces. For what stands
//! behind the place where the parser gave up.

use super::super::Claim;

/// An object that is being put together.
#[derive(Default)]
struct Draft {
    depth: usize,
    api_version: Option<String>,
    kind: Option<String>,
    name: Option<String>,
    namespace: Option<String>,
    /// The depth of `metadata`, while its fields are read, and that of the first of them.
    metadata: Option<(usize, Option<usize>)>,
}

/// What braces weigh against indentation, which has no meaning inside of them.
const BRACE: usize = 1 << 20;
/// What a key and a name have room in: all of JSON may stand in one line.
const LONGEST: usize = 512;

pub(super) fn scan(text: &str) -> Vec<Claim> {
    let mut drafts: Vec<Draft> = Vec::new();
    let mut braces = 0;
    for line in text.lines() {
        let indented = line.trim_start_matches([' ', '\t', '-']);
        if indented.starts_with('#') {
            continue;
        }
        let mut indentation = line.len() - indented.len();
        let mut rest = indented;
        loop {
            if let Some((key, value)) = pair(beginning(rest)) {
                let depth = if braces > 0 { braces * BRACE } else { indentation };
                take(&mut drafts, depth, key, value);
            }
            // The next key of this line stands behind a brace or a comma.
            let Some(at) = rest.find(['{', '}', '[', ']', ',']) else { break };
            match rest.as_bytes().get(at) {
                Some(b'{' | b'[') => braces += 1,
                Some(b'}' | b']') => braces = usize::saturating_sub(braces, 1),
                _ => {}
            }
            rest = rest.get(at + 1..).unwrap_or_default().trim_start();
            indentation = indentation.saturating_add(1);
        }
    }
    drafts.into_iter().filter_map(Draft::finish).collect()
}

/// As much as a key and what it says take.
fn beginning(text: &str) -> &str {
    let mut length = text.len().min(LONGEST);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    text.get(..length).unwrap_or_default()
}

/// A key at the start of `text`, and what is behind it up to the end of a flow's entry.
fn pair(text: &str) -> Option<(&str, String)> {
    let (key, value) = text.split_once(':')?;
    let key = key.trim().trim_matches(['"', '\'']);
    Some((key, scalar(value)))
}

/// A plain or quoted text without its comment, tag or anchor.
fn scalar(value: &str) -> String {
    let value = value.split(" #").next().unwrap_or_default();
    let mut words = value.split_whitespace().skip_while(|word| word.starts_with(['!', '&']));
    let value = words.next().unwrap_or_default();
    let end = value.find(['{', '}', '[', ']', ',']).unwrap_or(value.len());
    value.get(..end).unwrap_or_default().trim_matches(['"', '\'']).to_owned()
}

fn take(drafts: &mut Vec<Draft>, depth: usize, key: &str, value: String) {
    if let Some(draft) = drafts.last_mut()
        && draft.is_of_metadata(depth)
    {
        draft.field(depth, key, value);
        return;
    }
    if !["apiVersion", "kind", "metadata"].contains(&key) {
        return;
    }
    let again = |draft: &Draft| match key {
        "apiVersion" => draft.api_version.is_some(),
        "kind" => draft.kind.is_some(),
        _ => draft.metadata.is_some() || draft.name.is_some() || draft.namespace.is_some(),
    };
    // Metadata may be indented wrongly.
    let near = |draft: &Draft| draft.depth == depth || key == "metadata" && draft.depth < depth;
    let belongs = |draft: &Draft| near(draft) && !again(draft);
    // A reference, which says a kind and no version, begins no object.
    let begins = key != "kind" || drafts.last().is_none_or(|draft| draft.depth >= depth);
    match drafts.last_mut().filter(|draft| belongs(draft)) {
        Some(draft) => draft.identity(depth, key, value),
        None if begins => {
            let mut draft = Draft { depth, ..Draft::default() };
            draft.identity(depth, key, value);
            drafts.push(draft);
        }
        None => {}
    }
}

impl Draft {
    /// A key at this depth is one of the metadata.
    fn is_of_metadata(&mut self, depth: usize) -> bool {
        let inside = self.metadata.is_some_and(|(of, _)| depth > of);
        if !inside && self.metadata.is_some_and(|(_, first)| first.is_some()) {
            // Its end: the fields of what comes next are not its own.
            self.metadata = Some((usize::MAX, None));
        }
        inside
    }

    fn identity(&mut self, depth: usize, key: &str, value: String) {
        match key {
            "apiVersion" => self.api_version = Some(value),
            "kind" => self.kind = Some(value),
            _ => self.metadata = Some((depth, None)),
        }
    }

    fn field(&mut self, depth: usize, key: &str, value: String) {
        let Some((_, first)) = &mut self.metadata else { return };
        if *first.get_or_insert(depth) != depth {
            return;
        }
        match key {
            "name" => self.name = Some(value),
            "namespace" => self.namespace = Some(value),
            _ => {}
        }
    }

    fn finish(self) -> Option<Claim> {
        let kind = self.kind?;
        let namespace = self.namespace.filter(|text| !text.is_empty());
        Some(Claim::of(
            self.api_version.as_deref(),
            &kind,
            self.name.as_deref(),
            namespace.as_deref(),
        ))
    }
}
