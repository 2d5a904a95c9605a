//! Tokens in paths, which are written to logs: what stands in a log is read by many, and a token is a key.

use std::borrow::Cow;

/// The parameter that has tokens where nobody says otherwise (RFC 6750, 2.3).
const PARAMETER: &str = "access_token";
/// What stands in the place of a token.
const CUT: &str = "[token]";

/// The path with the query, without tokens: without the value of `access_token`, and of any parameter that looks like a
/// token, whatever the parameter is called.
pub fn redacted(path: &str) -> Cow<'_, str> {
    let Some((before, query)) = path.split_once('?') else { return Cow::Borrowed(path) };
    if !pieces(query).any(|piece| secret(piece).is_some()) {
        return Cow::Borrowed(path);
    }
    let mut text = String::with_capacity(path.len());
    text.push_str(before);
    text.push('?');
    for piece in pieces(query) {
        match secret(piece) {
            Some((name, end)) => text.extend([name, "=", CUT, end]),
            None => text.push_str(piece),
        }
    }
    Cow::Owned(text)
}

/// Parameters, each with what separates it from the next: some servers part them at semicolons too.
fn pieces(query: &str) -> impl Iterator<Item = &str> {
    query.split_inclusive(['&', ';', '?', '#'])
}

/// The name of a parameter that has a token, and the separator after it.
fn secret(piece: &str) -> Option<(&str, &str)> {
    let end = piece.find(['&', ';', '?', '#']).unwrap_or(piece.len());
    let (parameter, end) = piece.split_at(end);
    let (name, value) = parameter.split_once('=')?;
    let is_secret = decoded(name).eq_ignore_ascii_case(PARAMETER) || is_token(&decoded(value));
    is_secret.then_some((name, end))
}

fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    // Without `=` and `&`, the whole is the name of one parameter.
    form_urlencoded::parse(text.as_bytes()).next().map_or(Cow::Borrowed(text), |(name, _)| name)
}

/// The header of every token is a JSON object, which begins with a brace and mostly with a quote.
fn is_token(value: &str) -> bool {
    let start = value.trim_start();
    (start.starts_with("ey") || start.starts_with("ew")) && start.matches('.').nth(1).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_cut_out_of_paths() {
        for (path, expected) in [
            ("/a", "/a"),
            ("/a?b=c&d", "/a?b=c&d"),
            ("/a?access_token=x.y.z", "/a?access_token=[token]"),
            ("/a?b=1&access_token=opaque&c=2", "/a?b=1&access_token=[token]&c=2"),
            ("/a?acc%65ss_token=x;b=1", "/a?acc%65ss_token=[token];b=1"),
            ("/a?t=eyJh.eyJp.c2ln&b", "/a?t=[token]&b"),
            ("/a?t=%65yJh.eyJp.c2ln", "/a?t=[token]"),
            ("/a?t=eyJh", "/a?t=eyJh"),
            ("/a?x?t=eyJh.b.c", "/a?x?t=[token]"),
            ("/a?b=access_token", "/a?b=access_token"),
        ] {
            assert_eq!(redacted(path), expected);
        }
    }
}
