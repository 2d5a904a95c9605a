//! `rateLimit` as it is written.
//!
//! `local`, `shared` and `global` stand for one limit each; `limits` lists more of them. All of them hold.

use std::time::Duration;

use http::HeaderName;
use serde::Deserialize;

use super::super::Fault;
use super::buckets::{Buckets, Rate};
use super::key::{self, Key};
use super::matching::{self, RequestMatch};
use super::told::HeaderStyle;
use super::{Cost, Counted, Global, Limit, Local, ResponseCost, Shared};
use crate::base::schema::forms::{DURATION, HEADER_NAME, LABEL, any};
use crate::base::schema::{Rule, parse_duration};
use crate::base::{ObjectKey, Str};
use Rule::{Fields, List, Number, OneOf, Text};

/// The longest interval: what the API's unit `Hour` would be, many times over.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Enough for a limit per second of one pod; a higher number is a mistake.
const MOST: u32 = 1_000_000;
/// Limits of one policy: each costs every request a look-up.
const MOST_LIMITS: usize = 16;
/// At the most so long a wait for a service that counts.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than Envoy's 20 ms, in which no connection through the mesh is made.
const TIMEOUT: Duration = Duration::from_millis(250);

const COUNT: Rule = Number(1, MOST as i64);

const COST: Rule = Fields(&[
    ("request", Number(0, MOST as i64)),
    ("response", Fields(&[("header", Text(HEADER_NAME)), ("max", COUNT)])),
]);

const COUNTED: Rule = Fields(&[
    ("requests", COUNT),
    ("interval", Text(DURATION)),
    ("burst", COUNT),
    ("keys", key::SCHEMA),
    ("matches", matching::SCHEMA),
    ("cost", COST),
    ("scope", OneOf(&["Service"])),
]);

const GLOBAL: Rule = Fields(&[
    ("backendRef", Fields(&[("name", Text(LABEL)), ("port", Number(1, 65535))])),
    ("domain", Text(any(256))),
    ("entries", List(0, 8, &Fields(&[("key", Text(any(256))), ("value", Text(any(256)))]))),
    ("keys", key::SCHEMA),
    ("matches", matching::SCHEMA),
    ("hitsAddend", Number(1, MOST as i64)),
    ("timeout", Text(DURATION)),
]);

/// The limits that the API server accepts.
pub(super) const SCHEMA: Rule = Fields(&[
    ("local", COUNTED),
    ("shared", COUNTED),
    ("global", GLOBAL),
    (
        "limits",
        List(
            0,
            MOST_LIMITS,
            &Fields(&[
                ("name", Text(LABEL)),
                ("local", COUNTED),
                ("shared", COUNTED),
                ("global", GLOBAL),
            ]),
        ),
    ),
    ("headers", OneOf(&["XRateLimit", "RateLimit", "Both", "None"])),
]);

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    #[serde(default)]
    local: Option<WrittenLocal>,
    #[serde(default)]
    shared: Option<WrittenShared>,
    #[serde(default)]
    global: Option<WrittenGlobal>,
    #[serde(default)]
    limits: Vec<WrittenEntry>,
    #[serde(default)]
    pub(super) headers: HeaderStyle,
}

/// One of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenEntry {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    local: Option<WrittenLocal>,
    #[serde(default)]
    shared: Option<WrittenShared>,
    #[serde(default)]
    global: Option<WrittenGlobal>,
}

/// Each pod counts for itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenLocal {
    requests: u32,
    interval: String,
    #[serde(default)]
    burst: Option<u32>,
    #[serde(default)]
    keys: Vec<key::Written>,
    #[serde(default)]
    matches: Vec<matching::Written>,
    #[serde(default)]
    cost: WrittenCost,
    #[serde(default)]
    shadow_mode: bool,
}

/// All pods count together.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenShared {
    requests: u32,
    interval: String,
    #[serde(default)]
    burst: Option<u32>,
    #[serde(default)]
    keys: Vec<key::Written>,
    #[serde(default)]
    matches: Vec<matching::Written>,
    #[serde(default)]
    cost: WrittenCost,
    #[serde(default)]
    shadow_mode: bool,
    #[serde(default)]
    scope: SharedScope,
}

/// Which pods count together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum SharedScope {
    /// Those of the addressed Service.
    #[default]
    Service,
}

