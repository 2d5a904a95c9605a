//! Formats of the access log as Envoy has them: text, or JSON, with command operators such as `%RESPONSE_CODE%` (Envoy, "Access
//! logging / Format Rules"). `access/writer.rs` writes them.

mod writer;

pub(super) use writer::{Shown, Values};

use std::sync::Arc;

use http::HeaderName;
use serde_json::Value;

/// The format of Istio's proxies where none is given (Istio, "Envoy Access Logs").
pub const DEFAULT_TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
    %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" \
    %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \
    \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
    %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// The fields of Istio's proxies in JSON where none are given.
const DEFAULT_JSON: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];

/// How long a format may be, in bytes.
const MAX_LENGTH: usize = 16 * 1024;

/// Why a text is no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("is longer than {MAX_LENGTH} bytes")]
    Long,
    #[error("the operator that begins at {0:?} does not end; write %% for a percent sign")]
    Open(String),
    #[error("%{0}%: the name of a header is not valid")]
    Header(String),
    #[error("%{0}%: the length after the colon is not a number")]
    Length(String),
    #[error("with accessLogEncoding JSON it must be a JSON object: {0}")]
    Json(String),
}

/// A format of the access log, ready to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessFormat {
    pub(super) shape: Shape,
    /// Headers of the request, and of the response, whose values must be kept.
    pub(super) request: Vec<HeaderName>,
    pub(super) response: Vec<HeaderName>,
    /// Operators that are unknown here, and that write nothing.
    unknown: Vec<String>,
    written: Arc<str>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    Text(Vec<Piece>),
    Json(Vec<(String, Node)>),
}

/// A value of a format in JSON.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Text(Vec<Piece>),
    Fields(Vec<(String, Node)>),
    List(Vec<Node>),
    /// A number, a truth value or null.
    Constant(Value),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    Literal(String),
    /// The value, and how many characters of it.
    Operator(Operator, Option<usize>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operator {
    StartTime,
    Protocol,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    GrpcStatus,
    BytesReceived,
    BytesSent,
    /// Milliseconds to the end of the response.
    Duration,
    /// Milliseconds to the head of the response.
    ResponseDuration,
    RouteName,
    UpstreamHost,
    RemoteAddress,
    RemoteAddressWithoutPort,
    /// The identity of the client.
    PeerSan,
    /// The name of the server that TLS asked for.
    RequestedServerName,
    /// The first of these that is there.
    Request(Vec<Field>),
    Response(Vec<Field>),
    /// A value that does not exist here.
    Nothing,
}

/// A part of a head.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Field {
    Method,
    Path,
    Authority,
    /// How long the application took, which Envoy adds to the response.
    ServiceTime,
    /// By its place in the lists of the format.
    Header(usize),
}

impl AccessFormat {
    /// A line of text; without a format Istio's.
    pub fn text(written: Option<&str>) -> Result<Self, FormatError> {
        let written = written.filter(|it| !it.is_empty()).unwrap_or(DEFAULT_TEXT);
        let mut format = Self::empty(written)?;
        let pieces = format.pieces(written.trim_end_matches('\n'))?;
        format.shape = Shape::Text(pieces);
        Ok(format)
    }

    /// A JSON object a line, whose texts have operators; without a format Istio's.
    pub fn json(written: Option<&str>) -> Result<Self, FormatError> {
        let written = written.filter(|it| !it.is_empty()).unwrap_or_default();
        let mut format = Self::empty(written)?;
        let fields = if written.is_empty() {
            let fields = DEFAULT_JSON.iter();
            let fields =
                fields.map(|(key, text)| Ok(((*key).to_owned(), Node::Text(format.pieces(text)?))));
            fields.collect::<Result<_, FormatError>>()?
        } else {
            let value = serde_json::from_str::<serde_json::Map<String, Value>>(written);
            format.fields(value.map_err(|error| FormatError::Json(error.to_string()))?)?
        };
        format.shape = Shape::Json(fields);
        Ok(format)
    }

