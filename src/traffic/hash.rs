//! Consistent hashing: which property of a request selects its endpoint.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use http::header::{COOKIE, HeaderName, HeaderValue};
use http::{HeaderMap, Uri};

use crate::base::Str;

/// The property whose equal values lead to the same endpoint.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum HashKey {
    #[serde(serialize_with = "as_text")]
    Header(HeaderName),
    Cookie(Cookie),
    SourceIp,
    Query(Str),
}

/// A cookie with a key in it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Cookie {
    pub name: Str,
    /// Of the cookie that a client without one gets.
    pub path: Str,
    /// How long a client without the cookie is given one for: zero for its session, `None` if it gets none.
    pub ttl: Option<Duration>,
    /// Further attributes, as they are written into the header: `; Secure; SameSite=Lax`.
    pub attributes: Str,
}

/// The key of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashed {
    pub key: u64,
    /// For the response: the cookie that brings the client back.
    pub set_cookie: Option<HeaderValue>,
}

impl HashKey {
    /// The key of a request; `None` if the request lacks the property.
    pub fn of(&self, uri: &Uri, headers: &HeaderMap, source: IpAddr) -> Option<Hashed> {
        let known = |key| Some(Hashed { key, set_cookie: None });
        match self {
            Self::Header(name) => {
                let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes).peekable();
                values.peek()?;
                let mut hasher = DefaultHasher::new();
                values.for_each(|value| value.hash(&mut hasher));
                known(hasher.finish())
            }
            Self::SourceIp => known(of_address(source)),
            Self::Query(name) => {
                let mut pairs = form_urlencoded::parse(uri.query()?.as_bytes());
                let (_, value) = pairs.find(|(known, _)| known == name.as_str())?;
                known(hash(&*value))
            }
            Self::Cookie(cookie) => match cookie.value(headers) {
                Some(value) => known(hash(value)),
                None => cookie.give(),
            },
        }
    }
}

impl Cookie {
    fn value<'a>(&self, headers: &'a HeaderMap) -> Option<&'a [u8]> {
        let lists = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
        let pairs = lists.flat_map(|list| list.split(|byte| *byte == b';'));
        let mut named = pairs.filter_map(|pair| {
            let rest = pair.trim_ascii().strip_prefix(self.name.as_bytes())?.strip_prefix(b"=")?;
            let quoted = rest.strip_prefix(b"\"").and_then(|it| it.strip_suffix(b"\""));
            Some(quoted.unwrap_or(rest))
        });
        named.find(|value| !value.is_empty())
    }

    fn give(&self) -> Option<Hashed> {
        let ttl = self.ttl?;
        let value = format!("{:016x}", fastrand::u64(..));
        let age = match ttl.as_secs() {
            0 => String::new(),
            seconds => format!("; Max-Age={seconds}"),
        };
        let path = match self.path.as_str() {
            "" => String::new(),
            path => format!("; Path={path}"),
        };
        let text = format!("{}=\"{value}\"{age}{path}{}; HttpOnly", self.name, self.attributes);
        let set_cookie = HeaderValue::try_from(text).ok()?;
        Some(Hashed { key: hash(value.as_bytes()), set_cookie: Some(set_cookie) })
    }
}

/// The key of a client's address. An IPv4-mapped IPv6 address counts as IPv4.
pub fn of_address(source: IpAddr) -> u64 {
    hash(&source.to_canonical())
}

/// Every agent hashes alike, also after a restart.
fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn as_text<S: serde::Serializer>(name: &HeaderName, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(name.as_str())
}
