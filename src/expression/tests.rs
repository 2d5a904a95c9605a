//! Istio's expressions, row by row; what CEL has and this does not; and texts that mean harm.

use std::time::Duration;

use tokio::time::Instant;

use super::*;

/// A request of these attributes and headers.
struct Request<'a>(&'a Expression);

impl Facts for Request<'_> {
    fn get(&self, attribute: Attribute) -> Option<Value<'_>> {
        Some(match attribute {
            Attribute::Path => Value::text("/api/v1?user=1"),
            Attribute::UrlPath => Value::text("/api/v1"),
            Attribute::Method => Value::text("GET"),
            Attribute::Host => Value::text("reviews.bookinfo"),
            Attribute::Code => Value::Int(503),
            Attribute::Duration => Value::Duration(1_500_000_000),
            Attribute::Mtls => Value::Bool(true),
            Attribute::RequestHeader(place) => {
                let name = self.0.request_headers[place].as_str();
                return (name == "x-user" || name == "user-agent").then(|| Value::text("jason"));
            }
            _ => return None,
        })
    }
}

fn is_true(text: &str) -> bool {
    let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    expression.is_true(&Request(&expression))
}

#[test]
fn expressions_of_requests() {
    for (text, expected) in [
        ("response.code >= 400", true),
        ("response.code >= 400 && request.method == 'GET'", true),
        ("response.code < 400 || request.host.startsWith('reviews.')", true),
        ("!(response.code == 503)", false),
        ("request.url_path == '/api/v1' && request.path.contains('user=')", true),
        ("request.path.endsWith('=1') && request.path.matches('^/api/v[0-9]')", true),
        ("request.headers['x-user'] == 'jason'", true),
        ("request.headers['X-User'] == 'jason'", true),
        ("request.useragent == \"jason\"", true),
        ("'x-user' in request.headers", true),
        ("'x-other' in request.headers", false),
        ("has(request.headers.cookie)", false),
        ("has(request.method)", true),
        ("response.code in [500, 502, 503]", true),
        ("response.code in [200, 'a']", false),
        ("response.code == 500 + 3 && -response.code < 0 && response.code % 100 == 3", true),
        ("request.duration > duration('1s')", true),
        ("request.duration > duration('2s')", false),
        ("connection.mtls ? true : false", true),
        ("size(request.method) == 3 && string(response.code) == '503'", true),
        ("int('7') + 1 == 8 && 1.5 < 2", true),
        // A response has no gRPC status: an error, which is heeded unless the other side decides.
        ("response.grpc_status == 0", false),
        ("!(response.grpc_status == 0)", false),
        ("response.grpc_status == 0 || response.code == 503", true),
        ("response.code == 503 || response.grpc_status == 0", true),
        ("response.code == '503'", false),
        ("response.code != '503'", true),
        ("response.code", false),
        ("1 / 0 == 1", false),
    ] {
        assert_eq!(is_true(text), expected, "{text}");
    }
}

#[test]
fn values_of_tags() {
    for (text, expected) in [
        ("request.host", Some("reviews.bookinfo")),
        ("request.headers['x-user'] + '@' + request.host", Some("jason@reviews.bookinfo")),
        ("response.code", Some("503")),
        ("'fixed'", Some("fixed")),
        ("response.grpc_status", None),
        ("request.headers['none']", None),
    ] {
        let expression = Expression::parse(text).expect("an expression");
        assert_eq!(expression.text(&Request(&expression)).as_deref(), expected, "{text}");
    }
}

#[test]
fn what_is_not_known_is_named() {
    for (text, part) in [
        ("", "cannot be parsed"),
        ("response.code >", "cannot be parsed"),
        ("response.kode == 1", "response.kode is not an attribute"),
        ("node.metadata['x'] == 'a'", "an index"),
        ("[1, 2].all(x, x > 1)", "a macro"),
        ("[1, 2] == [1]", "a list"),
        ("{'a': 1}.a == 1", "not supported"),
        ("request.path.lowerAscii() == ''", "the function lowerAscii"),
        ("request.path.matches(request.host)", "the function matches"),
        ("request.path.matches('(')", "not a regular expression"),
        ("request.path.matches('(a{1000}){1000}')", "not a regular expression"),
        ("duration('soon') < request.duration", "the duration"),
        ("request.headers['x y'] == ''", "is not an attribute"),
        ("null == null", "null is not supported"),
    ] {
        let error = Expression::parse(text).expect_err(text).to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

/// Bombs are errors, at once, or harmless.
#[test]
fn no_text_takes_long_or_overflows_the_stack() {
    let nested = |open: &str, close: &str, times: usize| {
        format!("{}1{}", open.repeat(times), close.repeat(times))
    };
    let bombs = [
        nested("(", ")", 900),
        nested("[", "]", 900),
        nested("!", "", 2_000),
        nested("-", "", 2_000),
        nested("true ? 1 : ", "", 150),
        "1 + ".repeat(500) + "1",
        "request.path + ".repeat(120) + "request.path == ''",
        "a".to_owned() + &".a".repeat(1_000),
        "a".to_owned() + &"[a".repeat(900),
        "[1].map(x, ".repeat(100) + "1" + &")".repeat(100),
        "[0,1,2,3,4,5,6,7,8,9].all(x, ".repeat(20) + "true" + &")".repeat(20),
        "\"".repeat(2_000),
        "((((((((((a".repeat(150),
        "?:".repeat(1_000),
    ];
    // The stack of a thread of the agent.
    let run = move || {
        for bomb in bombs {
            let began = Instant::now();
            if let Ok(expression) = Expression::parse(&bomb) {
                _ = expression.is_true(&Request(&expression));
            }
            assert!(
                began.elapsed() < Duration::from_secs(2),
                "{:?}: {:.60}",
                began.elapsed(),
                bomb
            );
        }
    };
    std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(run)
        .expect("a thread")
        .join()
        .expect("no bomb");
    assert_eq!(Expression::parse(&"1".repeat(MAX_LENGTH + 1)).err(), Some(ExpressionError::Long));
}
