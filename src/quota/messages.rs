//! What agents and the controller say to each other: one stream of messages each way (gRPC), on the controller's port.
//! Amounts are thousandths of tokens; keys are digests (`filter::id_of`).

use std::time::Duration;

use crate::base::{ObjectKey, Str};
use crate::filter::Rate;

/// The one method.
pub const EXCHANGE: &str = "/isthmus.v1.RateLimits/Exchange";
/// Limits of one node.
pub const MAX_LIMITS: usize = 512;
/// Keys that a node lacks tokens for, in one report.
pub const MAX_WANTS: usize = 256;
/// Keys that a node is asked for at a time.
pub const MAX_ASKS: usize = 1024;
/// Bytes of one message: as many limits, with the longest names.
pub const MAX_MESSAGE: usize = 512 * 1024;
/// The longest name of an object.
const MAX_NAME: usize = 253;

/// From an agent.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Report {
    /// Grows with each report of a connection.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// All limits of the node; absent while they are what they were.
    #[prost(message, optional, tag = "2")]
    pub joins: Option<Joins>,
    /// What it lacks now; replaces what it said of the key before.
    #[prost(message, repeated, tag = "3")]
    pub wants: Vec<Amount>,
    /// Of the orders that the gifts answer.
    #[prost(uint64, tag = "4")]
    pub stamp: u64,
    #[prost(message, repeated, tag = "5")]
    pub gifts: Vec<Gift>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Joins {
    #[prost(message, repeated, tag = "1")]
    pub limits: Vec<Limit>,
}

/// One limit for one Service. Nodes exchange tokens only if all of it is the same.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Limit {
    /// The agent's name for it on this connection.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(string, tag = "3")]
    pub service: String,
    /// The policy's namespace and name.
    #[prost(string, tag = "4")]
    pub policy_namespace: String,
    #[prost(string, tag = "5")]
    pub policy: String,
    /// Its name in the policy.
    #[prost(string, tag = "6")]
    pub name: String,
    #[prost(uint64, tag = "7")]
    pub tokens: u64,
    /// In nanoseconds.
    #[prost(uint64, tag = "8")]
    pub interval: u64,
    #[prost(uint64, tag = "9")]
    pub burst: u64,
}

/// So much of a key.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Amount {
    #[prost(uint32, tag = "1")]
    pub limit: u32,
    #[prost(fixed64, tag = "2")]
    pub key: u64,
    #[prost(uint64, tag = "3")]
    pub amount: u64,
}

/// Taken out of a node's bucket.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Gift {
    #[prost(uint32, tag = "1")]
    pub limit: u32,
    #[prost(fixed64, tag = "2")]
    pub key: u64,
    #[prost(uint64, tag = "3")]
    pub amount: u64,
    /// What it could give besides.
    #[prost(uint64, tag = "4")]
    pub left: u64,
}

/// From the controller.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Orders {
    /// Repeated with the gifts that answer these asks.
    #[prost(uint64, tag = "1")]
    pub stamp: u64,
    #[prost(message, repeated, tag = "2")]
    pub asks: Vec<Amount>,
    #[prost(message, repeated, tag = "3")]
    pub grants: Vec<Grant>,
    /// Limits that the node may not speak for, as far as the controller knows.
    #[prost(uint32, repeated, tag = "4")]
    pub refused: Vec<u32>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Grant {
    #[prost(uint32, tag = "1")]
    pub limit: u32,
    #[prost(fixed64, tag = "2")]
    pub key: u64,
    #[prost(uint64, tag = "3")]
    pub amount: u64,
    /// The report with the want.
    #[prost(uint64, tag = "4")]
    pub report: u64,
}

/// A limit, as nodes name it to each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LimitId {
    pub service: ObjectKey,
    pub policy: ObjectKey,
    pub name: Str,
    pub rate: Rate,
}

impl Report {
    /// # Errors
    /// No agent sends this.
    pub fn check(&self) -> Result<(), &'static str> {
        let limits = self.joins.as_ref().map_or(0, |joins| joins.limits.len());
        match () {
            () if limits > MAX_LIMITS => Err("too many limits"),
            () if self.wants.len() > MAX_WANTS => Err("too many wants"),
            () if self.gifts.len() > MAX_ASKS => Err("too many gifts"),
            () => Ok(()),
        }
    }
}

impl Limit {
    pub fn new(number: u32, id: &LimitId) -> Self {
        let LimitId { service, policy, name, rate } = id;
        Self {
            number,
            namespace: service.namespace.to_string(),
            service: service.name.to_string(),
            policy_namespace: policy.namespace.to_string(),
            policy: policy.name.to_string(),
            name: name.to_string(),
            tokens: rate.tokens,
            interval: u64::try_from(rate.interval.as_nanos()).unwrap_or(u64::MAX),
            burst: rate.burst,
        }
    }

    /// `None` if there is no such limit: names that no object has, a rate that no policy may set.
    pub fn id(&self) -> Option<LimitId> {
        let key = |namespace: &str, name: &str| {
            (is_name(namespace) && is_name(name)).then(|| ObjectKey::new(namespace, name))
        };
        let interval = Duration::from_nanos(self.interval);
        let rate = Rate { tokens: self.tokens, interval, burst: self.burst };
        if !rate.is_permitted() || self.name.len() > MAX_NAME {
            return None;
        }
        Some(LimitId {
            service: key(&self.namespace, &self.service)?,
            policy: key(&self.policy_namespace, &self.policy)?,
            name: self.name.as_str().into(),
            rate,
        })
    }
}

/// Of an object of Kubernetes (RFC 1123). It goes into a selector of the API server's.
fn is_name(text: &str) -> bool {
    let is_of_name = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.'
    };
    !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(is_of_name)
}
