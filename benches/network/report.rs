//! The figures, their medians, and the ratios that count.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::client::Load;

/// How bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Side {
    Plain,
    /// Client and server speak TLS themselves.
    Rustls,
    /// Layer 4 of the mesh.
    Mesh,
    /// A Service with a waypoint.
    Waypoint,
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
    pub const ALL: [Side; 4] = [Side::Plain, Side::Rustls, Side::Mesh, Side::Waypoint];

    /// Whether the pods are in the mesh.
    pub fn is_meshed(self) -> bool {
        matches!(self, Side::Mesh | Side::Waypoint)
    }
}

impl Place {
    /// The pod with the server, and its Service.
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
        f.pad(match self {
            Side::Plain => "plain",
            Side::Rustls => "rustls",
            Side::Mesh => "mesh",
            Side::Waypoint => "waypoint",
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
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
            let [plain, other, last] = load.sides().map(|side| (side, of(side)));
            if !json {
                print!("{place:<13} {:<17}", load.name());
                for (side, figure) in [plain, other, last] {
                    print!("{side:>8} {figure:>9.1}  ");
                }
                print!("{:<14} ", load.unit());
                println!(
                    "{}/plain {:.3}  {}/{} {:.3}",
                    last.0,
                    last.1 / plain.1,
                    last.0,
                    other.0,
                    last.1 / other.1
                );
            }
            let mut figures = serde_json::Map::new();
            figures.insert("unit".into(), load.unit().into());
            for (side, figure) in [plain, other, last] {
                figures.insert(side.to_string(), figure.into());
            }
            for side in [plain, other] {
                figures.insert(format!("{}_to_{}", last.0, side.0), (last.1 / side.1).into());
            }
            all.insert(format!("{place} {}", load.name()), Value::Object(figures));
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
