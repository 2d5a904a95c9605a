//! ratings: how many stars each reviewer gave.

use http::{StatusCode, request::Parts};
use serde_json::json;

use crate::reply::{self, Reply};

/// `/ratings/{id}`.
pub fn answer(parts: &Parts) -> Reply {
    let Some(id) = reply::identifier(parts, "/ratings/") else {
        return reply::not_found(parts);
    };
    let ratings = json!({ "id": id, "ratings": { "Reviewer1": 5, "Reviewer2": 4 } });
    reply::json(StatusCode::OK, &ratings)
}
