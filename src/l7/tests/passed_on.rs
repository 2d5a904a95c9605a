//! HTTP is passed on as it came: lengths, targets, heads, versions; and what is not understood leaves a trace. The same in
//! both halves.

use tokio::io::AsyncWriteExt;

use super::raw::*;
use super::support::application;

/// What the client gets for an application's answer: the whole body, and one way to tell its end.
#[tokio::test]
async fn lengths_of_responses_are_told_once() {
    for (answer, close, present, absent, body) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            false,
            "transfer-encoding: chunked",
            "content-length",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            false,
            "transfer-encoding: chunked",
            "content-length",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            false,
            "transfer-encoding: chunked",
            "content-length",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nok\n",
            false,
            "content-length: 3\r\n",
            "3, 3",
            "ok\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nok\n",
            false,
            "content-length: 3\r\n",
            "3, 3",
            "ok\n",
        ),
        (
            "HTTP/1.1 200 OK\r\n\r\nto the end",
            true,
            "chunked",
            "content-length",
            "A\r\nto the end\r\n0\r\n\r\n",
        ),
        (
            "HTTP/1.0 200 OK\r\n\r\nold",
            true,
            "HTTP/1.1 200 OK",
            "content-length",
            "3\r\nold\r\n0\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok",
            true,
            "chunked",
            "identity",
            "2\r\nok\r\n0\r\n\r\n",
        ),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", true, "204", "content-length", ""),
        (
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            true,
            "204",
            "transfer",
            "",
        ),
        (
            "HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 2\r\n\r\nok",
            false,
            "x-a: b",
            "x-a :",
            "ok",
        ),
        (
            "HTTP/1.1 200 OK\r\nX-A: a\r\n\tb\r\nContent-Length: 2\r\n\r\nok",
            false,
            "x-a: a",
            "\n\tb",
            "ok",
        ),
        ("HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", false, "etag: x", "transfer", ""),
    ] {
        let at = answering(answer, close).await;
        for half in HALVES {
            let lab = half.lab(at);
            let got = ask(half, &lab, at, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let (head, rest) = got.split_once("\r\n\r\n").unwrap_or((&got, ""));
            let head = format!("{head}\r\n");
            let lower = head.to_ascii_lowercase();
            assert!(lower.contains(&present.to_ascii_lowercase()), "{half:?} {answer:?}: {head}");
            assert!(!lower.contains(absent), "{half:?} {answer:?}: {head}");
            assert_eq!(rest, body, "{half:?} {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_head_has_the_length_of_the_body_that_it_leaves_out() {
    let at = answering("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n", false).await;
    for half in HALVES {
        let lab = half.lab(at);
        let got = ask(half, &lab, at, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(got.to_ascii_lowercase().contains("content-length: 12345\r\n"), "{got}");
    }
}

/// What cannot be passed on is 502, and the log says that it was the application.
#[tokio::test]
async fn broken_responses_are_told_from_broken_connections() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(101));
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(61_440));
    for answer in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nok\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX Bad: a\r\n\r\n",
        "HTTP/3.0 200 OK\r\n\r\n",
        "220 mail ready\r\n\r\n",
        &many.leak()[..],
        &long.leak()[..],
    ] {
        let at = answering(answer, true).await;
        for half in HALVES {
            let lab = half.lab(at);
            let got = ask(half, &lab, at, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert!(got.starts_with("HTTP/1.1 502 "), "{half:?} {answer:.80?}: {got}");
            let labels = ["response_code=\"502\"", "response_flags=\"UPE\""];
            assert_eq!(lab.requests(&labels), 1, "{half:?} {answer:.80?}");
        }
    }
}

/// A request as long as it may be, to the byte; a field more or a byte more is refused.
fn sized(fields: usize, bytes: usize) -> String {
    let start = "GET / HTTP/1.1\r\nhost: a\r\n".to_owned() + &"x: y\r\n".repeat(fields - 2);
    let fill = bytes - start.len() - "z: \r\n\r\n".len();
    format!("{start}z: {}\r\n\r\n", "z".repeat(fill))
}

/// A request that is not understood is answered, counted and told as the client's doing.
#[tokio::test]
async fn what_is_not_understood_leaves_a_trace() {
    // More than the limit and what the client's half may add to it.
    let (many, long) = (sized(106, 2_000), sized(50, 61_441));
    for (request, status) in [
        (&b"GET /a<b HTTP/1.1\r\nHost: a\r\n\r\n"[..], 400),
        (b"GET /u?a=<b> HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a`b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /u?name=\xf1 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET products HTTP/1.1\r\nHost: es\r\n\r\n", 400),
        (b"GET products/_search HTTP/1.1\r\nHost: es\r\n\r\n", 400),
        (b"GET products:80 HTTP/1.1\r\nHost: es\r\n\r\n", 400),
        (b"GET ?a=b HTTP/1.1\r\nHost: es\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n fold\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400),
        (b"G{T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", 400),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (many.as_bytes(), 431),
        (long.as_bytes(), 431),
    ] {
        let at = application("app").await;
        for half in HALVES {
            let mut mesh = half.mesh(at);
            // Where detection comes first, what is no request is carried as bytes.
            if let Some(service) = mesh.mesh.services.first_mut() {
                std::sync::Arc::make_mut(service).ports[0].protocol =
                    crate::model::AppProtocol::Http;
            }
            let lab = super::support::Lab::new(mesh, crate::l7::WorkerSettings::for_tests());
            let mut stream = match half {
                Half::Client => half.connect(&lab, at).await,
                Half::Destination => {
                    let client = crate::world::fixture::identity("client");
                    let host = Some("echo.shop.svc.cluster.local");
                    lab.arrive("echo", at, Some(client), host).await
                }
            };
            _ = stream.write_all(request).await;
            _ = stream.shutdown().await;
            let got = rest(&mut stream).await;
            let shown = String::from_utf8_lossy(&request[..request.len().min(60)]);
            assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{half:?} {shown}: {got}");
            if half == Half::Client {
                let code = format!("response_code=\"{status}\"");
                lab.counted(&[&code, "response_flags=\"DPE\""], 1).await;
            }
        }
    }
}

#[tokio::test]
async fn heads_may_be_as_large_as_the_limits_say() {
    let at = answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false).await;
    for half in HALVES {
        let lab = half.lab(at);
        for request in [sized(100, 2_000), sized(50, 61_440 - 200)] {
            let got = ask(half, &lab, at, request.as_bytes()).await;
            assert!(got.starts_with("HTTP/1.1 200 "), "{half:?}: {got}");
        }
        let got = ask(half, &lab, at, sized(101, 2_000).as_bytes()).await;
        assert!(got.starts_with("HTTP/1.1 431 "), "{half:?}: {got}");
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n";
    let many = format!("{head}{}\r\n", "x: y\r\n".repeat(99));
    let long = format!("{head}x: {}\r\n\r\n", "y".repeat(61_440 - head.len() - 7));
    for answer in [many, long] {
        let at = answering(answer.leak(), false).await;
        for half in HALVES {
            let lab = half.lab(at);
            let got = ask(half, &lab, at, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert!(got.starts_with("HTTP/1.1 200 "), "{half:?}: {got:.200}");
        }
    }
}

/// What the application sees of a target.
#[tokio::test]
async fn targets_arrive_as_they_were_sent() {
    for (target, arrives) in [
        ("/a//b/", "/a//b/"),
        ("/a/../b", "/a/../b"),
        ("/?q", "/?q"),
        ("/a?", "/a?"),
        ("/a%2fb%zz?c=%00", "/a%2fb%zz?c=%00"),
        ("/{a}|^\\\"'", "/{a}|^\\\"'"),
        ("/caf\u{e9}?\u{20ac}", "/caf\u{e9}?\u{20ac}"),
        ("http://a/b?c", "/b?c"),
        ("http://a", "/"),
        ("http://a?b", "/?b"),
        ("/a#fragment", "/a"),
    ] {
        let (at, listener) = listening().await;
        for half in HALVES {
            let lab = half.lab(at);
            let mut client = half.connect(&lab, at).await;
            let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let came = head(&mut accept(&listener).await).await;
            let line = came.lines().next().unwrap();
            assert_eq!(line, format!("GET {arrives} HTTP/1.1"), "{half:?} {target}");
        }
    }
    let (at, listener) = listening().await;
    let lab = Half::Client.lab(at);
    let mut client = Half::Client.connect(&lab, at).await;
    client.write_all(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(head(&mut accept(&listener).await).await.starts_with("OPTIONS * HTTP/1.1\r\n"));
}

#[tokio::test]
async fn names_keep_their_letters_and_their_order() {
    let (at, listener) = listening().await;
    for half in HALVES {
        let lab = half.lab(at);
        let mut client = half.connect(&lab, at).await;
        let request = "GET / HTTP/1.1\r\nHOST: a\r\nX-One: 1\r\nConnection: Keep-Alive, x-hop\r\nX-Hop: h\r\n\
                       Keep-Alive: 5\r\nProxy-Connection: x\r\nSOAPAction: s\r\nx-TWO: 2\r\nX-Two: 3\r\nTE: trailers\r\n\
                       Last: 9\r\n\r\n";
        client.write_all(request.as_bytes()).await.unwrap();
        let mut application = accept(&listener).await;
        let came = head(&mut application).await;
        let ours = ["x-request-id: ", "x-forwarded-proto: ", "x-envoy-attempt-count: "];
        let lines = came.lines().filter(|line| !ours.iter().any(|it| line.starts_with(it)));
        let lines: Vec<_> = lines.collect();
        let expected = [
            "GET / HTTP/1.1",
            "HOST: a",
            "X-One: 1",
            "SOAPAction: s",
            "x-TWO: 2",
            "X-Two: 3",
            "TE: trailers",
            "Last: 9",
            "",
        ];
        assert_eq!(lines, expected, "{half:?}");
        let answer = "HTTP/1.1 200 Fine Indeed\r\nX-PoD: p\r\nConnection: X-Hop\r\nX-Hop: h\r\nKeep-Alive: 5\r\n\
                      ETag: e\r\nSet-Cookie: a\r\nSET-COOKIE: b\r\nContent-Length: 0\r\n\r\n";
        application.write_all(answer.as_bytes()).await.unwrap();
        let got = head(&mut client).await;
        let lines: Vec<_> = got.lines().collect();
        let expected = [
            "HTTP/1.1 200 Fine Indeed",
            "X-PoD: p",
            "ETag: e",
            "Set-Cookie: a",
            "SET-COOKIE: b",
            "Content-Length: 0",
            "",
        ];
        assert_eq!(lines, expected, "{half:?}");
    }
}

#[tokio::test]
async fn trailers_pass_that_are_announced() {
    let (at, listener) = listening().await;
    for half in HALVES {
        let lab = half.lab(at);
        let mut client = half.connect(&lab, at).await;
        let request = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
                       2\r\nhi\r\n0\r\nX-Sum: 1\r\nAuthorization: evil\r\n\r\n";
        client.write_all(request.as_bytes()).await.unwrap();
        let mut application = accept(&listener).await;
        let came = head(&mut application).await;
        assert!(came.contains("Trailer: X-Sum\r\n"), "{half:?}: {came}");
        let expected = "2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n";
        assert_eq!(read(&mut application, expected.len()).await, expected, "{half:?}");
        let answer = "HTTP/1.1 200 OK\r\nTrailer: X-End\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nyo\r\n0\r\nX-End: 2\r\n\
                      X-Unannounced: 3\r\n\r\n";
        application.write_all(answer.as_bytes()).await.unwrap();
        assert!(head(&mut client).await.contains("Trailer: X-End\r\n"), "{half:?}");
        let expected = "2\r\nyo\r\n0\r\nx-end: 2\r\n\r\n";
        assert_eq!(read(&mut client, expected.len()).await, expected, "{half:?}");
    }
}

#[tokio::test]
async fn old_clients_are_served() {
    let at = answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        false,
    )
    .await;
    for half in HALVES {
        let lab = half.lab(at);
        let got = ask(half, &lab, at, b"GET / HTTP/1.0\r\n\r\n").await;
        assert!(got.starts_with("HTTP/1.0 200 OK\r\n") && got.ends_with("\r\n\r\nok"), "{got}");
        assert!(!got.to_ascii_lowercase().contains("chunked"), "{half:?}: {got}");
    }
    // An answer with a length lets the connection go on.
    let at = answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false).await;
    for half in HALVES {
        let lab = half.lab(at);
        let mut client = half.connect(&lab, at).await;
        for _ in 0..2 {
            client.write_all(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await.unwrap();
            let got = head(&mut client).await.to_ascii_lowercase();
            assert!(got.contains("connection: keep-alive"), "{half:?}: {got}");
            assert_eq!(read(&mut client, 2).await, "ok");
        }
    }
}

#[tokio::test]
async fn a_host_that_need_not_be_named_is_the_address() {
    let (at, listener) = listening().await;
    for half in HALVES {
        let lab = half.lab(at);
        let mut client = half.connect(&lab, at).await;
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let came = head(&mut accept(&listener).await).await;
        let expected = match half {
            Half::Client => "host: 10.96.0.1\r\n".to_owned(),
            Half::Destination => format!("host: {at}\r\n"),
        };
        assert!(came.contains(&expected), "{half:?}: {came}");
    }
}

/// A body whose chunks break the rules is the client's fault, and no failure of the application; so is one that the client
/// breaks off.
#[tokio::test]
async fn a_broken_body_is_the_client_s_doing() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (body, flag) in [
        ("zz\r\nabc\r\n0\r\n\r\n", "DPE"),
        ("3\r\nabcXX0\r\n\r\n", "DPE"),
        ("3\nabc\n0\n\n", "DPE"),
        ("fffffffffffffffff\r\nabc", "DPE"),
        ("-1\r\nabc\r\n0\r\n\r\n", "DPE"),
        ("0x3\r\nabc\r\n0\r\n\r\n", "DPE"),
        ("3\r\nabc\r\nzz\r\n", "DPE"),
        ("3\r\nab", "UC"),
        ("3\r\nabc\r\n", "UC"),
    ] {
        let (at, listener) = listening().await;
        for half in HALVES {
            let lab = half.lab(at);
            let mut client = half.connect(&lab, at).await;
            client.write_all(head.as_bytes()).await.unwrap();
            let mut application = accept(&listener).await;
            super::raw::head(&mut application).await;
            client.write_all(body.as_bytes()).await.unwrap();
            client.shutdown().await.unwrap();
            let got = rest(&mut client).await;
            assert!(got.starts_with("HTTP/1.1 400 "), "{half:?} {body:?}: {got}");
            if half == Half::Client {
                let flag = format!("response_flags=\"{flag}\"");
                lab.counted(&["response_code=\"400\"", &flag], 1).await;
            }
        }
    }
}

/// The rows of docs/http.md: what a client sends, and what the application gets through either half.
#[tokio::test]
async fn headers_of_proxies_are_treated_as_istio_treats_them() {
    let (at, listener) = listening().await;
    for half in HALVES {
        let attempt = if half == Half::Client { "1" } else { "9" };
        let asked = if half == Half::Client { None } else { Some("60000") };
        let rows = [
            ("x-request-id", "mine", Some("mine")),
            ("x-forwarded-proto", "https", Some("https")),
            ("x-forwarded-for", "192.0.2.1", Some("192.0.2.1")),
            ("x-envoy-attempt-count", "9", Some(attempt)),
            ("x-envoy-upstream-rq-timeout-ms", "60000", asked),
            ("x-envoy-original-path", "/before", Some("/before")),
            ("x-forwarded-client-cert", "URI=spiffe://td/ns/a/sa/b", None),
        ];
        let lab = half.lab(at);
        let mut client = half.connect(&lab, at).await;
        let sent: String =
            rows.iter().map(|(name, sent, _)| format!("{name}: {sent}\r\n")).collect();
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{sent}\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut application = accept(&listener).await;
        let came = head(&mut application).await.to_ascii_lowercase();
        for (name, _, expected) in rows {
            let value = came.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            assert_eq!(value, expected, "{half:?} {name}");
        }
    }
}
