//! reviews: two reviews; v2 and v3 ask ratings for the stars.

use http::{HeaderMap, StatusCode, request::Parts};
use serde_json::{Value, json};

use crate::call;
use crate::reply::{self, Reply};
use crate::settings::{Service, Settings, Version};

const REVIEWS: [(&str, &str); 2] = [
    ("Reviewer1", "A delight from the first mistake to the last. Read it aloud and in company!"),
    ("Reviewer2", "Very funny, though not as deep as what its author wrote later."),
];

/// `/reviews/{id}`.
pub async fn answer(parts: &Parts, settings: &Settings) -> Reply {
    let Some(id) = reply::identifier(parts, "/reviews/") else {
        return reply::not_found(parts);
    };
    let color = match settings.version {
        Version::V1 => None,
        Version::V2 => Some("black"),
        Version::V3 => Some("red"),
    };
    let ratings = match color {
        None => None,
        Some(_) => Some(ratings(settings, id, &parts.headers).await),
    };
    let reviews: Vec<Value> = REVIEWS
        .iter()
        .map(|(reviewer, text)| match &ratings {
            None => json!({ "reviewer": reviewer, "text": text }),
            Some(ratings) => {
                let rating = rating(ratings, reviewer, color);
                json!({ "reviewer": reviewer, "text": text, "rating": rating })
            }
        })
        .collect();
    let body = json!({
        "id": id.to_string(),
        "podname": settings.pod,
        "clustername": Value::Null,
        "reviews": reviews,
    });
    reply::json(StatusCode::OK, &body)
}

/// The stars by reviewer, or why there are none.
async fn ratings(settings: &Settings, id: u64, headers: &HeaderMap) -> Result<Value, String> {
    call::get(settings, Service::Ratings, &format!("/ratings/{id}"), headers)
        .await
        .map(|mut answer| answer["ratings"].take())
        .map_err(|error| error.to_string())
}

fn rating(ratings: &Result<Value, String>, reviewer: &str, color: Option<&str>) -> Value {
    match ratings {
        Ok(ratings) => json!({ "stars": ratings[reviewer], "color": color }),
        Err(cause) => {
            json!({ "error": "Ratings service is currently unavailable", "cause": cause })
        }
    }
}
