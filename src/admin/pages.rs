//! The pages: requests and responses. No page waits for another.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::body::PageBody;
use super::connections::ConnectionFilter;
use super::door::Caller;
use super::port::Port;
use super::probe;
use super::profile;
use super::{Admin, Dump};
use crate::observe::Query;
use crate::telemetry::{AUDIT, TextFormat};

/// The index at `/` on the socket.
const INDEX: &str = "\
GET  /config_dump                everything the agent knows, as JSON (for istioctl ztunnel-config too)
GET  /connections                open connections, as JSON; ?workload=namespace/name&limit=100
GET  /status                     the short form, as JSON
POST /explain                    the way of a connection or request, for isthmus explain
POST /preview                    what of the last hour a change would decide otherwise, for isthmus preview
GET  /analysis                   what is wrong with the objects, as JSON
GET  /flows                      recent connections and requests, a JSON object a line; ?follow=true&verdict=denied
GET  /flows/summary              who called what within the last hour, as JSON
GET  /logging                    the log levels
POST /logging?level=debug        other log levels on top: info, isthmus::l4=debug, access:off
POST /logging?reset              the log levels of the settings; with &level=... on top
GET  /debug/pprof/profile        where processor time goes, for go tool pprof; ?seconds=10&frequency=100
GET  /debug/pprof/heap           what is allocated, for go tool pprof; once it is recorded:
POST /debug/pprof/heap/profiling?activate=true
POST /quitquitquit               drain and end
";
/// The index at `/` on the read-only port.
const PAGES: &str = "\
GET  /config_dump                everything the agent knows, as JSON (for istioctl ztunnel-config too)
GET  /connections                open connections, as JSON; ?workload=namespace/name&limit=100
GET  /status                     the short form, as JSON
GET  /logging                    the log levels
Everything else is asked over the agent's socket: isthmus admin.
";
const TEXT: &str = "text/plain; charset=utf-8";
/// The longest question, in bytes: with manifests that are supposed to be applied.
const MAX_QUESTION: usize = 4 * 1024 * 1024;
/// The content type of profiles, as Go's own servers send it.
const BYTES: &str = "application/octet-stream";
const NO_PAGE: &str = "there is no such page\n";
const NO_FLOWS: &str = "a controller carries nothing: ask an agent\n";
/// A JSON object a line.
const LINES: &str = "application/x-ndjson";
const JSON: &str = "application/json";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The format of Prometheus before OpenMetrics; the body is the same but for exemplars.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

type Page = Response<PageBody>;

pub(super) async fn answer(port: Port, admin: &Admin, request: Request<Incoming>) -> Page {
    let (parts, body) = request.into_parts();
    let request = &Request::from_parts(parts, ());
    match (port, request.method(), request.uri().path()) {
        (Port::Admin(_), &Method::POST, "/explain") => {
            return asked(admin, body, |it, question| it.explain(question)).await;
        }
        (Port::Admin(_), &Method::POST, "/preview") => {
            return asked(admin, body, |it, change| it.preview(change)).await;
        }
        _ => {}
    }
    match (port, request.method(), request.uri().path()) {
        (Port::Readiness, &Method::GET, "/healthz/ready") => readiness(admin).await,
        (Port::Metrics, &Method::GET, "/metrics" | "/stats/prometheus") => {
            metrics(admin, request).await
        }
        (Port::Admin(_) | Port::Pages, &Method::GET, _) if is_told(request.uri().path()) => {
            tell(port, admin, request).await
        }
        (Port::Admin(caller), ..) => administer(caller, admin, request).await,
        _ => page(StatusCode::NOT_FOUND, TEXT, NO_PAGE),
    }
}

/// Answers a question, over a snapshot: it changes nothing.
async fn asked(
    admin: &Admin,
    body: Incoming,
    answer: fn(&dyn Dump, &[u8]) -> Result<serde_json::Value, String>,
) -> Page {
    let body = match Limited::new(body, MAX_QUESTION).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            return page(StatusCode::BAD_REQUEST, TEXT, format!("the question: {error}\n"));
        }
    };
    let dump = admin.dump.clone();
    match tokio::task::spawn_blocking(move || answer(&*dump, &body)).await {
        Ok(Ok(told)) => json(&told),
        Ok(Err(why)) => page(StatusCode::BAD_REQUEST, TEXT, format!("{why}\n")),
        Err(error) => {
            page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("broke off: {error}\n"))
        }
    }
}

