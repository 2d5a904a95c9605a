//! The rate limits of a TrafficPolicy for connections (`tcpRateLimit`): how many a client may begin, and how many bytes pass.
//! The destination's agent keeps them at layer 4, whatever the connections carry.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::rate_limit::{Buckets, Key, Rate, WrittenKey, interval, keys};
use super::{Cx, Fault, Filter, Half, RuleContext};
use crate::base::schema::Rule;
use crate::base::schema::forms::DURATION;
use crate::base::{ObjectKey, PolicyEffect, PolicyNote, Str};
use Rule::{Fields, Number, OneOf, Text, With};

/// More connections in an interval than any agent accepts; a higher number is a mistake.
const MOST_CONNECTIONS: u64 = 1_000_000;
/// Four gigabytes: more in a second than a pod's interface takes.
const MOST_BYTES: u64 = u32::MAX as u64;

const KEYS: Rule = Rule::List(
    0,
    4,
    &With(
        &Fields(&[
            ("type", OneOf(&["Identity", "Namespace", "Address"])),
            ("ipv4PrefixLength", Number(0, 32)),
            ("ipv6PrefixLength", Number(0, 128)),
        ]),
        &[super::rate_limit::members_go_with_type],
    ),
);

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TcpRateLimit {
    /// The policy that sets it.
    pub policy: ObjectKey,
    /// Connections beyond are closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<Counter>,
    /// Of both directions. What is beyond waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Counter>,
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct Counter {
    #[serde(flatten)]
    pub rate: Rate,
    /// Each combination of these keys has a bucket, for each pod.
    pub by: Vec<Key>,
    pub shadow: bool,
    #[serde(skip)]
    buckets: Arc<Buckets>,
}

/// What becomes of a connection that begins.
#[derive(Debug, Default)]
pub struct Opened {
    /// It may not begin, and why.
    pub refused: Option<String>,
    /// Limits in shadow mode that would not let it begin.
    pub notes: Vec<PolicyNote>,
    /// Some limit counts connections.
    pub counted: bool,
    /// What its bytes are counted by.
    pub meter: Option<Meter>,
}

/// The buckets that the bytes of one connection are taken from.
#[derive(Debug, Default)]
pub struct Meter(Vec<Metered>);

#[derive(Debug)]
struct Metered {
    buckets: Arc<Buckets>,
    hash: u64,
    rate: Rate,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    #[serde(default)]
    connections: Option<WrittenConnections>,
    #[serde(default)]
    bytes: Option<WrittenBytes>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenConnections {
    limit: u32,
    interval: String,
    #[serde(default)]
    burst: Option<u32>,
    #[serde(default)]
    keys: Vec<WrittenKey>,
    #[serde(default)]
    shadow_mode: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenBytes {
    limit: u32,
    interval: String,
    #[serde(default)]
    burst: Option<u32>,
    #[serde(default)]
    keys: Vec<WrittenKey>,
}

impl PartialEq for Counter {
    /// Both set the same limit; the counts are not compared.
    fn eq(&self, other: &Self) -> bool {
        let Self { rate, by, shadow, buckets: _ } = self;
        (rate, by, shadow) == (&other.rate, &other.by, &other.shadow)
    }
}

impl Eq for Counter {}

impl Filter for TcpRateLimit {
    type Manifest = Written;

    const SCHEMA: Rule = Fields(&[
        (
            "connections",
            Fields(&[
                ("limit", Number(1, MOST_CONNECTIONS as i64)),
                ("interval", Text(DURATION)),
                ("burst", Number(1, MOST_CONNECTIONS as i64)),
                ("keys", KEYS),
            ]),
        ),
        (
            "bytes",
            Fields(&[
                ("limit", Number(1, MOST_BYTES as i64)),
                ("interval", Text(DURATION)),
                ("burst", Number(1, MOST_BYTES as i64)),
                ("keys", KEYS),
            ]),
        ),
    ]);
    const HALF: Half = Half::Connection;

    fn read(written: &Written, rule: &dyn RuleContext) -> Result<Self, Fault> {
        let Written { connections, bytes } = written;
        let namespace = rule.policy().namespace;
        let connections = connections.as_ref().map(|it| {
            let rate = ((it.limit, it.burst), &*it.interval, MOST_CONNECTIONS);
            Counter::read("connections", &namespace, rate, &it.keys, it.shadow_mode)
        });
        let bytes = bytes.as_ref().map(|it| {
            let rate = ((it.limit, it.burst), &*it.interval, MOST_BYTES);
            Counter::read("bytes", &namespace, rate, &it.keys, false)
        });
        let (connections, bytes) = (connections.transpose()?, bytes.transpose()?);
        if connections.is_none() && bytes.is_none() {
            return Err(Fault::field("connections", "is missing, and so is bytes"));
        }
        Ok(Self { policy: rule.policy(), connections, bytes })
    }

    /// An empty bucket stays empty, even if the numbers have changed.
    fn inherit(&mut self, before: &Self) {
        if self.policy != before.policy {
            return;
        }
        let own = [&mut self.connections, &mut self.bytes];
        for (own, before) in own.into_iter().zip([&before.connections, &before.bytes]) {
            if let (Some(own), Some(before)) = (own, before)
                && own.by == before.by
            {
                own.buckets = before.buckets.clone();
            }
        }
    }

    #[cfg(test)]
    fn samples() -> Vec<serde_json::Value> {
        use serde_json::json;
        let keys = json!([{"type": "Identity"}, {"type": "Address", "ipv6PrefixLength": 64}]);
        let connections = json!({"limit": 5, "interval": "1s", "keys": keys, "shadowMode": true});
        vec![
            json!({"connections": connections}),
            json!({"bytes": {"limit": 1_000_000, "interval": "1s", "burst": 2_000_000}}),
        ]
    }
}

impl Counter {
    fn read(
        field: &str,
        namespace: &Str,
        ((limit, burst), written, most): ((u32, Option<u32>), &str, u64),
        written_keys: &[WrittenKey],
        shadow: bool,
    ) -> Result<Self, Fault> {
        let fault = |(at, why): (String, String)| Fault::field(format!("{field}.{at}"), why);
        let (limit, burst) = (u64::from(limit), u64::from(burst.unwrap_or(limit)));
        for (name, count) in [("limit", limit), ("burst", burst)] {
            if !(1..=most).contains(&count) {
                return Err(fault((name.to_owned(), format!("{count} is not from 1 to {most}"))));
            }
        }
        let interval: Duration = interval(written).map_err(fault)?;
        let by = keys(written_keys).map_err(fault)?;
        if let Some(at) = by.iter().position(|key| !key.is_of_connection()) {
            let why = "is of requests; connections have Identity, Namespace and Address".to_owned();
            return Err(fault((format!("keys[{at}].type"), why)));
        }
        let rate = Rate { tokens: limit, interval, burst };
        let buckets = Buckets::new(namespace, !by.is_empty());
        Ok(Self { rate, by, shadow, buckets })
    }

    fn hash(&self, cx: &Cx<'_>) -> u64 {
        self.buckets.hash(&Asking(self, cx))
    }
}

/// The key of a connection's bucket.
struct Asking<'a>(&'a Counter, &'a Cx<'a>);

impl Hash for Asking<'_> {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let Asking(counter, cx) = self;
        cx.service.hash(to);
        cx.pod.hash(to);
        for key in &counter.by {
            key.hash(None, cx, to);
        }
    }
}

