//! What the demo prints: a story for a reader, or one JSON object for a program.

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::{Map, Value, json};

/// How far the lines of a step are indented.
const INDENT: &str = "   ";

/// The longest line of evidence that is printed whole, in characters.
const WIDTH: usize = 400;

/// Prints as it goes, and keeps the figures of each step.
pub struct Report {
    json: bool,
    colors: bool,
    steps: Map<String, Value>,
    figures: Map<String, Value>,
}

impl Report {
    pub fn new(json: bool) -> Self {
        let colors = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, colors, steps: Map::new(), figures: Map::new() }
    }

    pub fn title(&self, text: &str) {
        self.line(&self.paint("1", text));
    }

    /// The heading of a step.
    pub fn step(&self, number: usize, title: &str) {
        self.line("");
        self.line(&self.paint("1", &format!("{number}. {title}")));
    }

    /// A sentence to the reader.
    pub fn say(&self, text: &str) {
        self.indented(text);
    }

    /// Something that is done to the lab, as a command line would do it.
    pub fn command(&self, text: &str) {
        self.indented(&self.paint("36", &format!("$ {text}")));
    }

    /// An answer, a log line, a figure.
    pub fn evidence(&self, text: &str) {
        let short: String = text.chars().take(WIDTH).collect();
        let dots = if short.len() < text.len() { " ..." } else { "" };
        self.indented(&self.paint("2", &format!("  {short}{dots}")));
    }

    /// A figure of the current step, for the JSON object.
    pub fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.to_owned(), value.into());
    }

    /// The end of a step.
    pub fn done(&mut self, field: &str, time: Duration, outcome: Result<(), String>) {
        let seconds = (time.as_secs_f64() * 100.0).round() / 100.0;
        let mut result = Map::from_iter([("ok".to_owned(), json!(outcome.is_ok()))]);
        result.insert("seconds".to_owned(), json!(seconds));
        result.append(&mut self.figures);
        match outcome {
            Ok(()) => self.indented(&self.paint("32", &format!("ok ({seconds} s)"))),
            Err(cause) => {
                eprintln!("{INDENT}{}", self.paint("31", "failed:"));
                for line in cause.lines() {
                    eprintln!("{INDENT}{line}");
                }
                result.insert("error".to_owned(), json!(cause));
            }
        }
        self.steps.insert(field.to_owned(), Value::Object(result));
    }

    /// The end of the demo.
    pub fn finish(&mut self, ok: bool, time: Duration) {
        let seconds = (time.as_secs_f64() * 100.0).round() / 100.0;
        if self.json {
            self.steps.insert("ok".to_owned(), json!(ok));
            self.steps.insert("seconds".to_owned(), json!(seconds));
            println!("{}", Value::Object(std::mem::take(&mut self.steps)));
        } else {
            let count = self.steps.values().filter(|step| step["ok"] == true).count();
            println!("\n{count} steps succeeded in {seconds} s");
        }
    }

    fn indented(&self, text: &str) {
        self.line(&format!("{INDENT}{text}"));
    }

    fn line(&self, text: &str) {
        if !self.json {
            println!("{text}");
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colors { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
