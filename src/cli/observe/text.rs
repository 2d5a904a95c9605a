//! A flow as a line that a person reads.

use std::fmt::Write;

use crate::observe::{End, Event, Line};
use crate::telemetry::Verdict;

const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

/// `18:07:10.123  denied     L7 dst  default/curl -> bookinfo/details-v1:9080  GET /details/0 403  …`
pub(in crate::cli) fn line(event: &Event, coloured: bool) -> String {
    match event {
        Event::Lost { lost } => {
            let text = format!("-- {lost} flows lost: what reads this is too slow --");
            if coloured { format!("{YELLOW}{text}{PLAIN}\n") } else { text + "\n" }
        }
        Event::Flow(line) => flow(line, coloured),
    }
}

fn flow(line: &Line, coloured: bool) -> String {
    let mut text = String::new();
    let time = line.time.get(11..23).unwrap_or(&line.time);
    let verdict = line.verdict.as_str();
    let (colour, plain) = match (coloured, line.verdict) {
        (false, _) => ("", ""),
        (true, Verdict::Permitted) => (GREEN, PLAIN),
        (true, Verdict::Denied) => (RED, PLAIN),
        (true, Verdict::Failed) => (YELLOW, PLAIN),
    };
    let side = if line.reporter == "source" { "src" } else { "dst" };
    let (source, destination) = (end(&line.source, false), destination(line));
    // Into a text nothing fails.
    _ = write!(
        text,
        "{time}  {colour}{verdict:9}{plain}  L{} {side}  {source:24} -> {destination:32}",
        line.layer
    );
    put_what(&mut text, line);
    put_why(&mut text, line);
    readable(text.trim_end()) + "\n"
}

fn put_what(text: &mut String, line: &Line) {
    match &line.http {
        Some(http) => {
            _ = write!(text, "  {} {}", http.method, http.path);
            _ = match (http.status, http.grpc_status) {
                (0, _) => write!(text, " -"),
                (status, None) => write!(text, " {status}"),
                (status, Some(grpc)) => write!(text, " {status} grpc {grpc}"),
            };
        }
        None => {
            _ = write!(text, "  {} B sent, {} B received", line.bytes_sent, line.bytes_received);
        }
    }
    _ = write!(text, "  {}", duration(line.duration_ms));
    text.push_str(match (line.in_process, line.mutual_tls) {
        (true, _) => "  in process",
        (false, true) => "  mtls",
        (false, false) => "  plaintext",
    });
}

fn put_why(text: &mut String, line: &Line) {
    if let Some(http) = line.http.as_ref().filter(|http| !http.route.is_empty()) {
        _ = write!(text, "  route {}", http.route);
    }
    if let Some(policy) = &line.policy {
        _ = write!(text, "  policy {policy}");
    }
    if !line.notes.is_empty() {
        _ = write!(text, "  notes {}", line.notes.join(","));
    }
    if line.flags != "-" {
        _ = write!(text, "  {}", line.flags);
    }
    if !line.reason.is_empty() {
        _ = write!(text, ": {}", line.reason);
    }
    if let Some(trace) = &line.trace {
        _ = write!(text, "  trace {trace}");
    }
}

/// What was reached; where nothing was, what was called.
fn destination(line: &Line) -> String {
    let service = &line.service;
    if !line.destination.pod.is_empty() {
        return end(&line.destination, true);
    }
    match (&*service.host, service.dialled) {
        ("", _) => end(&line.destination, true),
        (host, Some(dialled)) => format!("{host}:{}", dialled.port()),
        (host, None) => host.to_owned(),
    }
}

/// `namespace/pod`, or the address of what is no pod of the mesh.
fn end(end: &End, with_port: bool) -> String {
    let port = end.address.map(|address| address.port()).filter(|_| with_port);
    match (&*end.pod, end.address) {
        ("", Some(address)) if with_port => address.to_string(),
        ("", Some(address)) => address.ip().to_string(),
        ("", None) => "-".to_owned(),
        (pod, _) => match port {
            Some(port) => format!("{}/{pod}:{port}", end.namespace),
            None => format!("{}/{pod}", end.namespace),
        },
    }
}

/// As a person reads it.
pub(in crate::cli) fn duration(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{:.0}us", ms * 1e3),
        ms if ms < 1e3 => format!("{ms:.1}ms"),
        ms => format!("{:.1}s", ms / 1e3),
    }
}

/// Peers choose some of the text: nothing of it moves the cursor or turns what follows round.
fn readable(text: &str) -> String {
    let is_hidden = |character: char| matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    // Our own colours.
    let own = [RED, YELLOW, GREEN, PLAIN];
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if let Some(colour) = own.iter().find(|colour| rest.starts_with(**colour)) {
            shown.push_str(colour);
            rest = &rest[colour.len()..];
            continue;
        }
        if character.is_control() || is_hidden(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
        rest = &rest[character.len_utf8()..];
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(value: serde_json::Value, coloured: bool) -> String {
        line(&serde_json::from_value(value).unwrap(), coloured)
    }

    fn denied(path: &str) -> serde_json::Value {
        json!({
            "time": "2026-11-30T18:07:10.123456Z", "node": "node-a", "layer": 7, "reporter": "destination",
            "source": {"namespace": "default", "pod": "curl", "address": "10.0.0.1:40000"},
            "destination": {"namespace": "bookinfo", "pod": "details-v1", "address": "10.0.0.2:9080"},
            "verdict": "denied", "policy": "bookinfo/details", "flags": "DENY",
            "reason": "no ALLOW AuthorizationPolicy matches (bookinfo/details)",
            "mutualTls": true, "inProcess": false, "durationMs": 0.42, "bytesSent": 0, "bytesReceived": 19,
            "http": {"method": "DELETE", "path": path, "host": "details", "protocol": "HTTP/1.1", "status": 403},
        })
    }

    #[test]
    fn a_person_can_read_it() {
        let text = shown(denied("/details/0"), false);
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(
            words.join(" "),
            "18:07:10.123 denied L7 dst default/curl -> bookinfo/details-v1:9080 DELETE /details/0 403 420us mtls \
             policy bookinfo/details DENY: no ALLOW AuthorizationPolicy matches (bookinfo/details)"
        );
        assert!(shown(denied("/"), true).contains("\x1b[31mdenied"), "in red on a terminal");
        assert!(shown(json!({"lost": 7}), false).starts_with("-- 7 flows lost"));
    }

    #[test]
    fn what_peers_choose_moves_no_cursor() {
        let text = shown(denied("/\x1b[2J\u{202e}x"), false);
        assert!(text.contains("/\\u{1b}[2J\\u{202e}x"), "{text}");
    }
}
