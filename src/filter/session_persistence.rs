//! Session persistence (`sessionPersistence`, GEP-1619), of TrafficPolicies and of rules of routes: requests of a session go to the
//! endpoint that answered its first one, for as long as that endpoint is there.
//!
//! The client carries the session, in a cookie or a header, so that every agent honours it. The token names no address: it has a
//! hash that only endpoints of the service are compared with ([`Token`]), so a client can choose among them and nothing else. It
//! is not signed: who changes the times in it prolongs its own session.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::{Fault, Filter, HttpFilter, RuleContext};
use crate::base::schema::forms::DURATION;
use crate::base::schema::{Objection, Rule, parse_duration};
use crate::base::{ObjectKey, Str};
use Rule::{Fields, OneOf, Text, With};

/// The name of a session that is given none.
const COOKIE_NAME: &str = "isthmus_session";
const HEADER: HeaderName = HeaderName::from_static("isthmus-session");
/// Gateway API's bound of a name.
const LONGEST_NAME: usize = 128;
/// How far the clocks of two nodes may differ, in seconds.
const SKEW: u32 = 300;
/// The first byte of a token.
const VERSION: u8 = 1;
const TOKEN: usize = 17;

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SessionPersistence {
    /// The policy that sets it; empty for a route's.
    pub policy: ObjectKey,
    pub carrier: SessionCarrier,
    /// The session ends so long after it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absolute_timeout: Option<Duration>,
    /// It ends so long after its last request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
}

/// What carries a session.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum SessionCarrier {
    /// `permanent`: the client keeps it until the absolute timeout; else until it is closed.
    Cookie { name: Str, permanent: bool },
    /// Of responses; clients repeat it in requests.
    Header(#[serde(serialize_with = "super::text")] HeaderName),
}

