//! productpage: the page a reader sees, made of what details and reviews answer; and the same as JSON.

use http::{HeaderMap, StatusCode, request::Parts};
use serde_json::{Value, json};

use crate::call::{self, CallError};
use crate::page;
use crate::reply::{self, Reply};
use crate::settings::{Service, Settings};

/// The book that the sample is about.
pub const TITLE: &str = "The Comedy of Errors";
pub const SUMMARY: &str = "Two pairs of identical twins, parted in a shipwreck as infants, are in the same \
    city without knowing of each other. Friends, merchants and wives take one for the other, which leads to \
    beatings, an arrest and a good deal of confusion before the family finds together.";

/// How often reviews is asked before the page says that they are unavailable; Bookinfo asks twice.
const REVIEW_ATTEMPTS: usize = 2;

/// What a service answered, or the sentence that the page shows instead.
pub type Answer = Result<Value, String>;

pub async fn answer(parts: &Parts, settings: &Settings) -> Reply {
    let headers = &parts.headers;
    match parts.uri.path() {
        "/" | "/index.html" => reply::html(page::index()),
        "/productpage" => {
            let details = details(settings, headers).await;
            let reviews = reviews(settings, headers).await;
            reply::html(page::product(&details, &reviews, &settings.pod))
        }
        "/api/v1/products" => reply::json(StatusCode::OK, &json!([product()])),
        "/api/v1/products/0" => api(details(settings, headers).await),
        "/api/v1/products/0/reviews" => api(reviews(settings, headers).await),
        "/api/v1/products/0/ratings" => {
            api(failing("ratings", ask(settings, Service::Ratings, headers).await))
        }
        _ => reply::not_found(parts),
    }
}

fn product() -> Value {
    json!({ "id": 0, "title": TITLE, "description": SUMMARY })
}

fn api(answer: Answer) -> Reply {
    match answer {
        Ok(value) => reply::json(StatusCode::OK, &value),
        Err(sentence) => {
            reply::json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": sentence }))
        }
    }
}

async fn details(settings: &Settings, headers: &HeaderMap) -> Answer {
    failing("details", ask(settings, Service::Details, headers).await)
}

async fn reviews(settings: &Settings, headers: &HeaderMap) -> Answer {
    let mut last = ask(settings, Service::Reviews, headers).await;
    for _ in 1..REVIEW_ATTEMPTS {
        if last.is_ok() {
            break;
        }
        last = ask(settings, Service::Reviews, headers).await;
    }
    failing("reviews", last)
}

async fn ask(
    settings: &Settings,
    service: Service,
    headers: &HeaderMap,
) -> Result<Value, CallError> {
    call::get(settings, service, &format!("/{service}/0"), headers).await
}

/// The reader gets Bookinfo's sentence, the log the cause.
fn failing(what: &str, answer: Result<Value, CallError>) -> Answer {
    answer.map_err(|error| {
        println!("{what}: {error}");
        format!("Sorry, product {what} are currently unavailable for this book.")
    })
}
