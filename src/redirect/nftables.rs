//! A [`Table`] as one nf_tables transaction: begin, create, delete, create with all its content, end. The first
//! creation ensures that the deletion cannot fail; packets see nothing between begin and end.

mod abi;
mod expression;
mod rule;

use std::{borrow::Cow, net::IpAddr};

use nix::errno::Errno;

use super::{
    error::Error,
    netlink::{self, Answer, Attributes, Request, Socket, Subsystem},
    program::{Chain, ChainKind, Family, Hook, Rule, Set, Table},
};

/// Addresses in one message: an attribute's length has 16 bits, and an IPv6 element takes 28 bytes.
const ELEMENTS_PER_MESSAGE: usize = 1000;
const CREATE: u16 = libc::NLM_F_CREATE as u16;
const APPEND: u16 = libc::NLM_F_APPEND as u16;

/// Replaces the table of this name, or creates it.
pub fn replace(table: &Table) -> Result<(), Error> {
    Socket::open(Subsystem::Netfilter)?.transact(&replacement(table)?).map(drop)
}

/// Removes the table of that name, if it exists.
pub fn remove(name: &str) -> Result<(), Error> {
    let requests = transaction(name, vec![create_table(name)?, delete_table(name)?]);
    Socket::open(Subsystem::Netfilter)?.transact(&requests).map(drop)
}