    /// Operators that write nothing, because they mean nothing here.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    fn empty(written: &str) -> Result<Self, FormatError> {
        if written.len() > MAX_LENGTH {
            return Err(FormatError::Long);
        }
        Ok(Self {
            shape: Shape::Text(Vec::new()),
            request: Vec::new(),
            response: Vec::new(),
            unknown: Vec::new(),
            written: written.into(),
        })
    }

    fn fields(
        &mut self,
        object: serde_json::Map<String, Value>,
    ) -> Result<Vec<(String, Node)>, FormatError> {
        object.into_iter().map(|(key, value)| Ok((key, self.node(value)?))).collect()
    }

    /// The parser of JSON bounds the depth.
    fn node(&mut self, value: Value) -> Result<Node, FormatError> {
        Ok(match value {
            Value::String(text) => Node::Text(self.pieces(&text)?),
            Value::Object(fields) => Node::Fields(self.fields(fields)?),
            Value::Array(items) => {
                Node::List(items.into_iter().map(|item| self.node(item)).collect::<Result<_, _>>()?)
            }
            constant => Node::Constant(constant),
        })
    }

    fn pieces(&mut self, text: &str) -> Result<Vec<Piece>, FormatError> {
        let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some((before, after)) = rest.split_once('%') {
            literal.push_str(before);
            if let Some(after) = after.strip_prefix('%') {
                literal.push('%');
                rest = after;
                continue;
            }
            let Some((command, after)) = after.split_once('%') else {
                return Err(FormatError::Open(format!(
                    "%{}",
                    after.chars().take(20).collect::<String>()
                )));
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(self.operator(command)?);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(pieces)
    }

    /// `NAME`, `NAME(argument)`, `NAME(argument):length`
    fn operator(&mut self, command: &str) -> Result<Piece, FormatError> {
        let (name, argument, length) = match command.split_once('(') {
            None => {
                let (name, length) = command.split_once(':').unzip();
                (name.unwrap_or(command), None, length)
            }
            Some((name, rest)) => {
                let (argument, after) = rest.rsplit_once(')').unwrap_or((rest, ""));
                (name, Some(argument), after.strip_prefix(':'))
            }
        };
        let length = length.map(str::parse).transpose();
        let length = length.map_err(|_| FormatError::Length(command.to_owned()))?;
        let operator = match (name, argument) {
            ("START_TIME", None) => Operator::StartTime,
            ("PROTOCOL", None) => Operator::Protocol,
            ("RESPONSE_CODE", None) => Operator::ResponseCode,
            ("RESPONSE_CODE_DETAILS", _) => Operator::ResponseCodeDetails,
            ("RESPONSE_FLAGS", None) => Operator::ResponseFlags,
            ("GRPC_STATUS" | "GRPC_STATUS_NUMBER", _) => Operator::GrpcStatus,
            ("BYTES_RECEIVED", None) => Operator::BytesReceived,
            ("BYTES_SENT", None) => Operator::BytesSent,
            ("DURATION", None) => Operator::Duration,
            ("RESPONSE_DURATION", None) => Operator::ResponseDuration,
            ("ROUTE_NAME", None) => Operator::RouteName,
            ("UPSTREAM_HOST", None) => Operator::UpstreamHost,
            ("DOWNSTREAM_REMOTE_ADDRESS" | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS", None) => {
                Operator::RemoteAddress
            }
            (
                "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT"
                | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
                None,
            ) => Operator::RemoteAddressWithoutPort,
            ("DOWNSTREAM_PEER_URI_SAN", None) => Operator::PeerSan,
            ("REQUESTED_SERVER_NAME", None) => Operator::RequestedServerName,
            ("REQ", Some(names)) => Operator::Request(self.heads(command, names, false)?),
            ("RESP", Some(names)) => Operator::Response(self.heads(command, names, true)?),
            // Istio's default format has them. There is no such value, as for most requests of Envoy.
            (
                "CONNECTION_TERMINATION_DETAILS"
                | "UPSTREAM_TRANSPORT_FAILURE_REASON"
                | "UPSTREAM_CLUSTER"
                | "UPSTREAM_CLUSTER_RAW"
                | "UPSTREAM_LOCAL_ADDRESS"
                | "DOWNSTREAM_LOCAL_ADDRESS",
                None,
            ) => Operator::Nothing,
            _ => {
                self.unknown.push(format!("%{command}%"));
                Operator::Nothing
            }
        };
        Ok(Piece::Operator(operator, length))
    }

    /// `X` or `X?Y`: Y where there is no X.
    fn heads(
        &mut self,
        command: &str,
        names: &str,
        of_response: bool,
    ) -> Result<Vec<Field>, FormatError> {
        let one = |name: &str| {
            let upper = name.to_ascii_uppercase();
            Ok(match upper.as_str() {
                ":METHOD" if !of_response => Field::Method,
                // Envoy's name for the path before a route changed it, which is what is kept; a client's header of this name is
                // no path that it asked for.
                ":PATH" | "X-ENVOY-ORIGINAL-PATH" if !of_response => Field::Path,
                ":AUTHORITY" | "HOST" if !of_response => Field::Authority,
                "X-ENVOY-UPSTREAM-SERVICE-TIME" if of_response => Field::ServiceTime,
                _ => {
                    let name = HeaderName::from_bytes(name.as_bytes());
                    let name = name.map_err(|_| FormatError::Header(command.to_owned()))?;
                    let kept = if of_response { &mut self.response } else { &mut self.request };
                    let known = kept.iter().position(|it| *it == name);
                    Field::Header(known.unwrap_or_else(|| {
                        kept.push(name);
                        kept.len() - 1
                    }))
                }
            })
        };
        names.split('?').map(one).collect()
    }
}

impl serde::Serialize for AccessFormat {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn istios_formats_are_known() {
        for format in [AccessFormat::text(None), AccessFormat::json(None)] {
            let format = format.expect("Istio's own");
            assert!(format.unknown().is_empty(), "{:?}", format.unknown());
            assert!(format.request.iter().any(|it| *it == "x-request-id"), "{:?}", format.request);
        }
    }

    #[test]
    fn operators_have_arguments_and_lengths() {
        let format = AccessFormat::text(Some("100%% %REQ(X-A?:PATH):5% %RESP(X-A)%%DURATION%"))
            .expect("a format");
        let Shape::Text(pieces) = &format.shape else { panic!("{format:?}") };
        let path = Operator::Request(vec![Field::Header(0), Field::Path]);
        assert_eq!(
            pieces,
            &[
                Piece::Literal("100% ".into()),
                Piece::Operator(path, Some(5)),
                Piece::Literal(" ".into()),
                Piece::Operator(Operator::Response(vec![Field::Header(0)]), None),
                Piece::Operator(Operator::Duration, None),
            ]
        );
        let format =
            AccessFormat::text(Some("%TRAILER(X)% %DYNAMIC_METADATA(a:b)%")).expect("a format");
        assert_eq!(format.unknown(), ["%TRAILER(X)%", "%DYNAMIC_METADATA(a:b)%"]);
    }

    #[test]
    fn errors_name_the_operator() {
        let error = |text| AccessFormat::text(Some(text)).expect_err(text);
        assert_eq!(error("50% of %PROTOCOL%"), FormatError::Open("%".into()));
        assert_eq!(error("%REQ(a b)%"), FormatError::Header("REQ(a b)".into()));
        assert_eq!(error("%PROTOCOL:x%"), FormatError::Length("PROTOCOL:x".into()));
        assert!(matches!(AccessFormat::json(Some("[]")), Err(FormatError::Json(_))));
        assert_eq!(error(&"x".repeat(MAX_LENGTH + 1)), FormatError::Long);
    }

    proptest! {
        #[test]
        fn any_text_is_a_format_or_an_error(text in "[%A-Z():?{}\",0-9x-]{0,60}") {
            _ = AccessFormat::text(Some(&text));
            _ = AccessFormat::json(Some(&text));
        }
    }
}