/// A service of the policy's own namespace counts (Envoy, RateLimitService).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenGlobal {
    backend_ref: WrittenBackend,
    domain: String,
    #[serde(default)]
    entries: Vec<WrittenPair>,
    #[serde(default)]
    keys: Vec<key::Written>,
    #[serde(default)]
    matches: Vec<matching::Written>,
    #[serde(default)]
    hits_addend: Option<u32>,
    #[serde(default)]
    timeout: Option<String>,
    #[serde(default)]
    fail_open: bool,
    #[serde(default)]
    shadow_mode: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenBackend {
    name: String,
    port: u16,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenPair {
    key: String,
    value: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenCost {
    #[serde(default)]
    request: Option<u32>,
    #[serde(default)]
    response: Option<WrittenResponseCost>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenResponseCost {
    header: String,
    #[serde(default)]
    max: Option<u32>,
}

impl Written {
    /// All limits, in the order in which they are asked: what costs nothing to ask first.
    pub(super) fn limits(&self, namespace: &Str) -> Result<Vec<Limit>, Fault> {
        let Self { local, shared, global, limits, headers: _ } = self;
        let mut all = Vec::new();
        let mut add = |path: &str, name: &str, local, shared, global| {
            let limit = read((namespace, name), local, shared, global);
            let limit =
                limit.map_err(|(field, why)| Fault::field(format!("{path}{field}"), why))?;
            if all.iter().any(|known: &Limit| known.name == limit.name) {
                let why = format!("{name:?} is the name of another limit as well");
                return Err(Fault::field(format!("{path}name"), why));
            }
            all.push(limit);
            Ok(())
        };
        if local.is_some() {
            add("", "local", local.as_ref(), None, None)?;
        }
        if shared.is_some() {
            add("", "shared", None, shared.as_ref(), None)?;
        }
        if global.is_some() {
            add("", "global", None, None, global.as_ref())?;
        }
        for (at, entry) in limits.iter().enumerate() {
            let WrittenEntry { name, local, shared, global } = entry;
            let path = format!("limits[{at}].");
            let count = usize::from(local.is_some()) + usize::from(shared.is_some());
            if count + usize::from(global.is_some()) != 1 {
                let why = "has one of local, shared and global".to_owned();
                return Err(Fault::field(path.trim_end_matches('.'), why));
            }
            let name = name.clone().unwrap_or_else(|| format!("limit-{at}"));
            add(&path, &name, local.as_ref(), shared.as_ref(), global.as_ref())?;
        }
        match all.len() {
            0 => Err(Fault::field("local", "is missing, and so are shared, global and limits")),
            1..=MOST_LIMITS => Ok(all),
            count => Err(Fault::field("limits", format!("are {count}, more than {MOST_LIMITS}"))),
        }
    }
}

/// A field, and what is wrong with it.
pub type Wrong = (String, String);

fn read(
    (namespace, name): (&Str, &str),
    local: Option<&WrittenLocal>,
    shared: Option<&WrittenShared>,
    global: Option<&WrittenGlobal>,
) -> Result<Limit, Wrong> {
    let is_known = !name.is_empty() && name.len() <= 63 && name.bytes().all(is_of_name);
    if !is_known {
        return Err(("name".to_owned(), format!("{name:?} is not of letters, digits and -")));
    }
    let unsupported = |field: &str| Err((field.to_owned(), "is not supported yet".to_owned()));
    match (local, shared, global) {
        (Some(local), ..) => {
            local.read(namespace, name).map_err(|(field, why)| (format!("local.{field}"), why))
        }
        (_, Some(shared), _) => {
            shared.read(name).map_err(|(field, why)| (format!("shared.{field}"), why))
        }
        (.., Some(global)) => {
            global.read(namespace, name).map_err(|(field, why)| (format!("global.{field}"), why))
        }
        _ => unsupported("local"),
    }
}

/// Of a label, and so of a text in a structured field of HTTP.
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

impl WrittenLocal {
    fn read(&self, namespace: &Str, name: &str) -> Result<Limit, Wrong> {
        let Self { requests, interval, burst, keys, matches, cost, shadow_mode } = self;
        let rate = rate(*requests, interval, *burst)?;
        Ok(Limit {
            name: name.into(),
            when: all_matches(matches)?,
            by: all_keys(keys)?,
            shadow: *shadow_mode,
            counted: Counted::Local(Local {
                rate,
                cost: cost.read(rate.burst)?,
                buckets: Buckets::new(namespace, !keys.is_empty()),
            }),
        })
    }
}

impl WrittenShared {
    fn read(&self, name: &str) -> Result<Limit, Wrong> {
        let Self { requests, interval, burst, keys, matches, cost, shadow_mode, scope } = self;
        let SharedScope::Service = scope;
        let rate = rate(*requests, interval, *burst)?;
        Ok(Limit {
            name: name.into(),
            when: all_matches(matches)?,
            by: all_keys(keys)?,
            shadow: *shadow_mode,
            counted: Counted::Shared(Shared::new(rate, cost.read(rate.burst)?, !keys.is_empty())),
        })
    }
}

impl WrittenGlobal {
    fn read(&self, namespace: &Str, name: &str) -> Result<Limit, Wrong> {
        let Self { backend_ref, domain, entries, keys, matches, .. } = self;
        let wrong = |field: &str, why: &str| Err((field.to_owned(), why.to_owned()));
        let WrittenBackend { name: service, port } = backend_ref;
        if service.is_empty() || service.contains(['/', '.']) {
            return wrong(
                "backendRef.name",
                "is no Service's name; the Service is of the policy's own namespace",
            );
        }
        if *port == 0 {
            return wrong("backendRef.port", "is not from 1 to 65535");
        }
        if domain.is_empty() {
            return wrong("domain", "is empty");
        }
        if let Some(at) = entries.iter().position(|it| it.key.is_empty() || it.value.is_empty()) {
            return wrong(&format!("entries[{at}]"), "has an empty key or value");
        }
        let hits = self.hits_addend.unwrap_or(1);
        if !(1..=MOST).contains(&hits) {
            return wrong("hitsAddend", &format!("{hits} is not from 1 to {MOST}"));
        }
        let timeout = match self.timeout.as_deref() {
            None => Some(TIMEOUT),
            Some(text) => parse_duration(text).filter(|it| !it.is_zero() && *it <= LONGEST_TIMEOUT),
        };
        let Some(timeout) = timeout else {
            return wrong("timeout", "is not a duration up to 10s such as 50ms");
        };
        let pair = |it: &WrittenPair| (Str::from(&*it.key), Str::from(&*it.value));
        let service = ObjectKey::new(namespace.clone(), service.as_str());
        Ok(Limit {
            name: name.into(),
            when: all_matches(matches)?,
            by: all_keys(keys)?,
            shadow: self.shadow_mode,
            counted: Counted::Global(Global {
                name: arcstr::format!("the rate limit service {service}:{port}"),
                service,
                port: *port,
                domain: domain.as_str().into(),
                entries: entries.iter().map(pair).collect(),
                hits,
                timeout,
                fail_open: self.fail_open,
            }),
        })
    }
}

impl Rate {
    /// Whether a policy may set it.
    pub fn is_permitted(&self) -> bool {
        let permitted = 1..=u64::from(MOST);
        permitted.contains(&self.tokens)
            && permitted.contains(&self.burst)
            && !self.interval.is_zero()
            && self.interval <= LONGEST
    }
}

/// So many in an interval, and so many at once.
fn rate(requests: u32, interval: &str, burst: Option<u32>) -> Result<Rate, Wrong> {
    let count = |field: &str, count: u32| match count {
        1..=MOST => Ok(u64::from(count)),
        _ => Err((field.to_owned(), format!("{count} is not from 1 to {MOST}"))),
    };
    let tokens = count("requests", requests)?;
    let burst = count("burst", burst.unwrap_or(requests))?;
    Ok(Rate { tokens, interval: self::interval(interval)?, burst })
}

/// What an interval is in; or the field, and what is wrong with it.
pub fn interval(text: &str) -> Result<Duration, Wrong> {
    parse_duration(text).filter(|it| !it.is_zero() && *it <= LONGEST).ok_or_else(|| {
        let why = format!("{text:?} is not a duration up to 24h such as 500ms, 10s or 1h30m");
        ("interval".to_owned(), why)
    })
}

/// Keys as they are written; or the field, and what is wrong with it.
pub fn all_keys(keys: &[key::Written]) -> Result<Vec<Key>, Wrong> {
    let read = keys.iter().enumerate().map(|(index, key)| {
        key.read().map_err(|(member, why)| (format!("keys[{index}].{member}"), why))
    });
    read.collect()
}

fn all_matches(matches: &[matching::Written]) -> Result<Vec<RequestMatch>, Wrong> {
    let read = matches.iter().enumerate().map(|(index, written)| {
        written.read().map_err(|(field, why)| (format!("matches[{index}].{field}"), why))
    });
    read.collect()
}

impl WrittenCost {
    fn read(&self, burst: u64) -> Result<Cost, Wrong> {
        let request = u64::from(self.request.unwrap_or(1));
        if request > burst {
            let why = format!("{request} is more than the burst of {burst}: no request could pass");
            return Err(("cost.request".to_owned(), why));
        }
        let response = self.response.as_ref().map(|it| it.read(burst)).transpose()?;
        if request == 0 && response.is_none() {
            let why = "is 0, and no response costs anything either: the limit would limit nothing";
            return Err(("cost.request".to_owned(), why.to_owned()));
        }
        Ok(Cost { request, response })
    }
}

impl WrittenResponseCost {
    fn read(&self, burst: u64) -> Result<ResponseCost, Wrong> {
        let Self { header, max } = self;
        let name = HeaderName::try_from(header.as_str());
        let header = name.map_err(|_| {
            ("cost.response.header".to_owned(), format!("{header:?} is not a header name"))
        })?;
        let most = match max {
            None => burst,
            Some(most @ 1..=MOST) => u64::from(*most),
            Some(most) => {
                let why = format!("{most} is not from 1 to {MOST}");
                return Err(("cost.response.max".to_owned(), why));
            }
        };
        Ok(ResponseCost { header, most, is_stated: max.is_some() })
    }
}