/// The fields of `SessionPersistence` in Gateway API.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WrittenSession {
    #[serde(default)]
    session_name: Option<String>,
    #[serde(default)]
    absolute_timeout: Option<String>,
    #[serde(default)]
    idle_timeout: Option<String>,
    #[serde(default, rename = "type")]
    kind: Kind,
    #[serde(default)]
    cookie_config: Option<WrittenCookie>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum Kind {
    #[default]
    Cookie,
    Header,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenCookie {
    #[serde(default)]
    lifetime_type: Lifetime,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum Lifetime {
    #[default]
    Session,
    Permanent,
}

/// A session. Times are seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The hash of its endpoint.
    pub endpoint: u64,
    began: u32,
    /// Its last request.
    seen: u32,
}

impl Filter for SessionPersistence {
    type Manifest = WrittenSession;

    const SCHEMA: Rule = With(
        &Fields(&[
            ("absoluteTimeout", Text(DURATION)),
            ("idleTimeout", Text(DURATION)),
            ("type", OneOf(&["Cookie", "Header"])),
            ("cookieConfig", Fields(&[("lifetimeType", OneOf(&["Session", "Permanent"]))])),
        ]),
        &[permanent_has_a_timeout],
    );

    fn read(written: &WrittenSession, rule: &dyn RuleContext) -> Result<Self, Fault> {
        let name = written.session_name.as_deref();
        let lifetime = written.cookie_config.as_ref().map(|it| it.lifetime_type);
        let carrier = match written.kind {
            Kind::Cookie => SessionCarrier::Cookie {
                name: cookie_name(name)?,
                permanent: lifetime == Some(Lifetime::Permanent),
            },
            Kind::Header if written.cookie_config.is_some() => {
                return Err(Fault::field("cookieConfig", "goes with the type Cookie"));
            }
            Kind::Header => SessionCarrier::Header(header_name(name)?),
        };
        let absolute_timeout = timeout("absoluteTimeout", written.absolute_timeout.as_deref())?;
        if absolute_timeout.is_none()
            && matches!(carrier, SessionCarrier::Cookie { permanent: true, .. })
        {
            return Err(Fault::field("absoluteTimeout", "is missing; a permanent cookie needs it"));
        }
        let idle_timeout = timeout("idleTimeout", written.idle_timeout.as_deref())?;
        Ok(Self { policy: rule.policy(), carrier, absolute_timeout, idle_timeout })
    }

    #[cfg(test)]
    fn samples() -> Vec<serde_json::Value> {
        vec![
            serde_json::json!({"sessionName": "shop", "idleTimeout": "10m"}),
            serde_json::json!({"type": "Header", "sessionName": "x-session"}),
            serde_json::json!({"absoluteTimeout": "1h", "cookieConfig": {"lifetimeType": "Permanent"}}),
        ]
    }
}

fn permanent_has_a_timeout(value: &serde_json::Value) -> Option<Objection> {
    let is_permanent = value.get("cookieConfig")?.get("lifetimeType")? == "Permanent";
    (is_permanent && value.get("absoluteTimeout").is_none())
        .then(|| ("absoluteTimeout", "is missing; a permanent cookie needs it".to_owned()))
}

/// A token of RFC 6265 (4.1.1).
fn cookie_name(written: Option<&str>) -> Result<Str, Fault> {
    let name = written.unwrap_or(COOKIE_NAME);
    let is_token = |byte: u8| byte.is_ascii_graphic() && !br#"()<>@,;:\"/[]?={}"#.contains(&byte);
    match !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(is_token) {
        true => Ok(name.into()),
        false => Err(Fault::field("sessionName", format!("{name:?} is no name of a cookie"))),
    }
}

fn header_name(written: Option<&str>) -> Result<HeaderName, Fault> {
    let Some(name) = written else { return Ok(HEADER) };
    let fault = |why: &str| Fault::field("sessionName", format!("{name:?} {why}"));
    let read = HeaderName::try_from(name).ok().filter(|_| name.len() <= LONGEST_NAME);
    let read = read.ok_or_else(|| fault("is no name of a header"))?;
    // Nothing that says how a message is framed, or that means something else.
    let has_meaning = [http::header::SET_COOKIE, http::header::COOKIE, http::header::HOST]
        .contains(&read)
        || [
            "connection",
            "content-",
            "transfer-",
            "upgrade",
            "te",
            "trailer",
            "keep-alive",
            "x-isthmus",
        ]
        .iter()
        .any(|known| read.as_str().starts_with(known));
    if has_meaning { Err(fault("has another meaning in HTTP")) } else { Ok(read) }
}

fn timeout(field: &str, text: Option<&str>) -> Result<Option<Duration>, Fault> {
    let Some(text) = text else { return Ok(None) };
    match parse_duration(text).filter(|it| it.as_secs() > 0) {
        Some(time) => Ok(Some(time)),
        None => {
            let why = format!("{text:?} is not a duration of a second or more such as 30s or 1h");
            Err(Fault::field(field, why))
        }
    }
}

impl SessionPersistence {
    /// The session that a request belongs to, if it has not ended.
    pub fn session(&self, headers: &HeaderMap, now: SystemTime) -> Option<Token> {
        let token = match &self.carrier {
            SessionCarrier::Cookie { name, .. } => {
                cookies(headers, name).find_map(Token::decode)?
            }
            SessionCarrier::Header(name) => Token::decode(headers.get(name)?.as_bytes())?,
        };
        let now = seconds(now);
        let is_over = |since: u32, timeout: Option<Duration>| {
            timeout.is_some_and(|timeout| u64::from(now.saturating_sub(since)) >= timeout.as_secs())
        };
        let is_of_future = token.began.max(token.seen) > now.saturating_add(SKEW);
        let has_ended =
            is_over(token.began, self.absolute_timeout) || is_over(token.seen, self.idle_timeout);
        (!is_of_future && !has_ended).then_some(token)
    }

    /// What a response tells the client: the session at this endpoint, unless it knows it already.
    pub fn told(
        &self,
        before: Option<Token>,
        endpoint: u64,
        now: SystemTime,
    ) -> Option<(HeaderName, HeaderValue)> {
        let now = seconds(now);
        let goes_on = before.filter(|token| token.endpoint == endpoint);
        if goes_on.is_some_and(|token| !self.is_stale(token, now)) {
            return None;
        }
        let began = goes_on.map_or(now, |token| token.began.min(now));
        let token = Token { endpoint, began, seen: now }.encode();
        Some(match &self.carrier {
            SessionCarrier::Header(name) => (name.clone(), HeaderValue::try_from(token).ok()?),
            SessionCarrier::Cookie { name, permanent } => {
                let left = self.absolute_timeout.filter(|_| *permanent).map(|timeout| {
                    timeout.as_secs().saturating_sub(u64::from(now.saturating_sub(began)))
                });
                let age = left.map(|left| format!("; Max-Age={left}")).unwrap_or_default();
                let text = format!("{name}={token}{age}; Path=/; HttpOnly; SameSite=Lax");
                (SET_COOKIE, HeaderValue::try_from(text).ok()?)
            }
        })
    }

    /// Its last request is so long ago that the client is told of this one.
    fn is_stale(&self, token: Token, now: u32) -> bool {
        let Some(idle) = self.idle_timeout else { return false };
        u64::from(now.saturating_sub(token.seen)) >= (idle.as_secs() / 10).max(1)
    }
}

impl Token {
    fn encode(self) -> String {
        let mut bytes = Vec::with_capacity(TOKEN);
        bytes.push(VERSION);
        bytes.extend(self.endpoint.to_be_bytes());
        bytes.extend(self.began.to_be_bytes());
        bytes.extend(self.seen.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn decode(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; TOKEN + 1];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let bytes = bytes.get(..length).filter(|_| length == TOKEN)?;
        let (version, rest) = bytes.split_first()?;
        let (endpoint, times) = rest.split_first_chunk()?;
        let (began, seen) = times.split_first_chunk()?;
        (*version == VERSION).then_some(Self {
            endpoint: u64::from_be_bytes(*endpoint),
            began: u32::from_be_bytes(*began),
            seen: u32::from_be_bytes(seen.try_into().ok()?),
        })
    }
}

/// The values of the cookies of this name.
fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let lists = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let pairs = lists.flat_map(|list| list.split(|byte| *byte == b';'));
    pairs
        .filter_map(move |pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

fn seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

/// The session persistence that these filters ask for. The first one holds.
pub fn session_persistence<'a>(
    filters: impl IntoIterator<Item = &'a HttpFilter>,
) -> Option<&'a SessionPersistence> {
    filters.into_iter().find_map(|filter| match filter {
        HttpFilter::SessionPersistence(persistence) => Some(persistence),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    struct Nothing;

    impl RuleContext for Nothing {}

    fn read(written: Value) -> Result<SessionPersistence, Fault> {
        SessionPersistence::read(&serde_json::from_value(written).unwrap(), &Nothing)
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    /// What the client sends after this response.
    fn sent(told: &(HeaderName, HeaderValue)) -> HeaderMap {
        let (name, value) = told;
        if *name != SET_COOKIE {
            return HeaderMap::from_iter([(name.clone(), value.clone())]);
        }
        let pair = value.to_str().unwrap().split(';').next().unwrap();
        let cookies = HeaderValue::try_from(format!("a=b; {pair}; c=d")).unwrap();
        HeaderMap::from_iter([(COOKIE, cookies)])
    }

    #[test]
    fn a_session_leads_to_its_endpoint_until_its_timeouts() {
        for (written, ends) in [
            (json!({}), None),
            (json!({"type": "Header"}), None),
            (json!({"type": "Header", "sessionName": "x-s", "absoluteTimeout": "1h"}), Some(3600)),
            (json!({"sessionName": "s", "idleTimeout": "10m"}), Some(600)),
            (json!({"idleTimeout": "10m", "absoluteTimeout": "1m"}), Some(60)),
        ] {
            let persistence = read(written.clone()).unwrap();
            let told = persistence.told(None, 77, at(0)).unwrap();
            let headers = sent(&told);
            let endpoint = |time| persistence.session(&headers, at(time)).map(|it| it.endpoint);
            assert_eq!(endpoint(0), Some(77), "{written}");
            match ends {
                Some(end) => assert_eq!((endpoint(end - 1), endpoint(end)), (Some(77), None)),
                None => assert_eq!(endpoint(100_000_000), Some(77)),
            }
        }
    }

    #[test]
    fn requests_prolong_the_idle_timeout_and_not_the_absolute_one() {
        let written = json!({"idleTimeout": "100s", "absoluteTimeout": "250s"});
        let persistence = read(written).unwrap();
        let mut headers = sent(&persistence.told(None, 7, at(0)).unwrap());
        let token = persistence.session(&headers, at(5));
        assert!(persistence.told(token, 7, at(5)).is_none(), "the client knows it");
        for time in [90, 180, 240] {
            let token = persistence.session(&headers, at(time));
            assert!(token.is_some(), "{time}");
            headers = sent(&persistence.told(token, 7, at(time)).unwrap());
        }
        assert!(persistence.session(&headers, at(250)).is_none());
    }

    #[test]
    fn another_endpoint_begins_another_session() {
        let persistence = read(json!({"absoluteTimeout": "100s"})).unwrap();
        let headers = sent(&persistence.told(None, 7, at(0)).unwrap());
        let token = persistence.session(&headers, at(90));
        let headers = sent(&persistence.told(token, 8, at(90)).unwrap());
        assert_eq!(persistence.session(&headers, at(189)).unwrap().endpoint, 8);
    }

    #[test]
    fn cookies_say_how_long_they_are_kept() {
        let written =
            json!({"absoluteTimeout": "1h", "cookieConfig": {"lifetimeType": "Permanent"}});
        let persistence = read(written).unwrap();
        let (name, value) = persistence.told(None, 7, at(0)).unwrap();
        assert_eq!(name, SET_COOKIE);
        let text = value.to_str().unwrap();
        assert!(text.starts_with("isthmus_session="), "{text}");
        assert!(text.ends_with("; Max-Age=3600; Path=/; HttpOnly; SameSite=Lax"), "{text}");
        let session = read(json!({"absoluteTimeout": "1h"})).unwrap();
        let text = session.told(None, 7, at(0)).unwrap().1;
        assert!(!text.to_str().unwrap().contains("Max-Age"), "{text:?}");
    }

    #[test]
    fn what_is_no_session_is_none() {
        let persistence = read(json!({"idleTimeout": "1h"})).unwrap();
        let good = Token { endpoint: 7, began: seconds(at(0)), seen: seconds(at(0)) }.encode();
        let future = Token { endpoint: 7, began: seconds(at(0)), seen: seconds(at(9000)) }.encode();
        let other = good.replacen('A', "B", 1);
        for (cookie, is_one) in [
            (format!("isthmus_session={good}"), true),
            (format!("isthmus_session=x; isthmus_session={good}"), true),
            (format!("xisthmus_session={good}"), false),
            (format!("isthmus_session={good}A"), false),
            (format!("isthmus_session={}", &good[1..]), false),
            (format!("isthmus_session={future}"), false),
            (format!("isthmus_session={other}"), false),
            ("isthmus_session=".to_owned(), false),
            ("isthmus_session=10.0.0.1:8080".to_owned(), false),
        ] {
            let value = HeaderValue::try_from(&cookie).unwrap();
            let headers = HeaderMap::from_iter([(COOKIE, value)]);
            let found = persistence.session(&headers, at(10));
            assert_eq!(found.is_some(), is_one, "{cookie}");
        }
    }

    proptest! {
        /// Whatever a client sends.
        #[test]
        fn tokens_are_read_as_they_were_written_and_others_do_no_harm(
            endpoint: u64, began: u32, seen: u32, noise in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let token = Token { endpoint, began, seen };
            prop_assert_eq!(Token::decode(token.encode().as_bytes()), Some(token));
            _ = Token::decode(&noise);
        }
    }

    #[test]
    fn what_cannot_be_carried_out_is_a_fault_of_its_field() {
        for (written, field) in [
            (json!({"sessionName": ""}), "sessionName"),
            (json!({"sessionName": "a b"}), "sessionName"),
            (json!({"sessionName": "a;b"}), "sessionName"),
            (json!({"sessionName": "a".repeat(129)}), "sessionName"),
            (json!({"type": "Header", "sessionName": "a b"}), "sessionName"),
            (json!({"type": "Header", "sessionName": "Content-Length"}), "sessionName"),
            (json!({"type": "Header", "cookieConfig": {}}), "cookieConfig"),
            (json!({"idleTimeout": "soon"}), "idleTimeout"),
            (json!({"absoluteTimeout": "10ms"}), "absoluteTimeout"),
            (json!({"cookieConfig": {"lifetimeType": "Permanent"}}), "absoluteTimeout"),
        ] {
            match read(written.clone()) {
                Err(Fault::Field { field: found, .. }) => assert_eq!(found, field, "{written}"),
                other => panic!("{written}: {other:?}"),
            }
        }
    }
}
