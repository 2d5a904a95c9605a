//! Which protocol a service port speaks (Istio "Protocol Selection").

use crate::model::AppProtocol;

/// Ports of protocols in which the server speaks first, so that there are no first bytes to look at: SMTP, DNS, MySQL,
/// MongoDB. Istio takes them for TCP unless the port says otherwise.
const SERVER_FIRST: [u16; 4] = [25, 53, 3306, 27017];

/// gRPC-Web, which is HTTP of any version.
const GRPC_WEB: &str = "grpc-web";

/// `appProtocol` decides when it is given, even when it says nothing that we know; else what stands before the first
/// dash of the port's name.
pub(in crate::source::translate) fn of_port(
    app_protocol: Option<&str>,
    name: &str,
    port: u16,
) -> AppProtocol {
    let said = app_protocol.unwrap_or(name);
    of_text(prefix(said)).unwrap_or(if SERVER_FIRST.contains(&port) {
        AppProtocol::Tcp
    } else {
        AppProtocol::Detect
    })
}

/// What stands before the first dash, except that one name has a dash itself.
fn prefix(name: &str) -> &str {
    match name.get(..GRPC_WEB.len()) {
        Some(start) if start.eq_ignore_ascii_case(GRPC_WEB) => start,
        _ => name.split('-').next().unwrap_or_default(),
    }
}

/// Whether Istio knows a protocol of this name, or we do.
pub(in crate::source::translate) fn is_known(name: &str) -> bool {
    of_text(prefix(name)).is_some() || name.eq_ignore_ascii_case("HTTP_PROXY")
}

fn of_text(text: &str) -> Option<AppProtocol> {
    Some(match text.to_ascii_lowercase().as_str() {
        "http" | GRPC_WEB | "kubernetes.io/ws" => AppProtocol::Http,
        "http2" | "h2c" | "grpc" | "kubernetes.io/h2c" => AppProtocol::Http2,
        "tcp" | "tls" | "https" | "mongo" | "mysql" | "redis" | "kubernetes.io/wss" => {
            AppProtocol::Tcp
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_istios_protocol_selection() {
        use AppProtocol::{Detect, Http, Http2, Tcp};
        for (app_protocol, name, port, expected) in [
            (None, "", 80, Detect),
            (None, "http", 80, Http),
            (None, "http-alt", 80, Http),
            (None, "HTTP-alt", 80, Http),
            (None, "httpx", 80, Detect),
            (None, "http2-x", 80, Http2),
            (None, "grpc", 80, Http2),
            (None, "grpc-web", 80, Http),
            (None, "grpc-web-x", 80, Http),
            (None, "tcp", 80, Tcp),
            (None, "tls-x", 443, Tcp),
            (None, "https", 443, Tcp),
            (None, "mongo", 1, Tcp),
            (None, "redis", 1, Tcp),
            (None, "web", 3306, Tcp),
            (None, "http", 3306, Http),
            (Some("http"), "tcp", 80, Http),
            (Some("tcp"), "http", 80, Tcp),
            (Some("kubernetes.io/h2c"), "", 80, Http2),
            (Some("kubernetes.io/ws"), "", 80, Http),
            (Some("kubernetes.io/wss"), "", 80, Tcp),
            (Some("grpc-web"), "", 80, Http),
            (Some("example.com/own"), "http", 80, Detect),
        ] {
            assert_eq!(
                of_port(app_protocol, name, port),
                expected,
                "{app_protocol:?} {name} {port}"
            );
        }
    }
}