impl TcpRateLimit {
    /// A connection begins, if none of the limits before has refused it.
    pub fn open(&self, cx: &Cx<'_>, opened: &mut Opened) {
        if opened.refused.is_some() {
            return;
        }
        if let Some(connections) = &self.connections {
            opened.counted = true;
            let taken = connections.buckets.take(connections.hash(cx), connections.rate, 1).taken;
            if !taken && connections.shadow {
                let (policy, effect) = (self.policy.clone(), PolicyEffect::WouldLimit);
                opened.notes.push(PolicyNote { policy, effect });
            } else if !taken {
                let Rate { tokens, interval, .. } = connections.rate;
                opened.refused = Some(format!(
                    "the TrafficPolicy {} permits {tokens} connections in {interval:?}",
                    self.policy
                ));
                return;
            }
        }
        if let Some(bytes) = &self.bytes {
            let (buckets, hash) = (bytes.buckets.clone(), bytes.hash(cx));
            let metered = Metered { buckets, hash, rate: bytes.rate };
            opened.meter.get_or_insert_default().0.push(metered);
        }
    }
}

impl Meter {
    /// Bytes have passed. More than there were room for are owed: at the most a chunk of each connection at a time.
    pub fn pass(&self, bytes: usize) {
        for Metered { buckets, hash, rate } in &self.0 {
            buckets.charge(*hash, *rate, bytes as u64, u64::MAX);
        }
    }

