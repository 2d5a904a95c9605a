use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http_body_util::{BodyExt, StreamBody};
use kube::core::{ApiResource, GroupVersionKind};
use tokio::time::advance;
use tokio_util::sync::CancellationToken;

use super::super::watch::{Selected, watch};
use super::*;
use crate::source::objects::Kind;

type Said = BoxStream<'static, io::Result<Frame<Bytes>>>;

/// How the server answers a request.
enum Answer {
    Nothing,
    Refused,
    Says(Said),
}

/// What a server says of one path, and the queries that it got.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Vec<String>>>);

impl Server {
    fn client(&self) -> Client {
        bounded(Client::new(self.clone(), "default"))
    }

    fn answer(path: &str, asked: usize) -> Answer {
        match (path, asked) {
            ("/nothing", _) => Answer::Nothing,
            ("/refused", _) => Answer::Refused,
            // Nodes: a list of none at once, and then silence.
            ("/api/v1/nodes", 0) => Answer::Says(stream::iter([listed()]).chain(never()).boxed()),
            ("/chatty", _) => Answer::Says(chatty()),
            _ => Answer::Says(never()),
        }
    }
}

fn never() -> Said {
    stream::pending().boxed()
}

fn chatty() -> Said {
    let lines = stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Some((Ok(Frame::data(Bytes::from_static(b"\n"))), ()))
    });
    lines.boxed()
}

/// A streaming list of nothing.
fn listed() -> io::Result<Frame<Bytes>> {
    let annotations = serde_json::json!({"k8s.io/initial-events-end": "true"});
    let metadata = serde_json::json!({"resourceVersion": "7", "annotations": annotations});
    let object = serde_json::json!({"kind": "Node", "apiVersion": "v1", "metadata": metadata});
    let event = serde_json::json!({"type": "BOOKMARK", "object": object});
    Ok(Frame::data(Bytes::from(format!("{event}\n"))))
}

impl Service<Request<Body>> for Server {
    type Response = Response<StreamBody<Said>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut asked = self.0.lock();
        let answer = Server::answer(request.uri().path(), asked.len());
        asked.push(request.uri().query().unwrap_or_default().to_owned());
        Box::pin(async move {
            match answer {
                Answer::Nothing => std::future::pending().await,
                Answer::Refused => Err(io::Error::other("refused")),
                Answer::Says(said) => Ok(Response::new(StreamBody::new(said))),
            }
        })
    }
}

async fn ask(client: &Client, method: Method, uri: &str) -> kube::Result<Response<Body>> {
    let request = Request::builder().method(method).uri(uri).body(Body::empty());
    client.send(request.unwrap()).await
}

async fn read(client: &Client, uri: &str) -> Body {
    ask(client, Method::GET, uri).await.unwrap().into_body()
}

/// Whether the body has ended by now. What it says before that is read.
async fn has_ended(body: &mut Body) -> bool {
    loop {
        match timeout(Duration::from_millis(1), body.frame()).await {
            Err(_) => return false,
            Ok(None) => return true,
            Ok(Some(frame)) => assert!(frame.is_ok()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_fails() {
    let client = Server::default().client();
    for (method, patience) in [(Method::GET, PATIENCE), (Method::POST, PATIENCE_TO_WRITE)] {
        let asked = Instant::now();
        let answer = ask(&client, method, "/nothing?watch=true").await;
        let error = super::super::health::chain(&answer.unwrap_err());
        assert!(error.contains("no answer within"), "{error}");
        assert!(asked.elapsed() >= patience && asked.elapsed() < patience + CALM);
    }
}

#[tokio::test(start_paused = true)]
async fn watches_that_were_silent_since_an_outage_end_and_no_others() {
    let client = Server::default().client();
    let mut silent = read(&client, "/silent?watch=true").await;
    let mut chatty = read(&client, "/chatty?watch=true").await;
    let mut list = read(&client, "/silent?limit=250").await;
    advance(Duration::from_secs(10)).await;
    assert!(!has_ended(&mut silent).await && !has_ended(&mut chatty).await);

    // Both kinds of failure begin an outage; while it lasts, nothing can be gained by asking again.
    assert!(ask(&client, Method::GET, "/nothing").await.is_err());
    assert!(ask(&client, Method::GET, "/refused").await.is_err());
    assert!(!has_ended(&mut silent).await, "nobody would answer");
    assert!(!has_ended(&mut chatty).await);

    let mut after = read(&client, "/silent?watch=true").await;
    assert!(has_ended(&mut silent).await);
    for other in [&mut chatty, &mut after, &mut list] {
        assert!(!has_ended(other).await);
    }
}

#[tokio::test(start_paused = true)]
async fn one_request_that_always_fails_does_not_end_the_others_all_the_time() {
    let client = Server::default().client();
    let mut ended = 0;
    let mut watch = read(&client, "/silent?watch=true").await;
    for _ in 0..120 {
        advance(Duration::from_millis(500)).await;
        assert!(ask(&client, Method::GET, "/refused").await.is_err());
        read(&client, "/silent").await;
        if has_ended(&mut watch).await {
            ended += 1;
            watch = read(&client, "/silent?watch=true").await;
        }
    }
    assert!((1..=3).contains(&ended), "{ended} times in a minute");
}

/// It lists nothing again, which would cost the server much and the follower a moment of doubt.
#[tokio::test(start_paused = true)]
async fn a_watch_that_was_forgotten_goes_on_from_where_it_was() {
    let server = Server::default();
    let client = server.client();
    let kind = GroupVersionKind::gvk("", "v1", "Node");
    let resource = ApiResource::from_gvk_with_plural(&kind, "nodes");
    let mut heard =
        watch(client.clone(), Selected::all_of(Kind::Node), resource, CancellationToken::new());
    let mut said = Vec::new();
    for outage in [false, true] {
        if outage {
            assert!(ask(&client, Method::GET, "/refused").await.is_err());
            read(&client, "/silent").await;
        }
        while let Ok(Some(next)) = timeout(Duration::from_secs(3), heard.next()).await {
            said.push(format!("{next:?}"));
        }
    }
    assert_eq!(said, ["Start", "Done"]);
    let asked = server.0.lock();
    let watches: Vec<_> = asked.iter().filter(|query| query.contains("watch=true")).collect();
    assert_eq!(watches.len(), 2, "{asked:?}");
    assert!(watches[0].contains("sendInitialEvents=true"), "{asked:?}");
    assert!(watches[1].contains("resourceVersion=7") && !watches[1].contains("sendInitial"));
}
