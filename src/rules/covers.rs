//! Whether one match takes all that another takes, so that of the two the other is never reached.

use crate::model::{HeaderMatch, HttpMatch, MoreMatch, PathMatch, TextMatch, Without};

/// Expressions that take every path.
const ANY_PATH: [&str; 4] = ["^(?:.*)$", "^(?:/.*)$", "^(?:^.*$)$", "^(?:^/.*$)$"];

/// Whether every request with a path that fulfils `narrow` certainly fulfils `wide`. `false` where that is not known.
pub fn covers(wide: &HttpMatch, narrow: &HttpMatch) -> bool {
    let has_header = |it: &HeaderMatch| {
        narrow.headers.iter().any(|of| it.name == of.name && text(&it.value, &of.value))
    };
    path(&wide.path, &narrow.path)
        && wide.method.as_ref().is_none_or(|method| narrow.method.as_ref() == Some(method))
        && wide.headers.iter().all(has_header)
        && wide.query.iter().all(|(name, value)| {
            narrow.query.iter().any(|(of, other)| name == of && text(value, other))
        })
        && wide.more.as_ref().is_none_or(|wide| more(wide, narrow))
}

fn more(wide: &MoreMatch, narrow: &HttpMatch) -> bool {
    let MoreMatch {
        method,
        authority,
        present,
        present_query,
        without,
        source_namespace,
        source_labels,
    } = wide;
    let none = MoreMatch::default();
    let other = narrow.more.as_deref().unwrap_or(&none);
    let has_method = |wanted: &TextMatch| match &narrow.method {
        Some(method) => wanted.matches(method.as_str()),
        None => optional(wanted, &other.method),
    };
    let is_there = |name| {
        other.present.contains(name) || narrow.headers.iter().any(|header| header.name == *name)
    };
    let is_asked = |name| {
        other.present_query.contains(name) || narrow.query.iter().any(|(asked, _)| asked == name)
    };
    let excludes = |it: &Without| other.without.contains(it);
    method.as_ref().is_none_or(has_method)
        && authority.as_ref().is_none_or(|wanted| optional(wanted, &other.authority))
        && present.iter().all(is_there)
        && present_query.iter().all(is_asked)
        && without.iter().all(excludes)
        && (source_namespace.is_none() || *source_namespace == other.source_namespace)
        && (source_labels.is_none() || *source_labels == other.source_labels)
}

fn path(wide: &PathMatch, narrow: &PathMatch) -> bool {
    if takes_all(wide) {
        return true;
    }
    match wide {
        PathMatch::Exact(wide) => matches!(narrow, PathMatch::Exact(it) if it == wide),
        PathMatch::ExactAnyCase(wide) => match narrow {
            PathMatch::Exact(it) => it.eq_ignore_ascii_case(wide),
            PathMatch::ExactAnyCase(it) => it == wide,
            _ => false,
        },
        PathMatch::Prefix(wide) => {
            let wide = wide.trim_end_matches('/');
            match narrow {
                PathMatch::Exact(it) | PathMatch::Prefix(it) => {
                    let below = it.strip_prefix(wide);
                    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                }
                PathMatch::Starts(it) => {
                    it.strip_prefix(wide).is_some_and(|rest| rest.starts_with('/'))
                }
                _ => false,
            }
        }
        PathMatch::Starts(wide) => match narrow {
            PathMatch::Exact(it) | PathMatch::Prefix(it) | PathMatch::Starts(it) => {
                it.starts_with(wide.as_str())
            }
            _ => false,
        },
        PathMatch::StartsAnyCase(wide) => match narrow {
            PathMatch::Exact(it)
            | PathMatch::Prefix(it)
            | PathMatch::Starts(it)
            | PathMatch::ExactAnyCase(it)
            | PathMatch::StartsAnyCase(it) => it.to_ascii_lowercase().starts_with(wide.as_str()),
            _ => false,
        },
        PathMatch::Regex(wide) => match narrow {
            PathMatch::Exact(it) => wide.is_whole(it),
            PathMatch::Regex(it) => it.as_str() == wide.as_str(),
            _ => false,
        },
        PathMatch::Grpc { service, method } => match narrow {
            PathMatch::Grpc { service: of_service, method: of_method } => {
                service.as_ref().is_none_or(|wide| optional(wide, of_service))
                    && method.as_ref().is_none_or(|wide| optional(wide, of_method))
            }
            _ => false,
        },
    }
}

/// Every path. That of `OPTIONS *` is none.
fn takes_all(path: &PathMatch) -> bool {
    match path {
        PathMatch::Prefix(text) | PathMatch::Starts(text) | PathMatch::StartsAnyCase(text) => {
            matches!(text.as_str(), "" | "/")
        }
        PathMatch::Regex(regex) => ANY_PATH.contains(&regex.as_str()),
        PathMatch::Exact(_) | PathMatch::ExactAnyCase(_) | PathMatch::Grpc { .. } => false,
    }
}

fn optional(wide: &TextMatch, narrow: &Option<TextMatch>) -> bool {
    narrow.as_ref().is_some_and(|narrow| text(wide, narrow))
}

fn text(wide: &TextMatch, narrow: &TextMatch) -> bool {
    match (wide, narrow) {
        (wide, TextMatch::Exact(text)) => wide.matches(text),
        (TextMatch::Prefix(wide), TextMatch::Prefix(narrow)) => narrow.starts_with(wide.as_str()),
        (TextMatch::Regex(wide), TextMatch::Regex(narrow)) => wide.as_str() == narrow.as_str(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Regex;

    #[test]
    fn a_path_covers_what_stands_below_it() {
        let exact = |text: &str| PathMatch::Exact(text.into());
        let prefix = |text: &str| PathMatch::Prefix(text.into());
        let starts = |text: &str| PathMatch::Starts(text.into());
        let regex = |text: &str| PathMatch::Regex(Regex::whole(text).unwrap());
        for (wide, narrow, expected) in [
            (prefix("/"), exact("/a"), true),
            (prefix("/"), regex("/v[0-9]+"), true),
            (prefix("/a"), prefix("/a/b"), true),
            (prefix("/a"), prefix("/ab"), false),
            (prefix("/a"), starts("/a"), false),
            (prefix("/a"), starts("/a/"), true),
            (prefix("/a"), regex("/a/.*"), false),
            (prefix("/a/b"), prefix("/a"), false),
            (starts("/a"), prefix("/ab"), true),
            (starts("/a/"), prefix("/a"), false),
            (exact("/a"), exact("/a"), true),
            (exact("/a"), prefix("/a"), false),
            (PathMatch::StartsAnyCase("/a".into()), exact("/Ab"), true),
            (PathMatch::ExactAnyCase("/a".into()), exact("/A"), true),
            (exact("/a"), PathMatch::ExactAnyCase("/a".into()), false),
            (regex("/v[0-9]+"), exact("/v1"), true),
            (regex("/v[0-9]+"), regex("/v[0-9]+"), true),
            (regex("/v[0-9]+"), exact("/vx"), false),
            (regex(".*"), prefix("/a"), true),
        ] {
            assert_eq!(path(&wide, &narrow), expected, "{wide:?} {narrow:?}");
        }
    }
}
