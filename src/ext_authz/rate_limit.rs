//! What a rate limit service is asked (`envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit`), and what its answer means.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};

use super::messages::{
    Entry, HeaderPair, RateLimitDescriptor, RateLimitRequest, RateLimitResponse, RateLimitStatus,
};
use super::{grpc, may_set};
use crate::base::Str;
use crate::filter::{Quota, Rate};

const SHOULD_RATE_LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// `RateLimitResponse.Code`
const OK: i32 = 1;
const OVER_LIMIT: i32 = 2;

/// What the service says.
#[derive(Debug, PartialEq, Eq)]
pub struct Counted {
    /// The request may not pass.
    pub over: bool,
    /// The client gets these with the response.
    pub headers: HeaderMap,
    /// Of the limit that has the least left, where the service says.
    pub quota: Option<Quota>,
}

/// The request to the service.
pub fn ask(domain: &str, entries: &[(Str, String)], hits: u32, host: &str) -> Request<Bytes> {
    let entry = |(key, value): &(Str, String)| Entry { key: key.to_string(), value: value.clone() };
    let descriptor = RateLimitDescriptor { entries: entries.iter().map(entry).collect() };
    let (domain, descriptors) = (domain.to_owned(), vec![descriptor]);
    let message = RateLimitRequest { domain, descriptors, hits_addend: hits };
    grpc::request(SHOULD_RATE_LIMIT, host, &message)
}

/// What the answer means. `status`: of gRPC.
pub fn counted(status: Option<u32>, body: &[u8]) -> Result<Counted, String> {
    let answer: RateLimitResponse = grpc::answer(status, body)?;
    let over = match answer.overall_code {
        OK => false,
        OVER_LIMIT => true,
        code => return Err(format!("it answers with the code {code}, which says nothing")),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in answer.response_headers_to_add.iter().filter_map(settable) {
        headers.append(name, value);
    }
    // One that refuses speaks for all of them.
    let quotas = answer.statuses.iter().filter_map(|it| Some((it.code == OVER_LIMIT, quota(it)?)));
    let least = quotas.min_by_key(|(refuses, quota)| (!refuses, quota.left));
    Ok(Counted { over, headers, quota: least.map(|(_, quota)| quota) })
}

/// `DescriptorStatus`: so many in a unit, of which so many are left.
fn quota(status: &RateLimitStatus) -> Option<Quota> {
    let limit = status.current_limit.as_ref()?;
    let seconds = match limit.unit {
        1 => 1,
        2 => 60,
        3 => 60 * 60,
        4 => 24 * 60 * 60,
        5 => 30 * 24 * 60 * 60,
        6 => 365 * 24 * 60 * 60,
        7 => 7 * 24 * 60 * 60,
        _ => return None,
    };
    let tokens = u64::from(limit.requests_per_unit);
    let reset = status.duration_until_reset.as_ref();
    let reset = reset.and_then(|it| u64::try_from(it.seconds).ok()).unwrap_or(seconds).min(seconds);
    Some(Quota {
        rate: Rate { tokens, interval: Duration::from_secs(seconds), burst: tokens },
        left: u64::from(status.limit_remaining),
        reset: Duration::from_secs(reset),
    })
}

fn settable(header: &HeaderPair) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(header.key.as_bytes()).ok().filter(may_set)?;
    let value =
        if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
    Some((name, HeaderValue::from_bytes(value).ok()?))
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::ext_authz::messages::{CurrentLimit, ProtoDuration};

    fn framed(message: &impl Message) -> Vec<u8> {
        let mut framed = vec![0];
        framed.extend_from_slice(&(message.encoded_len() as u32).to_be_bytes());
        framed.extend_from_slice(&message.encode_to_vec());
        framed
    }

    fn header(key: &str, value: &str) -> HeaderPair {
        HeaderPair { key: key.into(), value: value.into(), raw_value: Vec::new() }
    }

    #[test]
    fn an_answer_says_whether_and_how_much_is_left() {
        let status = |code, left| RateLimitStatus {
            code,
            current_limit: Some(CurrentLimit { requests_per_unit: 10, unit: 2 }),
            limit_remaining: left,
            duration_until_reset: Some(ProtoDuration { seconds: 42, nanos: 0 }),
        };
        let answer = |overall_code, statuses| RateLimitResponse {
            overall_code,
            statuses,
            response_headers_to_add: vec![header("x-a", "1"), header("content-length", "7")],
        };
        for (message, over, left) in [
            (answer(OK, vec![status(OK, 5), status(OK, 3)]), false, Some(3)),
            (answer(OVER_LIMIT, vec![status(OK, 0), status(OVER_LIMIT, 0)]), true, Some(0)),
            (answer(OK, Vec::new()), false, None),
        ] {
            let counted = counted(Some(0), &framed(&message)).unwrap();
            assert_eq!((counted.over, counted.quota.map(|it| it.left)), (over, left));
            assert_eq!(counted.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-a"]);
        }
    }

    #[test]
    fn what_says_nothing_is_no_answer() {
        let unknown = framed(&RateLimitResponse::default());
        for (status, body) in [
            (Some(0), &unknown[..]),
            (Some(14), &unknown),
            (None, &unknown),
            (Some(0), &[0, 0, 0, 0, 9, 8]),
            (Some(0), &[]),
            (Some(0), &[0, 0, 0, 0, 2, 0xff, 0xff]),
        ] {
            assert!(counted(status, body).is_err(), "{status:?} {body:?}");
        }
    }

    #[test]
    fn a_question_is_one_descriptor() {
        let entries = [("user".into(), "a".to_owned()), ("route".into(), "shop/r/0".to_owned())];
        let request = ask("shop", &entries, 3, "limits");
        assert_eq!(request.uri().path(), SHOULD_RATE_LIMIT);
        let sent = RateLimitRequest::decode(&request.body()[grpc::PREFIX..]).unwrap();
        assert_eq!((&*sent.domain, sent.hits_addend, sent.descriptors.len()), ("shop", 3, 1));
        assert_eq!(sent.descriptors[0].entries[1].value, "shop/r/0");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_it(body in proptest::collection::vec(0u8.., 0..100)) {
            _ = counted(Some(0), &body);
            let mut framed = vec![0];
            framed.extend_from_slice(&(body.len() as u32).to_be_bytes());
            framed.extend_from_slice(&body);
            _ = counted(Some(0), &framed);
        }
    }
}
