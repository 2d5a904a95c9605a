//! Where an issuer publishes its keys (`jwksUri`).

use std::fmt;
use std::net::IpAddr;

use http::Uri;

use crate::base::Str;

/// The longest address, in bytes.
const MAX_BYTES: usize = 2048;

/// An `http` or `https` address of a key set, in one form: two that mean the same are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeysUri {
    pub tls: bool,
    /// In lower case; IPv6 addresses without brackets.
    pub host: Str,
    pub port: u16,
    /// Path and query.
    pub target: Str,
}

impl KeysUri {
    /// # Errors
    /// Why it is no such address, for people; the text follows the field's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("has more than {MAX_BYTES} bytes"));
        }
        let uri: Uri = text.parse().map_err(|_| format!("{text:?} is no address"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("{text:?} does not begin with https:// or http://")),
        };
        if uri.authority().is_some_and(|it| it.as_str().contains('@')) {
            return Err("has a user name, and nobody logs in for keys".to_owned());
        }
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if !host.contains('.') && host.parse::<IpAddr>().is_err() {
            return Err(format!(
                "names the host {host:?}, which means another one in each namespace; write a Service as NAME.NAMESPACE.svc"
            ));
        }
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        if port == 0 {
            return Err("names the port 0".to_owned());
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        Ok(Self { tls, host: host.into(), port, target: target.into() })
    }

    /// The host and the port, as a header has them.
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
        match port == &(if self.tls { 443 } else { 80 }) {
            true => host,
            false => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for KeysUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.target)
    }
}

impl serde::Serialize for KeysUri {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_one_form() {
        for (text, expected) in [
            ("https://Issuer.Example./keys", Ok("https://issuer.example/keys")),
            ("https://issuer.example:443/keys?v=1", Ok("https://issuer.example/keys?v=1")),
            ("HTTP://a.b", Ok("http://a.b/")),
            (
                "http://keycloak.auth.svc.cluster.local:8080/realms/x",
                Ok("http://keycloak.auth.svc.cluster.local:8080/realms/x"),
            ),
            ("http://10.0.0.1:8080/k", Ok("http://10.0.0.1:8080/k")),
            ("https://[2001:db8::1]/k", Ok("https://[2001:db8::1]/k")),
            ("http://keycloak:8080/k", Err("another one in each namespace")),
            ("http://localhost/k", Err("another one in each namespace")),
            ("http://2130706433/k", Err("another one in each namespace")),
            ("https://user:secret@issuer.example/k", Err("user name")),
            ("file:///etc/passwd", Err("")),
            ("issuer.example/keys", Err("")),
            ("/keys", Err("does not begin")),
            ("ftp://issuer.example/k", Err("does not begin")),
            ("https://issuer.example:0/k", Err("port 0")),
            ("https://issuer.example/a b", Err("is no address")),
        ] {
            match (KeysUri::parse(text), expected) {
                (Ok(read), Ok(expected)) => {
                    assert_eq!(read.to_string(), expected);
                    assert_eq!(KeysUri::parse(&read.to_string()), Ok(read));
                }
                (Err(why), Err(part)) => assert!(why.contains(part), "{text}: {why}"),
                (read, _) => panic!("{text}: {read:?}"),
            }
        }
        assert!(KeysUri::parse(&format!("https://a.b/{}", "x".repeat(2048))).is_err());
    }
}
