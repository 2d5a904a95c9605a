//! Requests to the kernel and its replies, framed as netlink messages.

use std::borrow::Cow;

use nix::errno::Errno;

use super::attributes;

/// `struct nlmsghdr`: length (32 bits), kind, flags (16 each), sequence and port (32 each).
const HEAD: usize = 16;
const ERROR: u16 = libc::NLMSG_ERROR as u16;
const ACKNOWLEDGE: u16 = libc::NLM_F_ACK as u16;
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
/// The reply repeats only the head of the request, not its body.
const CAPPED: u16 = 0x100;
/// `NLMSGERR_ATTR_MSG`: the kernel's explanation.
const EXPLANATION: u16 = 1;

/// One message to the kernel, not yet framed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub kind: u16,
    /// `NLM_F_*`; `NLM_F_REQUEST` is added.
    pub flags: u16,
    pub body: Vec<u8>,
    /// The object of the request, for errors.
    pub object: Cow<'static, str>,
}

/// One message from the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) sequence: u32,
    pub(super) content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Acknowledged,
    Refused(Errno, String),
    /// A requested object: what follows the message's head.
    Object(Vec<u8>),
}

impl Request {
    /// Requests an acknowledgement.
    #[must_use]
    pub fn awaited(mut self) -> Self {
        self.flags |= ACKNOWLEDGE;
        self
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.flags & ACKNOWLEDGE != 0
    }

    /// Appends the framed message.
    pub(super) fn frame(&self, sequence: u32, into: &mut Vec<u8>) {
        let length = u32::try_from(HEAD + self.body.len()).unwrap_or(u32::MAX);
        into.extend_from_slice(&length.to_ne_bytes());
        into.extend_from_slice(&self.kind.to_ne_bytes());
        into.extend_from_slice(&(self.flags | REQUEST).to_ne_bytes());
        into.extend_from_slice(&sequence.to_ne_bytes());
        into.extend_from_slice(&0_u32.to_ne_bytes());
        into.extend_from_slice(&self.body);
        attributes::pad(into);
    }
}

/// The messages in one datagram.
///
/// # Errors
/// What is wrong with the first malformed message.
pub(super) fn parse(mut datagram: &[u8]) -> Result<Vec<Reply>, &'static str> {
    let mut replies = Vec::new();
    while !datagram.is_empty() {
        let head: &[u8; HEAD] = datagram.first_chunk().ok_or("a message without a whole head")?;
        let length = usize::try_from(word(head, 0)).unwrap_or(usize::MAX);
        let body = datagram.get(HEAD..length).ok_or("a message with a wrong length")?;
        let kind = u16::from_ne_bytes([head[4], head[5]]);
        let flags = u16::from_ne_bytes([head[6], head[7]]);
        let content =
            if kind == ERROR { outcome(flags, body)? } else { Content::Object(body.to_vec()) };
        replies.push(Reply { sequence: word(head, 8), content });
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(replies)
}

/// `struct nlmsgerr`: a negative errno or zero, the request (or just its head), then attributes.
fn outcome(flags: u16, body: &[u8]) -> Result<Content, &'static str> {
    let code = body.first_chunk().ok_or("an acknowledgement without a result")?;
    let code = i32::from_ne_bytes(*code);
    if code == 0 {
        return Ok(Content::Acknowledged);
    }
    Ok(Content::Refused(Errno::from_raw(code.wrapping_neg()), explanation(flags, body)))
}

/// The kernel's explanation of an error; empty if there is none or it is malformed.
fn explanation(flags: u16, body: &[u8]) -> String {
    let Some(request) = body.get(4..).and_then(|rest| rest.first_chunk::<HEAD>()) else {
        return String::new();
    };
    let repeated = if flags & CAPPED == 0 {
        usize::try_from(word(request, 0)).unwrap_or(usize::MAX)
    } else {
        HEAD
    };
    let start = repeated.checked_next_multiple_of(4).and_then(|length| length.checked_add(4));
    let rest = start.and_then(|start| body.get(start..)).unwrap_or_default();
    attributes::parse(rest)
        .find(|(kind, _)| *kind == EXPLANATION)
        .map(|(_, value)| String::from_utf8_lossy(value).trim_end_matches('\0').to_owned())
        .unwrap_or_default()
}

fn word(head: &[u8; HEAD], at: usize) -> u32 {
    head.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |four| u32::from_ne_bytes(*four))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::redirect::netlink::Attributes;

    fn request(body: Vec<u8>) -> Request {
        Request { kind: 7, flags: 0, body, object: "x".into() }
    }

    fn refusal(sequence: u32, errno: i32, flags: u16, about: &Request, said: &str) -> Vec<u8> {
        let mut body = (-errno).to_ne_bytes().to_vec();
        about.frame(sequence, &mut body);
        if flags & CAPPED != 0 {
            body.truncate(4 + HEAD);
        }
        body.extend(Attributes::new().text(EXPLANATION, said).finish().unwrap());
        let mut datagram = Vec::new();
        Request { kind: ERROR, flags, body, object: "".into() }.frame(sequence, &mut datagram);
        datagram
    }

    #[test]
    fn refusals_carry_errno_and_explanation() {
        let about = request(vec![1, 2, 3, 4, 5]);
        for flags in [0, CAPPED] {
            let replies = parse(&refusal(3, libc::EPERM, flags, &about, "no")).unwrap();
            let content = Content::Refused(Errno::EPERM, "no".into());
            assert_eq!(replies, [Reply { sequence: 3, content }]);
        }
    }

    #[test]
    fn several_messages_in_one_datagram() {
        let about = request(vec![]);
        let mut datagram = refusal(1, 0, 0, &about, "");
        about.frame(2, &mut datagram);
        let contents: Vec<_> =
            parse(&datagram).unwrap().into_iter().map(|one| one.content).collect();
        assert_eq!(contents, [Content::Acknowledged, Content::Object(vec![])]);
    }

    proptest! {
        #[test]
        fn anything_is_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_damaged_answer_does_not_panic(at in 0..60_usize, value: u8, capped: bool) {
            let flags = if capped { CAPPED } else { 0 };
            let mut datagram = refusal(3, libc::EPERM, flags, &request(vec![9; 12]), "because");
            let at = at % datagram.len();
            datagram[at] = value;
            let _ = parse(&datagram);
        }

        #[test]
        fn frames_are_aligned_and_their_length_is_true(body in prop::collection::vec(any::<u8>(), 0..50)) {
            let mut bytes = Vec::new();
            request(body.clone()).frame(5, &mut bytes);
            prop_assert_eq!(bytes.len() % 4, 0);
            let length = u32::from_ne_bytes(*bytes.first_chunk().unwrap());
            prop_assert_eq!(length as usize, HEAD + body.len());
        }
    }
}
