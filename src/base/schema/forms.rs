//! Forms of texts, as the patterns of the schemas have them.

use super::parse_duration;

/// What a text must look like.
pub struct Form {
    /// At the most so many bytes.
    longest: usize,
    is: fn(&str) -> bool,
    /// What it must be, for the message.
    what: &'static str,
}

impl Form {
    const fn new(longest: usize, is: fn(&str) -> bool, what: &'static str) -> Self {
        Self { longest, is, what }
    }

    /// What is wrong with a text.
    pub fn objection(&self, text: &str) -> Option<String> {
        if text.len() > self.longest {
            return Some(format!("is longer than {} bytes", self.longest));
        }
        (!(self.is)(text)).then(|| format!("{text:?} is not {}", self.what))
    }
}

pub const fn any(longest: usize) -> Form {
    Form::new(longest, |_| true, "")
}

pub const NOT_EMPTY: Form = Form::new(usize::MAX, |text| !text.is_empty(), "a name");
pub const NAME: Form = Form::new(253, |text| !text.is_empty(), "a name");
/// RFC 1123: a namespace, a port's name.
pub const LABEL: Form = Form::new(63, is_label, "a label of lower-case letters, digits and -");
pub const SUBDOMAIN: Form = Form::new(253, is_subdomain, "a name of lower-case labels");
/// Of a pod; none is the default one.
pub const ACCOUNT: Form = Form::new(
    253,
    |text| text.is_empty() || is_subdomain(text),
    "the name of a service account, of lower-case labels",
);
pub const GROUP: Form =
    Form::new(253, |text| text.is_empty() || is_subdomain(text), "an API group");
pub const HOST: Form = Form::new(
    253,
    |text| is_subdomain(text.strip_prefix("*.").unwrap_or(text)),
    "a host name of lower-case labels, which may begin with *.",
);
pub const KIND: Form = Form::new(63, is_kind, "the name of a kind");
pub const HEADER_NAME: Form = Form::new(256, is_token, "a header name");
/// For a claim of a token, as Istio has it.
pub const CLAIM_HEADER: Form =
    Form::new(usize::MAX, is_claim_header, "a header name of letters, digits, - and _");
pub const HEADER_VALUE: Form = Form::new(4096, is_header_value, "a header value");
/// Of a span, or of a service that has spans.
pub const ATTRIBUTE_NAME: Form =
    Form::new(256, is_attribute, "a name of letters, digits, _, ., :, / and -");
/// Of OpenTelemetry's semantic conventions.
pub const ATTRIBUTE_KEY: Form = Form::new(
    256,
    |text| is_attribute(text) && !text.contains([':', '/']) && text == text.to_ascii_lowercase(),
    "the name of an attribute, of lower-case letters, digits, _, . and -",
);
pub const SPAN_NAME: Form = Form::new(
    256,
    |text| text.split(' ').all(is_attribute),
    "words of letters, digits, _, ., :, / and -, with a space between",
);
pub const DURATION: Form =
    Form::new(64, |text| parse_duration(text).is_some(), "a duration such as 500ms, 10s or 1h30m");
pub const ORIGIN: Form = Form::new(253, is_origin, "* or scheme://host(:port) of http or https");
/// Of a selector of Istio's, where nothing may look like a wildcard.
pub const SELECTOR_KEY: Form =
    Form::new(317, |text| !text.is_empty() && !text.contains('*'), "a label's name");
pub const SELECTOR_VALUE: Form = Form::new(63, |text| !text.contains('*'), "a label's value");
pub const LABEL_VALUE: Form = Form::new(63, is_label_value, "a label's value");
pub const PORT_KEY: Form = Form::new(62, is_kind_or_number, "the name of a port");
pub const METHOD: Form =
    Form::new(1024, |text| text.is_empty() || is_identifier(text), "the name of a method of gRPC");
pub const SERVICE: Form = Form::new(
    1024,
    |text| {
        let text = text.strip_prefix('.').unwrap_or(text);
        text.is_empty() || text.split('.').all(is_identifier)
    },
    "the name of a service of gRPC",
);

fn is_label(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inside) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_kind(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && is_kind_or_number(text)
}

fn is_kind_or_number(text: &str) -> bool {
    is_label(&text.to_ascii_lowercase())
}

fn is_attribute(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:/-".contains(&byte);
    !text.is_empty() && text.bytes().all(inside)
}

/// HTTP's (RFC 9110, 5.6.2).
fn is_token(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(inside)
}

fn is_claim_header(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    !text.is_empty() && text.bytes().all(inside)
}

/// Visible characters with single spaces or tabs between them.
fn is_header_value(text: &str) -> bool {
    text.split([' ', '\t'])
        .all(|word| !word.is_empty() && word.bytes().all(|it| it.is_ascii_graphic()))
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return text == "*" };
    let (host, port) = rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let label = |label: &str| !label.is_empty() && label.bytes().all(inside);
    let named = host.strip_prefix("*.").unwrap_or(host).split('.').all(label);
    let digits =
        |port: &str| (1..=5).contains(&port.len()) && port.bytes().all(|it| it.is_ascii_digit());
    ["http", "https"].contains(&scheme) && (host == "*" || named) && port.is_none_or(digits)
}

fn is_label_value(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let edge = |char: char| char.is_ascii_alphanumeric();
    text.is_empty() || text.bytes().all(inside) && text.starts_with(edge) && text.ends_with(edge)
}

fn is_identifier(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.bytes().all(inside)
}
