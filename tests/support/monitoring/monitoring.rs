//! What `config/monitoring` is made of: dashboards and rules in a compact form, and the files for Grafana and Prometheus.
//! `tests/it` compares them with what is committed, and writes them (`UPDATE_DOCS=1`); `tests/integrations` has a real
//! Prometheus evaluate every expression.

#![allow(dead_code, reason = "the suites use different parts")]

mod grafana;
mod mesh;
mod node_agent;
mod promql;
mod rules;
mod service;
mod workload;

pub use rules::{alerts, recordings};

/// Where all of it is.
pub const DIRECTORY: &str = "config/monitoring";
/// What a variable of a dashboard stands for in queries while "All" is selected.
pub const ALL: &str = ".*";

/// A page of Grafana.
pub struct Dashboard {
    /// Its file without `.json`; `isthmus-NAME` is its uid.
    pub name: &'static str,
    pub title: &'static str,
    pub description: &'static str,
    pub variables: Vec<Variable>,
    pub rows: Vec<Row>,
}

/// What the reader of a dashboard selects from, besides the data source.
pub struct Variable {
    pub name: &'static str,
    pub label: &'static str,
    /// A query of Grafana for the values.
    pub query: &'static str,
    /// Takes the value out of a series that `query_result` returns.
    pub regex: &'static str,
    pub kind: Choice,
}

/// How many values of a variable are selected.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    One,
    /// At first all.
    Many,
}

/// Panels under a title.
pub struct Row {
    pub title: &'static str,
    pub panels: Vec<Panel>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Lines over time.
    Graph,
    /// One number.
    Stat,
    /// The columns of several queries, merged by their labels.
    Table,
}

pub struct Panel {
    pub kind: Kind,
    pub title: &'static str,
    /// What it means and what to look for.
    pub description: &'static str,
    /// Grafana's name of a unit.
    pub unit: &'static str,
    pub queries: Vec<Query>,
    /// Of 24 columns.
    pub width: u32,
    /// Bounds beyond which a number is red.
    pub red_below: Option<f64>,
    pub red_above: Option<f64>,
}

pub struct Query {
    pub expression: String,
    /// The name of a series, with its labels as `{{label}}`; of a column in a table.
    pub legend: &'static str,
    /// Of a column, if it is not that of the panel.
    pub unit: &'static str,
}

impl Panel {
    fn new(kind: Kind, title: &'static str, unit: &'static str, description: &'static str) -> Self {
        let width = match kind {
            Kind::Graph => 8,
            Kind::Stat => 4,
            Kind::Table => 24,
        };
        let queries = Vec::new();
        Self { kind, title, description, unit, queries, width, red_below: None, red_above: None }
    }

    pub fn graph(title: &'static str, unit: &'static str, description: &'static str) -> Self {
        Self::new(Kind::Graph, title, unit, description)
    }

    pub fn stat(title: &'static str, unit: &'static str, description: &'static str) -> Self {
        Self::new(Kind::Stat, title, unit, description)
    }

    pub fn table(title: &'static str, description: &'static str) -> Self {
        Self::new(Kind::Table, title, "short", description)
    }

    pub fn query(self, expression: impl Into<String>, legend: &'static str) -> Self {
        let unit = self.unit;
        self.column(expression, legend, unit)
    }

    pub fn column(
        mut self,
        expression: impl Into<String>,
        legend: &'static str,
        unit: &'static str,
    ) -> Self {
        self.queries.push(Query { expression: expression.into(), legend, unit });
        self
    }

    /// Median, 90th and 99th percentile of a histogram's selector.
    pub fn quantiles(self, selector: &str) -> Self {
        [(0.5, "p50"), (0.9, "p90"), (0.99, "p99")]
            .into_iter()
            .fold(self, |panel, (of, name)| panel.query(promql::quantile(of, "", selector), name))
    }

    pub fn red_below(self, bound: f64) -> Self {
        Self { red_below: Some(bound), ..self }
    }

    pub fn red_above(self, bound: f64) -> Self {
        Self { red_above: Some(bound), ..self }
    }

    pub fn wide(self) -> Self {
        Self { width: 12, ..self }
    }
}

pub fn dashboards() -> Vec<Dashboard> {
    vec![mesh::dashboard(), service::dashboard(), workload::dashboard(), node_agent::dashboard()]
}

/// Every generated file: its name in [`DIRECTORY`], and its text.
pub fn files() -> Vec<(String, String)> {
    let mut files = vec![
        ("rules.yaml".to_owned(), rules::file()),
        ("prometheus-rule.yaml".to_owned(), rules::object()),
    ];
    for dashboard in dashboards() {
        let json = format!("{:#}\n", grafana::json(&dashboard));
        files.push((format!("dashboards/{}.json", dashboard.name), json));
    }
    files
}
