//! Clients of HTTP/1 that end their direction or leave while they wait for a response.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::raw::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// As `printf ... | nc` does: the application sees the end, and what it has to say arrives.
#[tokio::test]
async fn a_direction_that_ends_leaves_the_other() {
    let (at, listener) = listening().await;
    for half in HALVES {
        let lab = half.lab(at);
        for (request, body) in [(GET, ""), (POST, "body")] {
            let mut client = half.connect(&lab, at).await;
            client.write_all(request).await.unwrap();
            client.shutdown().await.unwrap();
            let mut application = accept(&listener).await;
            head(&mut application).await;
            assert_eq!(rest(&mut application).await, body, "{half:?}");
            application.write_all(OK).await.unwrap();
            let got = rest(&mut client).await;
            assert!(got.starts_with("HTTP/1.1 200 ") && got.ends_with("ok"), "{half:?}: {got}");
        }
    }
}

/// Requests that came before the end are all answered.
#[tokio::test]
async fn an_end_after_several_requests_waits_for_the_last() {
    let (at, listener) = listening().await;
    for half in HALVES {
        let lab = half.lab(at);
        let mut client = half.connect(&lab, at).await;
        client.write_all(&[GET, POST].concat()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut application = accept(&listener).await;
        head(&mut application).await;
        assert!(is_silent(&mut application).await, "{half:?}: another request follows");
        application.write_all(OK).await.unwrap();
        head(&mut application).await;
        assert_eq!(rest(&mut application).await, "body", "{half:?}");
        application.write_all(OK).await.unwrap();
        assert_eq!(rest(&mut client).await.matches("HTTP/1.1 200 ").count(), 2, "{half:?}");
    }
}

/// The response has begun, and nothing is sent: an application that streams hears of it all the same.
#[tokio::test]
async fn a_client_leaves_within_a_response() {
    let (at, listener) = listening().await;
    for half in HALVES {
        let lab = half.lab(at);
        let mut client = half.connect(&lab, at).await;
        client.write_all(GET).await.unwrap();
        let mut application = accept(&listener).await;
        head(&mut application).await;
        let begins = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        application.write_all(begins).await.unwrap();
        head(&mut client).await;
        drop(client);
        assert_eq!(rest(&mut application).await, "", "{half:?}");
    }
}

/// An application that gives up for a client that left has not failed.
#[tokio::test]
async fn a_client_that_left_is_told_nothing() {
    let (at, listener) = listening().await;
    for half in HALVES {
        let lab = half.lab(at);
        let mut client = half.connect(&lab, at).await;
        client.write_all(GET).await.unwrap();
        let mut application = accept(&listener).await;
        head(&mut application).await;
        client.shutdown().await.unwrap();
        assert_eq!(rest(&mut application).await, "", "{half:?}");
        drop(application);
        assert_eq!(rest(&mut client).await, "", "{half:?}");
        lab.counted(&["response_code=\"0\""], 1).await;
    }
}

/// A reset is no end.
#[tokio::test]
async fn a_reset_client_ends_its_request() {
    let (at, listener) = listening().await;
    for half in HALVES {
        let lab = half.lab(at);
        let mut client = half.connect(&lab, at).await;
        client.write_all(GET).await.unwrap();
        let mut application = accept(&listener).await;
        head(&mut application).await;
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(rest(&mut application).await, "", "{half:?}");
    }
}

/// An application that does not read what it refuses is heard, although what it did not read breaks the connection.
#[tokio::test]
async fn an_early_answer_is_heard_over_a_broken_connection() {
    let (at, listener) = listening().await;
    for half in HALVES {
        let lab = half.lab(at);
        let mut client = half.connect(&lab, at).await;
        let begins = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n";
        client.write_all(begins).await.unwrap();
        let mut application = accept(&listener).await;
        head(&mut application).await;
        client.write_all(&[b'x'; 64 * 1024]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let answer = b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\n\r\nbig";
        application.write_all(answer).await.unwrap();
        drop(application);
        let got = head(&mut client).await;
        assert!(got.starts_with("HTTP/1.1 413 "), "{half:?}: {got}");
    }
}

/// An application that answers while it reads is not told that the client left when all is sent, and its connection goes on.
#[tokio::test]
async fn an_early_response_leaves_the_connection_as_it_is() {
    let (at, listener) = listening().await;
    for half in HALVES {
        let lab = half.lab(at);
        let mut client = half.connect(&lab, at).await;
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n").await.unwrap();
        let mut application = accept(&listener).await;
        head(&mut application).await;
        let begins = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        application.write_all(begins).await.unwrap();
        head(&mut client).await;
        client.write_all(b"body").await.unwrap();
        assert_eq!(read(&mut application, 4).await, "body", "{half:?}");
        assert!(is_silent(&mut application).await, "{half:?}: it is open");
        application.write_all(b"2\r\nok\r\n0\r\n\r\n").await.unwrap();
        assert_eq!(read(&mut client, 12).await, "2\r\nok\r\n0\r\n\r\n", "{half:?}");
        client.write_all(GET).await.unwrap();
        assert!(
            head(&mut application).await.starts_with("GET / "),
            "{half:?}: the same connection"
        );
    }
}
