//! `docs/layers.svg`: the rooms as the table of `layers.rs` orders them. `UPDATE_DOCS=1` writes it.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::docs::same;
use crate::layers::LAYERS;
use crate::source_text::root;

/// In pixels: of a room, between rooms and layers, and of the page's margin.
const BOX: (usize, usize) = (92, 36);
const GAP: usize = 12;
const MARGIN: usize = 16;
/// Of what stands before each layer.
const LABEL: usize = 64;

#[test]
fn the_drawing_of_the_rooms_is_current() {
    let mut layers: BTreeMap<u8, Vec<&str>> = BTreeMap::new();
    for (room, layer) in LAYERS {
        layers.entry(layer).or_default().push(room);
    }
    let rooms = layers.values().map(Vec::len).max().expect("a layer");
    let step = (BOX.0 + GAP, BOX.1 + GAP);
    let size = (2 * MARGIN + LABEL + rooms * step.0, 2 * MARGIN + layers.len() * step.1);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>The rooms of Isthmus: a room uses only rooms of lower layers</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        size.0, size.1
    );
    for (row, (layer, rooms)) in layers.iter().rev().enumerate() {
        let y = MARGIN + row * step.1;
        let middle = y + BOX.1 / 2 + 5;
        let _ = writeln!(
            text,
            "<text x=\"{MARGIN}\" y=\"{middle}\" fill=\"#666666\">layer {layer}</text>"
        );
        for (column, room) in rooms.iter().enumerate() {
            let x = MARGIN + LABEL + column * step.0;
            let _ = writeln!(
                text,
                "<g><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"5\" fill=\"#e8f0fa\" \
                 stroke=\"#4a78a8\"/><text x=\"{}\" y=\"{middle}\" text-anchor=\"middle\">{room}</text></g>",
                purpose(room),
                BOX.0,
                BOX.1,
                x + BOX.0 / 2,
            );
        }
    }
    text += "</svg>\n";
    same("docs/layers.svg", &text);
}

/// The first sentence of a room's front file, as XML.
fn purpose(room: &str) -> String {
    let text =
        std::fs::read_to_string(root().join(format!("src/{room}.rs"))).expect("a front file");
    let lines: Vec<&str> =
        text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
    let paragraph: Vec<&str> =
        lines.split(|line| line.is_empty()).next().unwrap_or_default().to_vec();
    let paragraph = paragraph.join(" ").replace('`', "");
    let sentence = paragraph.split_once(". ").map_or(paragraph.as_str(), |(first, _)| first);
    sentence.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
