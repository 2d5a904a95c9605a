//! The HTML of productpage: one page without scripts or outside resources.

use std::fmt::Write;

use serde_json::Value;

use crate::productpage::{Answer, SUMMARY, TITLE};

/// The most stars that a rating has.
const MOST_STARS: u64 = 5;

/// What `details` answers, in the order and with the names of the page.
const DETAILS: [(&str, &str); 7] = [
    ("Type", "type"),
    ("Pages", "pages"),
    ("Publisher", "publisher"),
    ("Language", "language"),
    ("Year", "year"),
    ("ISBN-10", "ISBN-10"),
    ("ISBN-13", "ISBN-13"),
];

const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;margin:0;color:#1f2933;background:#f5f7fa}\
header{background:#243b53;color:#fff;padding:.7rem 2rem}header a{color:#fff;text-decoration:none}\
main{max-width:60rem;margin:2rem auto;padding:0 2rem}h1{margin:0 0 .5rem}h2{margin-top:0}\
.columns{display:grid;grid-template-columns:1fr 1.4fr;gap:1.5rem;margin-top:1.5rem}\
section{background:#fff;border-radius:.5rem;padding:1.5rem;box-shadow:0 1px 3px #0003}\
dt{font-weight:600}dd{margin:0 0 .5rem}blockquote{margin:0 0 1.2rem}footer{color:#52606d}\
.stars{font-size:1.4rem;letter-spacing:.1rem}.stars.black{color:#111}.stars.red{color:#c81e1e}\
.error{color:#9b1c1c}.served{color:#829ab1;font-size:.85rem}\
@media(max-width:45rem){.columns{grid-template-columns:1fr}}";

pub fn index() -> String {
    document(
        "<h1>Bookinfo</h1><p>A small application of four services.</p>\
         <p><a href=\"/productpage\">The product page</a></p>",
    )
}

/// The page of the one book; a part whose service failed shows the error in its place.
pub fn product(details: &Answer, reviews: &Answer, pod: &str) -> String {
    document(&format!(
        "<h1>{TITLE}</h1><p><b>Summary:</b> {SUMMARY}</p>\
         <div class=\"columns\"><section id=\"details\">{}</section>\
         <section id=\"reviews\">{}</section></div>\
         <p class=\"served\">This page was served by <u>{}</u>.</p>",
        details_part(details),
        reviews_part(reviews),
        escape(pod),
    ))
}

fn document(main: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Simple Bookstore App</title>\
         <style>{STYLE}</style></head><body><header><a href=\"/\">BookInfo Sample</a></header>\
         <main>{main}</main></body></html>\n"
    )
}

fn details_part(details: &Answer) -> String {
    match details {
        Err(sentence) => failed("Error fetching product details!", sentence),
        Ok(book) => {
            let mut html = String::from("<h2>Book Details</h2><dl>");
            for (label, field) in DETAILS {
                let _ = write!(html, "<dt>{label}:</dt><dd>{}</dd>", text(&book[field]));
            }
            html + "</dl>"
        }
    }
}

fn reviews_part(reviews: &Answer) -> String {
    match reviews {
        Err(sentence) => failed("Error fetching product reviews!", sentence),
        Ok(answer) => {
            let mut html = String::from("<h2>Book Reviews</h2>");
            for review in answer["reviews"].as_array().into_iter().flatten() {
                let _ = write!(
                    html,
                    "<blockquote><p>{}</p><footer>{}</footer>{}</blockquote>",
                    text(&review["text"]),
                    text(&review["reviewer"]),
                    rating(&review["rating"]),
                );
            }
            let served = text(&answer["podname"]);
            html + &format!("<p class=\"served\">Reviews served by: <u>{served}</u></p>")
        }
    }
}

/// Nothing for v1, whose reviews carry no rating.
fn rating(rating: &Value) -> String {
    if let Some(error) = rating["error"].as_str() {
        return format!("<p class=\"error\">{}</p>", escape(error));
    }
    let Some(stars) = rating["stars"].as_u64() else {
        return String::new();
    };
    let full = stars.min(MOST_STARS);
    let color = text(&rating["color"]);
    format!(
        "<div class=\"stars {color}\" title=\"{full} of {MOST_STARS}\">{}{}</div>",
        "★".repeat(full as usize),
        "☆".repeat((MOST_STARS - full) as usize),
    )
}

fn failed(title: &str, sentence: &str) -> String {
    format!("<h2 class=\"error\">{title}</h2><p>{}</p>", escape(sentence))
}

/// A JSON value as page text: strings without quotes.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => escape(text),
        Value::Null => String::new(),
        other => escape(&other.to_string()),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
