//! `forwarded` (RFC 7239) as ztunnel writes it: `for="10.0.0.1:4711";host=reviews.bookinfo.svc.cluster.local`.

use std::fmt;
use std::net::SocketAddr;

use super::super::parse_authority;
use super::is_host;
use crate::base::Str;

/// The longest value that is parsed, in bytes: an address, the longest host name, and some unknown parameters.
const MAX_LENGTH: usize = 1024;

/// The parameters that count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Forwarded {
    pub client: Option<SocketAddr>,
    pub host: Option<Str>,
}

impl Forwarded {
    pub(super) fn is_empty(&self) -> bool {
        self.client.is_none() && self.host.is_none()
    }

    /// Parses one element. A list of several, a repeated parameter and anything malformed return `None`, so that nobody
    /// can choose between two readings. Unknown parameters are skipped. A `for` that is not an address with a port
    /// (`unknown`, `_hidden`) and a `host` that is not a host name count as absent.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_LENGTH {
            return None;
        }
        let (mut client, mut host) = (None, None);
        let mut rest = text.trim_matches(is_space);
        while !rest.is_empty() {
            let (name, after) = rest.split_once('=')?;
            if !is_token(name) {
                return None;
            }
            let (value, after) = take_value(after)?;
            let slot = match name.to_ascii_lowercase().as_str() {
                "for" => &mut client,
                "host" => &mut host,
                _ => &mut None,
            };
            if slot.replace(value).is_some() {
                return None;
            }
            let after = after.trim_start_matches(is_space);
            rest = match after.strip_prefix(';') {
                Some(after) => after.trim_start_matches(is_space),
                None if after.is_empty() => after,
                None => return None,
            };
        }
        Some(Self { client: client.and_then(client_address), host: host.and_then(host_name) })
    }
}

impl fmt::Display for Forwarded {
    /// An invalid host name counts as absent: it selects policies, and must not be misread.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_ref().filter(|host| is_host(host));
        if let Some(client) = self.client {
            write!(f, "for=\"{client}\"")?;
            if host.is_some() {
                f.write_str(";")?;
            }
        }
        match host {
            Some(host) => write!(f, "host={host}"),
            None => Ok(()),
        }
    }
}

/// A token or a quoted string from the front, and the rest. Tokens may contain the characters of addresses, which many
/// writers do not quote.
fn take_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end =
            text.find(|c: char| !is_token_char(c) && !":[]".contains(c)).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (!value.is_empty()).then(|| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

fn client_address(value: String) -> Option<SocketAddr> {
    parse_authority(&value).map(|(ip, port)| SocketAddr::new(ip, port))
}

/// Host names are case-insensitive; a port after the name has no meaning here.
fn host_name(value: String) -> Option<Str> {
    let host = value.split_once(':').map_or(value.as_str(), |(host, _port)| host);
    is_host(host).then(|| Str::from(host.to_ascii_lowercase()))
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t')
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_token_char)
}

/// RFC 9110, 5.6.2.
fn is_token_char(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn forwarded(client: Option<&str>, host: Option<&str>) -> Option<Forwarded> {
        Some(Forwarded {
            client: client.map(|client| client.parse().unwrap()),
            host: host.map(Str::from),
        })
    }

    #[test]
    fn reads_what_ztunnel_and_others_write() {
        for (text, client, host) in [
            ("for=\"10.0.0.1:80\";host=a.b", Some("10.0.0.1:80"), Some("a.b")),
            ("for=\"[fd00::1]:80\"", Some("[fd00::1]:80"), None),
            ("host=A.B", None, Some("a.b")),
            ("For=10.0.0.1:80 ; HOST=\"a.b:9080\" ; proto=http", Some("10.0.0.1:80"), Some("a.b")),
            ("for=unknown;host=a", None, Some("a")),
            ("for=10.0.0.1;host=\"a b\"", None, None),
            ("for=\"10.0.0.\\1:80\"", Some("10.0.0.1:80"), None),
            ("", None, None),
        ] {
            assert_eq!(Forwarded::parse(text), forwarded(client, host), "{text}");
        }
    }

    #[test]
    fn refuses_what_has_two_readings() {
        for text in [
            "host=a, host=b",
            "host=a;host=b",
            "host=a;HOST=a",
            "for=\"10.0.0.1:80\",host=b",
            "host=\"a",
            "host=\"a\\",
            "host=a b",
            "host=",
            "host",
            ";host=a",
            "ho st=a",
            "=a",
        ] {
            assert_eq!(Forwarded::parse(text), None, "{text}");
        }
        assert_eq!(Forwarded::parse(&format!("host=a;x={}", "y".repeat(MAX_LENGTH))), None);
    }

    proptest! {
        #[test]
        fn never_panics_and_prints_what_it_read(text in "[ -~\\t]{0,80}|(for|host|\"|=|;|,|\\\\|a|:1| |é){0,16}") {
            if let Some(read) = Forwarded::parse(&text) {
                prop_assert_eq!(Forwarded::parse(&read.to_string()), Some(read));
            }
        }
    }
}
