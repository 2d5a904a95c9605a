//! Finds out what a document was meant to be when its syntax is broken: a policy must not vanish because of a wrong
//! indentation. It only looks at lines of the usual block form, and what it finds is used for nothing but to keep the
//! object's last good version, or to deny.

use crate::base::ObjectKey;
use crate::source::objects::{DEFAULT_NAMESPACE, Kind, Recognised};

/// Kind and key, as far as lines tell them.
pub(super) fn scan(text: &str) -> (Option<Kind>, Option<ObjectKey>) {
    let (mut api_version, mut kind, mut name, mut namespace) = (None, None, None, None);
    let mut in_metadata = false;
    let mut indentation = None;
    for line in text.lines() {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let depth = line.len() - content.len();
        let Some((key, value)) = content.split_once(':') else { continue };
        if depth == 0 {
            in_metadata = key == "metadata";
            match key {
                "apiVersion" => api_version = Some(scalar(value)),
                "kind" => kind = Some(scalar(value)),
                _ => {}
            }
        } else if in_metadata && *indentation.get_or_insert(depth) == depth {
            match key {
                "name" => name = Some(scalar(value)),
                "namespace" => namespace = Some(scalar(value)),
                _ => {}
            }
        }
    }
    let kind = kind.and_then(|kind| kind_of(api_version, kind));
    let key = kind.zip(name.filter(|name| !name.is_empty())).map(|(kind, name)| {
        let namespace = namespace.filter(|text| !text.is_empty()).unwrap_or(DEFAULT_NAMESPACE);
        ObjectKey::new(if kind.is_namespaced() { namespace } else { "" }, name)
    });
    (kind, key)
}

fn kind_of(api_version: Option<&str>, kind: &str) -> Option<Kind> {
    let Some(api_version) = api_version else { return Kind::named(kind) };
    match Kind::recognise(api_version, kind) {
        Recognised::Kind(kind) | Recognised::OtherVersion(kind) => Some(kind),
        Recognised::Unsupported | Recognised::Foreign => None,
    }
}

/// A plain or quoted text without its comment.
fn scalar(value: &str) -> &str {
    let value = value.split(" #").next().unwrap_or_default().trim();
    let quoted = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    quoted('"').or_else(|| quoted('\'')).unwrap_or(value)
}
