//! What is said before a response: 100, when a client waits for it, and what applications tell in advance.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::destination::gets_of_the_client;
use super::raw::*;
use super::support::{Lab, application};
use crate::l7::WorkerSettings;

const EXPECTING: &[u8] =
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";

#[tokio::test]
async fn a_policy_refuses_before_the_body() {
    let at = application("app").await;
    for half in HALVES {
        let lab = Lab::new(half.mesh(at).policy(gets_of_the_client()), WorkerSettings::for_tests());
        let mut client = half.connect(&lab, at).await;
        client.write_all(EXPECTING).await.unwrap();
        let got = head(&mut client).await;
        assert!(got.starts_with("HTTP/1.1 403 "), "{half:?}: {got}");
        assert!(got.to_ascii_lowercase().contains("connection: close"), "{half:?}: {got}");
    }
}

#[tokio::test]
async fn an_application_refuses_before_the_body() {
    let (at, listener) = listening().await;
    for half in HALVES {
        let lab = half.lab(at);
        let mut client = half.connect(&lab, at).await;
        client.write_all(EXPECTING).await.unwrap();
        let mut application = accept(&listener).await;
        assert!(head(&mut application).await.contains("Expect: 100-continue\r\n"), "{half:?}");
        assert!(is_silent(&mut client).await && is_silent(&mut application).await, "{half:?}");
        let answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\nwho";
        application.write_all(answer).await.unwrap();
        let got = rest(&mut client).await;
        assert!(
            got.starts_with("HTTP/1.1 401 ") && got.ends_with("\r\n\r\nwho"),
            "{half:?}: {got}"
        );
        assert!(got.to_ascii_lowercase().contains("connection: close"), "{half:?}: {got}");
        assert_eq!(rest(&mut application).await, "", "no body, and no other request");
    }
}

#[tokio::test]
async fn an_application_asks_for_the_body() {
    let (at, listener) = listening().await;
    for half in HALVES {
        let lab = half.lab(at);
        let mut client = half.connect(&lab, at).await;
        for round in 0..2 {
            client.write_all(EXPECTING).await.unwrap();
            let mut application = accept(&listener).await;
            head(&mut application).await;
            assert!(is_silent(&mut client).await, "{half:?}");
            application.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            assert_eq!(head(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n", "{half:?}");
            client.write_all(b"body").await.unwrap();
            assert_eq!(read(&mut application, 4).await, "body", "{half:?}");
            let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            application.write_all(answer).await.unwrap();
            assert!(head(&mut client).await.starts_with("HTTP/1.1 200 "), "{half:?} {round}");
        }
    }
}

/// What does not know the expectation gets the body after as long as clients wait themselves.
#[tokio::test]
async fn an_application_that_says_nothing_gets_the_body() {
    let (at, listener) = listening().await;
    for half in HALVES {
        let lab = half.lab(at);
        let mut client = half.connect(&lab, at).await;
        client.write_all(EXPECTING).await.unwrap();
        let mut application = accept(&listener).await;
        head(&mut application).await;
        let start = Instant::now();
        assert_eq!(head(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n", "{half:?}");
        assert!(start.elapsed() > Duration::from_millis(500), "{half:?}");
        client.write_all(b"body").await.unwrap();
        assert_eq!(read(&mut application, 4).await, "body", "{half:?}");
        application.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        assert!(head(&mut client).await.starts_with("HTTP/1.1 200 "), "{half:?}");
    }
}

/// A client need not wait (RFC 9110, 10.1.1).
#[tokio::test]
async fn a_client_that_does_not_wait_is_served() {
    let at = application("app").await;
    for half in HALVES {
        let lab = half.lab(at);
        let mut client = half.connect(&lab, at).await;
        client.write_all(&[EXPECTING, b"body"].concat()).await.unwrap();
        assert_eq!(head(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n", "{half:?}");
        assert!(head(&mut client).await.starts_with("HTTP/1.1 200 "), "{half:?}");
    }
}

#[tokio::test]
async fn early_hints_come_early() {
    let (at, listener) = listening().await;
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    for half in HALVES {
        let lab = half.lab(at);
        let mut client = half.connect(&lab, at).await;
        let mut application = None;
        for round in 0..3 {
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let mut stream = match application.take() {
                Some(stream) => stream,
                None => accept(&listener).await,
            };
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").await.unwrap();
            assert_eq!(head(&mut client).await, "HTTP/1.1 102 Processing\r\n\r\n");
            // One alone, then one together with the response.
            for answer in ["", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"] {
                stream.write_all(format!("{hints}{answer}").as_bytes()).await.unwrap();
                assert_eq!(head(&mut client).await, hints, "{half:?} {round}");
            }
            assert!(head(&mut client).await.starts_with("HTTP/1.1 200 "), "{half:?} {round}");
            assert_eq!(read(&mut client, 2).await, "ok");
            application = Some(stream);
        }
    }
}

/// A client of HTTP/1.0 must hear none (RFC 9110, 15.2), and nobody hears a 100 that it does not wait for.
#[tokio::test]
async fn nobody_hears_what_is_not_for_it() {
    let (at, listener) = listening().await;
    for half in HALVES {
        let lab = half.lab(at);
        for version in ["1.0", "1.1"] {
            let mut client = half.connect(&lab, at).await;
            let request = format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: close\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let mut application = accept(&listener).await;
            head(&mut application).await;
            let first = if version == "1.0" { "103 Early Hints" } else { "100 Continue" };
            let answer =
                format!("HTTP/1.1 {first}\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            application.write_all(answer.as_bytes()).await.unwrap();
            let got = rest(&mut client).await;
            assert!(got.starts_with(&format!("HTTP/{version} 200 ")), "{half:?}: {got}");
        }
    }
}