/// Whether a page only reads state, and changes nothing.
fn is_told(path: &str) -> bool {
    matches!(path, "/" | "/config_dump" | "/connections" | "/status" | "/logging")
}

async fn tell<B>(port: Port, admin: &Admin, request: &Request<B>) -> Page {
    match request.uri().path() {
        "/config_dump" => aside(admin, |dump| dump.dump()).await,
        "/connections" => connections(admin, request.uri().query()).await,
        "/status" => json(&status(admin).await),
        "/logging" => page(StatusCode::OK, TEXT, admin.logs.levels() + "\n"),
        _ if port == Port::Pages => page(StatusCode::OK, TEXT, PAGES),
        _ => page(StatusCode::OK, TEXT, INDEX),
    }
}

/// Pages that change something, or are expensive: each request is logged with its author before it runs.
async fn administer<B>(caller: Caller, admin: &Admin, request: &Request<B>) -> Page {
    let (method, path) = (request.method(), request.uri().path());
    let query = request.uri().query().unwrap_or_default();
    let asked = || {
        let (uid, pid) = (caller.uid, caller.pid);
        tracing::info!(target: AUDIT, uid, pid, %method, path, query, "an operator asks");
    };
    match (method, path) {
        (&Method::POST, "/logging") => {
            asked();
            set_levels(admin, query)
        }
        (&Method::POST, "/quitquitquit") => {
            asked();
            admin.quit.cancel();
            page(StatusCode::OK, TEXT, "draining\n")
        }
        // It takes a translation of everything, so the read-only port does not have it.
        (&Method::GET, "/analysis") => {
            asked();
            analysis(admin).await
        }
        (&Method::GET, "/flows") => flows(admin, query),
        (&Method::GET, "/flows/summary") => summary(admin).await,
        (_, path) if path.starts_with("/debug/pprof/") => {
            asked();
            profiles(method, path, query).await
        }
        (_, "/logging" | "/quitquitquit") => {
            page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "use POST\n")
        }
        _ => page(StatusCode::NOT_FOUND, TEXT, NO_PAGE),
    }
}

async fn readiness(admin: &Admin) -> Page {
    let missing = missing(admin).await;
    if missing.is_empty() {
        return page(StatusCode::OK, TEXT, "ready\n");
    }
    let mut text = format!("not ready, waiting for: {}\n", missing.join(", "));
    // A client of the port must not learn which ones and why.
    match admin.dump.pending() {
        0 => {}
        number => text += &format!("{number} workloads are pending: see isthmus status\n"),
    }
    page(StatusCode::SERVICE_UNAVAILABLE, TEXT, text)
}

/// What keeps the agent from being ready now.
async fn missing(admin: &Admin) -> Vec<&'static str> {
    let mut missing = admin.readiness.missing();
    if !probe::answers(&admin.layer4).await {
        tracing::error!("the threads of layer 4 do not answer: they are stuck, or far too busy");
        missing.push(probe::LAYER4);
    }
    missing
}