    /// How long nothing more may pass.
    pub fn wait(&self) -> Option<Duration> {
        let waits = self.0.iter().map(|Metered { buckets, hash, rate }| {
            // Asks for one, and takes none.
            buckets.take(*hash, *rate, 0).next
        });
        waits.max().filter(|wait| !wait.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::base::Identity;

    struct Nothing;

    impl RuleContext for Nothing {}

    fn read(written: Value) -> Result<TcpRateLimit, Fault> {
        TcpRateLimit::read(&serde_json::from_value(written).unwrap(), &Nothing)
    }

    fn open(limit: &TcpRateLimit, account: &str, address: &str) -> Opened {
        let identity = Identity::new("td", account, "a");
        let (identity, address) = (Some(&identity), address.parse().unwrap());
        let cx = Cx { identity, address, ..Cx::fixture() };
        let mut opened = Opened::default();
        limit.open(&cx, &mut opened);
        opened
    }

    #[tokio::test(start_paused = true)]
    async fn connections_beyond_the_limit_are_refused() {
        let keys = json!([{"type": "Namespace"}]);
        let limit = json!({"connections": {"limit": 2, "interval": "1s", "keys": keys}});
        let limit = read(limit).unwrap();
        let opens = |of: &str| open(&limit, of, "10.0.0.1").refused.is_none();
        assert_eq!([opens("a"), opens("a"), opens("a"), opens("b")], [true, true, false, true]);
        let why = open(&limit, "a", "10.0.0.2").refused.unwrap();
        assert!(why.contains("2 connections in 1s"), "{why}");
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!([opens("a"), opens("a")], [true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_wait_for_their_time() {
        let limit =
            read(json!({"bytes": {"limit": 1000, "interval": "1s", "burst": 500}})).unwrap();
        let meter = open(&limit, "a", "10.0.0.1").meter.unwrap();
        let other = open(&limit, "b", "10.0.0.2").meter.unwrap();
        assert_eq!(meter.wait(), None);
        meter.pass(499);
        assert_eq!(meter.wait(), None, "one is left");
        meter.pass(1001);
        assert_eq!((meter.wait(), other.wait()), (Some(Duration::from_millis(1001)), meter.wait()));
        tokio::time::advance(Duration::from_millis(1001)).await;
        assert_eq!(meter.wait(), None);
    }

    #[test]
    fn in_shadow_mode_connections_are_noted() {
        let limit = json!({"connections": {"limit": 1, "interval": "1h", "shadowMode": true}});
        let limit = read(limit).unwrap();
        assert!(open(&limit, "a", "10.0.0.1").notes.is_empty());
        let opened = open(&limit, "a", "10.0.0.1");
        assert_eq!((opened.notes.len(), opened.refused), (1, None));
    }

    #[test]
    fn what_is_no_limit_is_a_fault() {
        let of = |limit: Value| json!({"connections": limit});
        for (written, field) in [
            (json!({}), "connections"),
            (of(json!({"limit": 0, "interval": "1s"})), "connections.limit"),
            (of(json!({"limit": 1, "interval": "0s"})), "connections.interval"),
            (of(json!({"limit": 1, "interval": "1s", "burst": 0})), "connections.burst"),
            (
                of(json!({"limit": 1, "interval": "1s", "keys": [{"type": "Route"}]})),
                "connections.keys[0].type",
            ),
            (of(json!({"limit": 1_000_001, "interval": "1s"})), "connections.limit"),
            (json!({"bytes": {"limit": 0, "interval": "1s"}}), "bytes.limit"),
        ] {
            match read(written.clone()) {
                Err(Fault::Field { field: found, .. }) => assert_eq!(found, field, "{written}"),
                other => panic!("{written}: {other:?}"),
            }
        }
    }
}
