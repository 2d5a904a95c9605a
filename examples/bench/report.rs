//! The figures, their medians, and the ratios that count.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use super::client::Load;

/// How bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Side {
    Plain,
    /// Client and server speak TLS themselves.
    Rustls,
    Mesh,
}

/// Where the server is, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Across,
    SameNode,
}

/// All of one run.
#[derive(Default)]
pub struct Report {
    figures: BTreeMap<(Place, Load), BTreeMap<Side, Vec<f64>>>,
    pub processor: Value,
    pub policies: Value,
    pub memory: Value,
}

impl Side {
    pub const ALL: [Side; 3] = [Side::Plain, Side::Rustls, Side::Mesh];
}

impl Place {
    /// The pod with the server.
    pub fn server(self) -> &'static str {
        match self {
            Place::Across => "server",
            Place::SameNode => "neighbour",
        }
    }

    /// Every load at every place.
    pub fn loads() -> impl Iterator<Item = (Place, Load)> {
        let places = [Place::Across, Place::SameNode];
        places.into_iter().flat_map(|place| Load::ALL.map(|load| (place, load)))
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Plain => "plain",
            Side::Rustls => "rustls",
            Side::Mesh => "mesh",
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Across => "across-nodes",
            Place::SameNode => "same-node",
        })
    }
}

impl Report {
    pub fn add(&mut self, place: Place, side: Side, load: Load, figure: f64) {
        self.figures.entry((place, load)).or_default().entry(side).or_default().push(figure);
    }

    pub fn print(&self, json: bool) {
        let mut all = serde_json::Map::new();
        for ((place, load), sides) in &self.figures {
            let of = |side| sides.get(&side).map_or(f64::NAN, |figures| median(figures));
            let [plain, rustls, mesh] = Side::ALL.map(of);
            if !json {
                println!(
                    "{place:<13} {:<15} plain {plain:>9.1}  rustls {rustls:>9.1}  mesh {mesh:>9.1} \
                     {:<14} mesh/plain {:.3}  mesh/rustls {:.3}",
                    load.name(),
                    load.unit(),
                    mesh / plain,
                    mesh / rustls
                );
            }
            let figures = json!({
                "unit": load.unit(), "plain": plain, "rustls": rustls, "mesh": mesh,
                "mesh_to_plain": mesh / plain, "mesh_to_rustls": mesh / rustls,
            });
            all.insert(format!("{place} {}", load.name()), figures);
        }
        let agents = [
            ("processor", &self.processor),
            ("policies", &self.policies),
            ("memory", &self.memory),
        ];
        for (name, value) in agents {
            if !json {
                println!("{name:<13} {value}");
            }
            all.insert(name.into(), value.clone());
        }
        if json {
            println!("{}", Value::Object(all));
        }
    }
}

pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
