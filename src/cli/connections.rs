//! `isthmus connections`: the open connections as a table that a person reads.

use std::fmt::Write;

use serde_json::{Value, json};

use super::table;

const COLUMNS: [&str; 9] = [
    "direction",
    "source",
    "destination",
    "service",
    "transport",
    "policy",
    "sent",
    "received",
    "age",
];

pub(super) fn table(json: &str) -> anyhow::Result<String> {
    let answer: Value = serde_json::from_str(json)?;
    let mut text = String::new();
    let connections = table::list(&answer["connections"]);
    write!(text, "{} connections are open", answer["total"])?;
    match answer["leftOut"].as_u64() {
        None | Some(0) => writeln!(text)?,
        Some(more) => writeln!(text, "; {more} of them are left out (see --limit)")?,
    }
    let rows: Vec<Value> = connections.iter().map(row).collect();
    table::rows(&mut text, "CONNECTIONS", &COLUMNS, &Value::Array(rows))?;
    Ok(text)
}

/// The path of a query that asks for what the arguments say.
pub(super) fn path(workload: Option<&str>, limit: Option<usize>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(workload) = workload {
        query.append_pair("workload", workload);
    }
    if let Some(limit) = limit {
        query.append_pair("limit", &limit.to_string());
    }
    format!("/connections?{}", query.finish())
}

fn row(connection: &Value) -> Value {
    let service = &connection["destination"]["service"];
    let known = service.as_str().filter(|service| !service.is_empty());
    let transport = table::text_of(&connection["transport"]);
    let requests = connection["requests"].as_u64().unwrap_or(0);
    json!({
        "direction": connection["direction"],
        "source": end(&connection["source"]),
        "destination": end(&connection["destination"]),
        "service": known,
        "transport": match requests {
            0 => transport.to_owned(),
            _ => format!("{transport}, {requests} requests"),
        },
        "policy": connection["policy"],
        "sent": connection["bytesSent"].to_string(),
        "received": connection["bytesReceived"].to_string(),
        "age": format!("{:.0}s", connection["ageSeconds"].as_f64().unwrap_or(0.0)),
    })
}

fn end(end: &Value) -> String {
    let address = table::text_of(&end["address"]);
    match (end["namespace"].as_str(), end["workload"].as_str()) {
        (Some(namespace), Some(workload)) if !workload.is_empty() => {
            format!("{namespace}/{workload} {address}")
        }
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_can_read_it() {
        let json = json!({
            "total": 3, "leftOut": 2,
            "connections": [{
                "workload": "shop/web", "direction": "outbound", "layer": 4, "transport": "tunnel",
                "source": {"workload": "web", "namespace": "shop", "identity": "i", "address": "10.0.0.1:4000"},
                "destination": {"workload": "", "namespace": "", "address": "10.0.0.2:15008", "service": ""},
                "policy": null, "bytesSent": 12, "bytesReceived": 3400, "requests": 0, "ageSeconds": 61.4,
            }],
        });
        let text = table(&json.to_string()).unwrap();
        assert!(text.starts_with("3 connections are open; 2 of them are left out"), "{text}");
        let row = text.lines().last().unwrap();
        let cells: Vec<&str> = row.split_whitespace().collect();
        let expected = [
            "outbound",
            "shop/web",
            "10.0.0.1:4000",
            "10.0.0.2:15008",
            "-",
            "tunnel",
            "-",
            "12",
            "3400",
            "61s",
        ];
        assert_eq!(cells, expected);
    }

    #[test]
    fn arguments_become_a_query() {
        assert_eq!(path(Some("shop/web"), Some(5)), "/connections?workload=shop%2Fweb&limit=5");
        assert_eq!(path(None, None), "/connections?");
    }
}