/// Whether a table of that name exists.
pub fn exists(name: &str) -> Result<bool, Error> {
    let body = Attributes::new().text(abi::TABLE_NAME, name);
    let query = request(abi::GET_TABLE, 0, body, table_object(name))?;
    match Socket::open(Subsystem::Netfilter)?.transact(&[query.awaited()]) {
        Ok(answer) => Ok(matches!(answer, Answer::Object(_))),
        Err(error) if error.refusal() == Some(Errno::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the table of that name has such a counter.
pub fn has_counter(table: &'static str, counter: &'static str) -> Result<bool, Error> {
    let mut socket = Socket::open(Subsystem::Netfilter)?;
    Ok(counted(&mut socket, table, counter)?.is_some())
}

/// The packets that a counter of this table has counted since the table was created; `None` if there is no such
/// counter.
pub fn counted(
    socket: &mut Socket,
    table: &'static str,
    counter: &'static str,
) -> Result<Option<u64>, Error> {
    let body = Attributes::new()
        .text(abi::OBJECT_TABLE, table)
        .text(abi::OBJECT_NAME, counter)
        .number(abi::OBJECT_TYPE, abi::TYPE_COUNTER);
    let query = request(abi::GET_OBJECT, 0, body, counter_object(table, counter))?;
    match socket.transact(&[query.awaited()]) {
        Ok(Answer::Object(body)) => match packets(&body) {
            None => Err(Error::Malformed {
                object: counter_object(table, counter).into_owned(),
                what: "a counter without packets",
            }),
            packets => Ok(packets),
        },
        Ok(Answer::Acknowledged) => Ok(None),
        Err(error) if error.refusal() == Some(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The packets in the kernel's description of a counter: `struct nfgenmsg`, then attributes.
fn packets(body: &[u8]) -> Option<u64> {
    let find = |bytes, wanted| netlink::parse(bytes).find(|(kind, _)| *kind == wanted);
    let (_, data) = find(body.get(4..)?, abi::OBJECT_DATA)?;
    let (_, packets) = find(data, abi::COUNTER_PACKETS)?;
    Some(u64::from_be_bytes(packets.try_into().ok()?))
}

/// All messages of [`replace`].
fn replacement(table: &Table) -> Result<Vec<Request>, Error> {
    let name = table.name;
    let mut requests = vec![create_table(name)?, delete_table(name)?, create_table(name)?];
    for counter in &table.counters {
        requests.push(create_counter(name, counter)?);
    }
    for (set, id) in table.sets.iter().zip(1..) {
        requests.push(create_set(name, set, id)?);
        for elements in set.elements.chunks(ELEMENTS_PER_MESSAGE) {
            requests.push(add_elements(name, set.name, elements)?);
        }
    }
    for chain in &table.chains {
        requests.push(create_chain(name, chain)?);
        for (rule, position) in chain.rules.iter().zip(1..) {
            requests.push(append_rule(name, chain, rule, position)?);
        }
    }
    Ok(transaction(name, requests))
}

/// Puts requests, of which the last is awaited, between begin and end of a batch. The end itself is not answered
/// (before Linux 6.10), and the answer to the last request comes after the commit.
fn transaction(table: &str, mut requests: Vec<Request>) -> Vec<Request> {
    let last = requests.pop().map(Request::awaited);
    let mark = |kind| Request {
        kind,
        flags: 0,
        // For these two messages the "resource" is the subsystem of the batch.
        body: generic_head(libc::AF_UNSPEC as u8, abi::SUBSYSTEM).to_vec(),
        object: format!("the transaction on table inet {table}").into(),
    };
    let begin = std::iter::once(mark(abi::BATCH_BEGIN));
    begin.chain(requests).chain(last).chain([mark(abi::BATCH_END)]).collect()
}

fn create_table(name: &str) -> Result<Request, Error> {
    let body = Attributes::new().text(abi::TABLE_NAME, name);
    request(abi::NEW_TABLE, CREATE, body, table_object(name))
}

fn delete_table(name: &str) -> Result<Request, Error> {
    let body = Attributes::new().text(abi::TABLE_NAME, name);
    request(abi::DELETE_TABLE, 0, body, table_object(name))
}

fn create_chain(table: &str, chain: &Chain) -> Result<Request, Error> {
    let hook = match chain.hook {
        Hook::Prerouting => libc::NF_INET_PRE_ROUTING,
        Hook::Input => libc::NF_INET_LOCAL_IN,
        Hook::Forward => libc::NF_INET_FORWARD,
        Hook::Output => libc::NF_INET_LOCAL_OUT,
        Hook::Postrouting => libc::NF_INET_POST_ROUTING,
    };
    let kind = match chain.kind {
        ChainKind::Filter => "filter",
        ChainKind::Route => "route",
        ChainKind::Nat => "nat",
    };
    let hook = Attributes::new()
        .number(abi::HOOK_NUMBER, hook as u32)
        .number(abi::HOOK_PRIORITY, chain.priority.cast_unsigned());
    let body = Attributes::new()
        .text(abi::CHAIN_TABLE, table)
        .text(abi::CHAIN_NAME, chain.name)
        .nest(abi::CHAIN_HOOK, hook)
        .number(abi::CHAIN_POLICY, libc::NF_ACCEPT as u32)
        .text(abi::CHAIN_TYPE, kind);
    let object = format!("chain {} (type {kind}) in table inet {table}", chain.name);
    request(abi::NEW_CHAIN, CREATE, body, object.into())
}

fn create_counter(table: &str, counter: &str) -> Result<Request, Error> {
    let zero = 0_u64.to_be_bytes();
    let data =
        Attributes::new().bytes(abi::COUNTER_BYTES, &zero).bytes(abi::COUNTER_PACKETS, &zero);
    let body = Attributes::new()
        .text(abi::OBJECT_TABLE, table)
        .text(abi::OBJECT_NAME, counter)
        .number(abi::OBJECT_TYPE, abi::TYPE_COUNTER)
        .nest(abi::OBJECT_DATA, data);
    request(abi::NEW_OBJECT, CREATE, body, counter_object(table, counter))
}

fn create_set(table: &str, set: &Set, id: u32) -> Result<Request, Error> {
    let (kind, length) = match set.family {
        Family::Ipv4 => (abi::TYPE_IPV4_ADDRESS, 4),
        Family::Ipv6 => (abi::TYPE_IPV6_ADDRESS, 16),
    };
    let body = Attributes::new()
        .text(abi::SET_TABLE, table)
        .text(abi::SET_NAME, set.name)
        .number(abi::SET_FLAGS, 0)
        .number(abi::SET_KEY_TYPE, kind)
        .number(abi::SET_KEY_LENGTH, length)
        .number(abi::SET_ID, id);
    request(abi::NEW_SET, CREATE, body, set_object(table, set.name))
}

fn add_elements(table: &str, set: &str, elements: &[IpAddr]) -> Result<Request, Error> {
    let list = elements.iter().fold(Attributes::new(), |list, address| {
        let key = Attributes::new().bytes(abi::DATA_VALUE, &expression::address(*address));
        let element = Attributes::new().nest(abi::SET_ELEMENT_KEY, key);
        list.nest(abi::LIST_ELEMENT, element)
    });
    let body = Attributes::new()
        .text(abi::SET_ELEMENTS_TABLE, table)
        .text(abi::SET_ELEMENTS_SET, set)
        .nest(abi::SET_ELEMENTS, list);
    request(abi::NEW_SET_ELEMENTS, CREATE, body, set_object(table, set))
}

fn append_rule(table: &str, chain: &Chain, rule: &Rule, position: usize) -> Result<Request, Error> {
    let body = Attributes::new()
        .text(abi::RULE_TABLE, table)
        .text(abi::RULE_CHAIN, chain.name)
        .nest(abi::RULE_EXPRESSIONS, rule::expressions(rule))
        .bytes(abi::RULE_USERDATA, &comment(rule.comment));
    let object =
        format!("rule {position} ({}) of chain {} in table inet {table}", rule.comment, chain.name);
    request(abi::NEW_RULE, CREATE | APPEND, body, object.into())
}

/// User data that `nft list` shows as the rule's comment: kind 0, length, text with NUL. A text that does not fit is
/// left out, because it does not affect the rule.
fn comment(text: &str) -> Vec<u8> {
    let Ok(length) = u8::try_from(text.len() + 1) else {
        return Vec::new();
    };
    [&[abi::USERDATA_COMMENT, length], text.as_bytes(), &[0]].concat()
}

fn request(
    kind: u16,
    flags: u16,
    attributes: Attributes,
    object: Cow<'static, str>,
) -> Result<Request, Error> {
    let Some(attributes) = attributes.finish() else {
        return Err(Error::TooLarge { object: object.into_owned() });
    };
    let body = [&generic_head(libc::NFPROTO_INET as u8, 0), attributes.as_slice()].concat();
    Ok(Request { kind: abi::SUBSYSTEM << 8 | kind, flags, body, object })
}

/// `struct nfgenmsg`: family, version, resource in network byte order.
fn generic_head(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, libc::NFNETLINK_V0 as u8, high, low]
}

fn table_object(name: &str) -> Cow<'static, str> {
    format!("table inet {name}").into()
}

fn counter_object(table: &str, counter: &str) -> Cow<'static, str> {
    format!("counter {counter} in table inet {table}").into()
}

fn set_object(table: &str, set: &str) -> Cow<'static, str> {
    format!("set {set} in table inet {table}").into()
}

#[cfg(test)]
mod tests;
