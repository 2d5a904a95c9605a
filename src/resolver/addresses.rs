//! From a name to addresses: sends the queries and parses their answers.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

use super::ask::{Protocol, Resolvers};
use super::leads_nowhere;
use super::name::{Answer, NoAnswer};
use crate::model::Workload;
use crate::sock::SocketFactory;

/// How many addresses of a name are used: whoever answers for it must not fill the memory with endpoints.
const MOST_ADDRESSES: usize = 64;

/// The addresses of a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Families {
    ipv4: bool,
    ipv6: bool,
}

impl Families {
    /// The client's own addresses among them.
    pub(super) fn of(workload: &Workload) -> Self {
        let any = |family: fn(&IpAddr) -> bool| workload.addresses.iter().any(family);
        Self { ipv4: any(IpAddr::is_ipv4), ipv6: any(IpAddr::is_ipv6) }
    }
}

/// Queries the addresses of both families concurrently.
///
/// # Errors
/// No resolver answers, or the answer does not match the query.
pub(super) async fn ask(
    resolvers: &Resolvers,
    sockets: &dyn SocketFactory,
    name: &str,
    families: Families,
) -> Result<Answer, NoAnswer> {
    let of = async |wanted: bool, kind| match wanted {
        true => Some(ask_for(resolvers, sockets, name, kind).await),
        false => None,
    };
    let (v4, v6) =
        tokio::join!(of(families.ipv4, RecordType::A), of(families.ipv6, RecordType::AAAA));
    merge(v4.into_iter().chain(v6))
}

/// One family is enough; only two answers prove that there is no address.
pub(super) fn merge(
    answers: impl Iterator<Item = Result<Answer, NoAnswer>>,
) -> Result<Answer, NoAnswer> {
    let mut merged = Answer { addresses: Vec::new(), ttl: Duration::MAX };
    let mut failure = None;
    for answer in answers {
        match answer {
            Ok(answer) if answer.addresses.is_empty() => {}
            Ok(answer) => {
                merged.ttl = merged.ttl.min(answer.ttl);
                merged.addresses.extend(answer.addresses);
            }
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(failure) if merged.addresses.is_empty() => Err(failure),
        _ => Ok(merged),
    }
}

async fn ask_for(
    resolvers: &Resolvers,
    sockets: &dyn SocketFactory,
    name: &str,
    kind: RecordType,
) -> Result<Answer, NoAnswer> {
    // The trailing dot keeps search paths away.
    let name =
        Name::from_ascii(format!("{name}.")).map_err(|error| NoAnswer::Query(error.to_string()))?;
    let query = Query::query(name, kind);
    let mut message = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    let bytes = message.to_vec().map_err(|error| NoAnswer::Query(error.to_string()))?;
    let mut answer = exchange(resolvers, sockets, Protocol::Udp, &bytes).await?;
    if answer.metadata.truncation {
        answer = exchange(resolvers, sockets, Protocol::Tcp, &bytes).await?;
    }
    read(&answer, &query)
}

async fn exchange(
    resolvers: &Resolvers,
    sockets: &dyn SocketFactory,
    protocol: Protocol,
    query: &[u8],
) -> Result<Message, NoAnswer> {
    let answer = resolvers.ask(sockets, protocol, query).await;
    let answer = answer.map_err(|error| NoAnswer::Silent(error.to_string()))?;
    Message::from_vec(&answer).map_err(|error| NoAnswer::Unreadable(error.to_string()))
}

pub(super) fn read(answer: &Message, query: &Query) -> Result<Answer, NoAnswer> {
    let same = answer.queries.first().is_some_and(|it| {
        it.query_type == query.query_type && it.name.to_lowercase() == query.name.to_lowercase()
    });
    match answer.metadata.response_code {
        ResponseCode::NoError if same => {}
        ResponseCode::NXDomain => return Ok(Answer { addresses: Vec::new(), ttl: Duration::ZERO }),
        ResponseCode::NoError => return Err(NoAnswer::Mismatch),
        code => return Err(NoAnswer::Code(code.to_string())),
    }
    let mut found = Answer { addresses: Vec::new(), ttl: Duration::MAX };
    for record in &answer.answers {
        let address = match &record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            // An IPv4 address that is written as one of IPv6 is owned by whoever owns it as such.
            RData::AAAA(address) => Some(IpAddr::V6(address.0).to_canonical()),
            _ => None,
        };
        // An alias in the chain may change sooner than the address.
        found.ttl = found.ttl.min(Duration::from_secs(record.ttl.into()));
        found.addresses.extend(address.filter(|address| !leads_nowhere(*address)));
    }
    found.addresses.truncate(MOST_ADDRESSES);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::CNAME;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn answer(code: ResponseCode, records: Vec<Record>) -> Message {
        let mut message = Message::response(1, OpCode::Query);
        message.metadata.response_code = code;
        message.add_query(Query::query(name("API.example.com."), RecordType::A));
        records.into_iter().for_each(|record| _ = message.add_answer(record));
        message
    }

    fn query() -> Query {
        Query::query(name("api.example.com."), RecordType::A)
    }

    fn address(text: &str, ttl: u32) -> Record {
        Record::from_rdata(name("edge.example.net."), ttl, RData::A(text.parse().unwrap()))
    }

    #[test]
    fn addresses_behind_aliases_hold_for_the_shortest_ttl() {
        let alias = RData::CNAME(CNAME(name("edge.example.net.")));
        let alias = Record::from_rdata(name("api.example.com."), 20, alias);
        let records = vec![
            alias,
            address("192.0.2.1", 60),
            address("127.0.0.1", 60),
            address("192.0.2.2", 60),
        ];
        let found = read(&answer(ResponseCode::NoError, records), &query()).unwrap();
        assert_eq!(found.ttl, Duration::from_secs(20));
        let texts: Vec<String> = found.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["192.0.2.1", "192.0.2.2"], "no address of the client's own");
    }

    #[test]
    fn no_such_name_is_an_answer_and_a_failure_is_none() {
        let none = read(&answer(ResponseCode::NXDomain, Vec::new()), &query()).unwrap();
        assert!(none.addresses.is_empty());
        assert!(read(&answer(ResponseCode::ServFail, Vec::new()), &query()).is_err());
        let other = Query::query(name("other.example.com."), RecordType::A);
        let answered = answer(ResponseCode::NoError, vec![address("192.0.2.1", 60)]);
        assert!(read(&answered, &other).is_err(), "somebody else's answer");
    }

    #[test]
    fn one_family_is_enough_and_both_must_say_that_there_is_none() {
        let some = || {
            Ok(Answer {
                addresses: vec!["192.0.2.1".parse().unwrap()],
                ttl: Duration::from_secs(9),
            })
        };
        let none = || Ok(Answer { addresses: Vec::new(), ttl: Duration::ZERO });
        let failed = || Err(NoAnswer::Silent("late".to_owned()));
        let merged = |one, other| merge([one, other].into_iter());
        assert_eq!(merged(some(), failed()), some());
        assert_eq!(merged(none(), some()), some());
        assert_eq!(merged(none(), failed()), failed());
        assert!(merged(none(), none()).unwrap().addresses.is_empty());
    }
}
