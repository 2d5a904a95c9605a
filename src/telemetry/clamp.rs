//! Label values that peers and applications choose, brought down to a few: each kind has one function here, and no
//! label is made of such a value in another way. The access log shows the values as they are.
//!
//! What objects choose (names, labels of pods, service accounts) is as many as a tenant likes; [`super::budget`] bounds
//! that.

use std::borrow::Cow;

use hickory_proto::rr::RecordType;

/// What stands for all other values of a label.
pub(super) const OTHER: &str = "other";

/// The longest value that a label has, in bytes: a DNS name's. Identities are longer, and bounded by their parts.
const LONGEST: usize = 512;

/// The status of a response, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Code {
    /// One that means something to everybody, or 0: the client was sent none.
    Registered(u16),
    /// Any other, by its first digit.
    Class(u8),
    Other,
}

/// `grpc-status`, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Grpc {
    Registered(u8),
    Other,
}

impl Code {
    /// IANA's "HTTP Status Code Registry", with 418, which it keeps unused.
    pub(super) fn of(status: u16) -> Self {
        match status {
            0
            | 100..=104
            | 200..=208
            | 226
            | 300..=308
            | 400..=418
            | 421..=426
            | 428
            | 429
            | 431
            | 451
            | 500..=508
            | 510
            | 511 => Code::Registered(status),
            _ => Self::class_of(status),
        }
    }

    /// The class alone, where there is no room for more; 0 stays.
    pub(super) fn folded(self) -> Self {
        match self {
            Code::Registered(0) | Code::Class(_) | Code::Other => self,
            Code::Registered(status) => Self::class_of(status),
        }
    }

    /// The code that is written so.
    pub(super) fn read(text: &str) -> Option<Self> {
        let classes = (1..=5).map(Code::Class).chain([Code::Other]);
        let registered = text.parse().ok().map(Code::of);
        registered.into_iter().chain(classes).find(|code| code.text() == text)
    }

    fn class_of(status: u16) -> Self {
        match status / 100 {
            class @ 1..=5 => Code::Class(class as u8),
            _ => Code::Other,
        }
    }

    pub(super) fn text(self) -> Cow<'static, str> {
        match self {
            Code::Registered(status) => status.to_string().into(),
            Code::Class(1) => "1xx".into(),
            Code::Class(2) => "2xx".into(),
            Code::Class(3) => "3xx".into(),
            Code::Class(4) => "4xx".into(),
            Code::Class(5) => "5xx".into(),
            Code::Class(_) | Code::Other => OTHER.into(),
        }
    }
}

impl Grpc {
    /// The 17 codes of gRPC ("Status codes and their use in gRPC").
    pub(super) fn of(status: u32) -> Self {
        match u8::try_from(status) {
            Ok(code @ 0..=16) => Grpc::Registered(code),
            _ => Grpc::Other,
        }
    }

    /// The status that is written so.
    pub(super) fn read(text: &str) -> Option<Self> {
        let registered = text.parse().ok().map(Grpc::of);
        registered.into_iter().chain([Grpc::Other]).find(|status| status.text() == text)
    }

    /// Success, or something else.
    pub(super) fn folded(self) -> Self {
        if self == Grpc::Registered(0) { self } else { Grpc::Other }
    }

    pub(super) fn text(self) -> Cow<'static, str> {
        match self {
            Grpc::Registered(code) => code.to_string().into(),
            Grpc::Other => OTHER.into(),
        }
    }
}

/// The kind of a DNS question: those that applications ask in earnest. A question can name any of 65,536.
pub fn query_type(kind: RecordType) -> &'static str {
    match kind {
        RecordType::A => "A",
        RecordType::AAAA => "AAAA",
        RecordType::ANY => "ANY",
        RecordType::CAA => "CAA",
        RecordType::CNAME => "CNAME",
        RecordType::DNSKEY => "DNSKEY",
        RecordType::DS => "DS",
        RecordType::HTTPS => "HTTPS",
        RecordType::MX => "MX",
        RecordType::NAPTR => "NAPTR",
        RecordType::NS => "NS",
        RecordType::PTR => "PTR",
        RecordType::SOA => "SOA",
        RecordType::SRV => "SRV",
        RecordType::SVCB => "SVCB",
        RecordType::TLSA => "TLSA",
        RecordType::TXT => "TXT",
        _ => OTHER,
    }
}

/// The part of a value that a label shows.
pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

/// Whether a text that an object says is short enough for a label.
pub(super) fn fits(text: &str) -> bool {
    text.len() <= LONGEST
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_registered_ones_or_classes() {
        let table = [
            (0, "0"),
            (1, "other"),
            (99, "other"),
            (100, "100"),
            (104, "104"),
            (105, "1xx"),
            (199, "1xx"),
            (200, "200"),
            (209, "2xx"),
            (226, "226"),
            (308, "308"),
            (309, "3xx"),
            (404, "404"),
            (418, "418"),
            (419, "4xx"),
            (427, "4xx"),
            (429, "429"),
            (451, "451"),
            (499, "4xx"),
            (503, "503"),
            (509, "5xx"),
            (511, "511"),
            (599, "5xx"),
            (600, "other"),
            (999, "other"),
            (u16::MAX, "other"),
        ];
        for (status, label) in table {
            assert_eq!(Code::of(status).text(), label, "{status}");
        }
        let labels: BTreeSet<_> = (0..=u16::MAX).map(|it| Code::of(it).text()).collect();
        for label in &labels {
            assert_eq!(Code::read(label).map(|it| it.text()).as_ref(), Some(label));
        }
        assert_eq!((Code::read("0404"), Code::read("6xx")), (None, None));
        assert!(labels.len() < 80, "{}", labels.len());
        let folded: BTreeSet<_> = (0..=u16::MAX).map(|it| Code::of(it).folded().text()).collect();
        let expected = ["0", "1xx", "2xx", "3xx", "4xx", "5xx", "other"];
        assert_eq!(folded.iter().map(|it| &**it).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn grpc_s_status_is_one_of_seventeen() {
        for (status, label) in [(0, "0"), (16, "16"), (17, "other"), (272, "other")] {
            assert_eq!(Grpc::of(status).text(), label);
        }
        assert_eq!(Grpc::of(u32::MAX).text(), "other");
        assert_eq!(Grpc::of(0).folded().text(), "0");
        assert_eq!(Grpc::of(14).folded().text(), "other");
    }

    #[test]
    fn questions_are_of_few_kinds() {
        let kinds: BTreeSet<_> = (0..=u16::MAX).map(|it| query_type(it.into())).collect();
        assert!(kinds.len() < 20 && kinds.contains("AAAA") && kinds.contains(OTHER), "{kinds:?}");
    }
}