async fn metrics<B>(admin: &Admin, request: &Request<B>) -> Page {
    let place = admin.scrapes.place().await;
    admin.dump.refresh();
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    let open = accept.is_some_and(|accept| accept.contains("application/openmetrics-text"));
    let (kind, format) = match open {
        true => (OPENMETRICS, TextFormat::OpenMetrics),
        false => (PROMETHEUS, TextFormat::Prometheus),
    };
    let scraped = place.map_err(|error| error.to_string()).and_then(|place| {
        let scrape = admin.telemetry.scrape_in_parts(format).map_err(|error| error.to_string())?;
        Ok(PageBody::scrape(scrape, place))
    });
    match scraped {
        Ok(body) => page_of(StatusCode::OK, kind, body),
        Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}

async fn status(admin: &Admin) -> serde_json::Value {
    let missing = missing(admin).await;
    let mut status = admin.dump.status();
    if let Some(fields) = status.as_object_mut() {
        fields.insert("waitingFor".into(), missing.into());
    }
    status
}

async fn connections(admin: &Admin, query: Option<&str>) -> Page {
    match ConnectionFilter::parse(query.unwrap_or_default()) {
        Ok(filter) => aside(admin, move |dump| dump.connections(&filter)).await,
        Err(why) => page(StatusCode::BAD_REQUEST, TEXT, format!("{why}\n")),
    }
}

async fn analysis(admin: &Admin) -> Page {
    let dump = admin.dump.clone();
    let analysis = tokio::task::spawn_blocking(move || dump.analysis()).await;
    match analysis.unwrap_or_else(|error| Err(format!("broke off: {error}"))) {
        Ok(report) => json(&report),
        Err(why) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
    }
}

/// Flows that are remembered, and new ones for as long as the observer stays.
fn flows(admin: &Admin, query: &str) -> Page {
    let Some(observe) = &admin.observe else {
        return page(StatusCode::NOT_FOUND, TEXT, NO_FLOWS);
    };
    let query = match Query::parse(query) {
        Ok(query) => query,
        Err(why) => return page(StatusCode::BAD_REQUEST, TEXT, format!("{why}\n")),
    };
    match observe.watch(query) {
        Ok(watch) => page_of(StatusCode::OK, LINES, PageBody::Flows(watch)),
        Err(full) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{full}\n")),
    }
}

async fn summary(admin: &Admin) -> Page {
    let Some(observe) = admin.observe.clone() else {
        return page(StatusCode::NOT_FOUND, TEXT, NO_FLOWS);
    };
    let telemetry = admin.telemetry.clone();
    aside(admin, move |_| {
        let summary = observe.summary(&telemetry.open_connections(|_| true));
        serde_json::to_value(summary).unwrap_or_default()
    })
    .await
}

/// Runs slow work on a thread that blocks nobody.
async fn aside(
    admin: &Admin,
    make: impl FnOnce(&dyn Dump) -> serde_json::Value + Send + 'static,
) -> Page {
    let dump = admin.dump.clone();
    match tokio::task::spawn_blocking(move || json(&make(&*dump))).await {
        Ok(page) => page,
        Err(error) => {
            page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("broke off: {error}\n"))
        }
    }
}

async fn profiles(method: &Method, path: &str, query: &str) -> Page {
    let answer = match (method, path) {
        (&Method::GET, "/debug/pprof/profile") => profile::cpu(query).await,
        (&Method::GET, "/debug/pprof/heap") => profile::heap().await,
        (&Method::POST, "/debug/pprof/heap/profiling") => match profile::record_heap(query).await {
            Ok(said) => return page(StatusCode::OK, TEXT, said),
            Err(refused) => Err(refused),
        },
        (_, "/debug/pprof/heap/profiling") => {
            return page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "use POST\n");
        }
        _ => return page(StatusCode::NOT_FOUND, TEXT, "there is no such profile\n"),
    };
    match answer {
        Ok(body) => page(StatusCode::OK, BYTES, body),
        Err(refused) => page(refused.status, TEXT, refused.why),
    }
}

/// As in ztunnel: `level` adds to the levels, `reset` first returns to those of the settings.
fn set_levels(admin: &Admin, query: &str) -> Page {
    let (mut level, mut reset) = (None, false);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "level" => level = Some(value.into_owned()),
            "reset" => reset = true,
            other => {
                let why = format!("{other}: say ?level=info, ?level=isthmus::l4=debug or ?reset\n");
                return page(StatusCode::BAD_REQUEST, TEXT, why);
            }
        }
    }
    let set = match (reset, level) {
        (true, more) => admin.logs.reset_levels(more.as_deref()),
        (false, Some(level)) => admin.logs.add_levels(&level),
        (false, None) => Ok(()),
    };
    match set {
        Ok(()) => page(StatusCode::OK, TEXT, admin.logs.levels() + "\n"),
        Err(error) => page(StatusCode::BAD_REQUEST, TEXT, format!("{error}\n")),
    }
}

fn json(value: &serde_json::Value) -> Page {
    page(StatusCode::OK, JSON, format!("{value:#}\n"))
}

fn page(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Page {
    page_of(status, kind, PageBody::whole(body))
}

fn page_of(status: StatusCode, kind: &'static str, body: PageBody) -> Page {
    let mut page = Response::new(body);
    *page.status_mut() = status;
    page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    page
}
