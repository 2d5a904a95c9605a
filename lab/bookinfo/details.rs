//! details: facts about the book.

use http::{StatusCode, request::Parts};
use serde_json::json;

use crate::reply::{self, Reply};

/// `/details/{id}`.
pub fn answer(parts: &Parts) -> Reply {
    let Some(id) = reply::identifier(parts, "/details/") else {
        return reply::not_found(parts);
    };
    let book = json!({
        "id": id,
        "author": "William Shakespeare",
        "year": 1595,
        "type": "paperback",
        "pages": 200,
        "publisher": "PublisherA",
        "language": "English",
        "ISBN-10": "1234567890",
        "ISBN-13": "123-1234567890",
    });
    reply::json(StatusCode::OK, &book)
}
