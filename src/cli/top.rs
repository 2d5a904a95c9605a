//! `isthmus top`: what the services of this node do now, in a terminal. It asks the agent for its counts and shows what came since
//! it asked before.
//!
//! [`rates`] makes rows of two summaries, [`state`] is what keys change, [`screen`] renders both: all of that is pure.

mod rates;
mod screen;
mod state;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event as Input, KeyEventKind};
use tokio::time::Instant;

use super::agent::Agent;
use super::output::{Output, print, show};
use crate::base::schema::parse_duration;
use crate::observe::{Event, Line, Summary};
use rates::{Edge, edges};
use screen::{Screen, frame_text};
use state::{After, Level, State};

/// Flows of an edge that are shown.
const FLOWS: usize = 200;
/// The width of a frame that is printed, and its lines besides the rows.
const PRINTED: (u16, u16) = (150, 4);
/// Less would be a load of its own, and more is no "now".
const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(200)..=Duration::from_secs(300);

/// Arguments of `isthmus top`.
#[derive(Args)]
pub(super) struct Top {
    #[command(flatten)]
    from: Agent,
    /// How often the screen changes; rates are those of the last interval
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    interval: String,
    /// Print one frame, after one interval, and end
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    output: Output,
}

/// Two summaries, one after the other.
struct Watched<'a> {
    from: &'a Agent,
    before: Option<(Instant, Summary)>,
    node: String,
    time: String,
    edges: Vec<Edge>,
}

/// Runs it.
pub(super) fn run(top: &Top) -> ExitCode {
    let interval = match parse_duration(&top.interval).filter(|it| INTERVALS.contains(it)) {
        Some(interval) => interval,
        None => return show(Err::<&str, _>(wrong_interval(&top.interval))),
    };
    let mut watched = Watched::new(&top.from);
    if top.once || top.output.is_json() {
        return print_frames(top, &mut watched, interval)
            .unwrap_or_else(|error| show(Err::<&str, _>(error)));
    }
    show(on_a_screen(&mut watched, interval).map(|()| ""))
}

fn wrong_interval(text: &str) -> anyhow::Error {
    anyhow::anyhow!("--interval {text}: say a time from 200ms to 5m, such as 2s")
}

fn print_frames(
    top: &Top,
    watched: &mut Watched<'_>,
    interval: Duration,
) -> anyhow::Result<ExitCode> {
    watched.ask()?;
    loop {
        std::thread::sleep(interval);
        watched.ask()?;
        let text = match top.output.is_json() {
            true => rates::json(&watched.node, &watched.time, &watched.edges) + "\n",
            false => watched.printed(interval),
        };
        match print(text.as_bytes()) {
            Ok(true) if !top.once => {}
            Ok(_) => return Ok(ExitCode::SUCCESS),
            Err(code) => return Ok(code),
        }
    }
}

fn on_a_screen(watched: &mut Watched<'_>, interval: Duration) -> anyhow::Result<()> {
    // Before the screen changes, so that what is wrong can be read.
    watched.ask()?;
    ensure_terminal()?;
    let mut terminal = ratatui::try_init().context("set up the terminal")?;
    let shown = show_until_told(&mut terminal, watched, interval);
    ratatui::try_restore().context("restore the terminal")?;
    shown
}

fn ensure_terminal() -> anyhow::Result<()> {
    use std::io::IsTerminal;
    let both = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    ensure!(both, "top needs a terminal; --once prints one frame, and --output json the figures");
    Ok(())
}

fn show_until_told(
    terminal: &mut DefaultTerminal,
    watched: &mut Watched<'_>,
    interval: Duration,
) -> anyhow::Result<()> {
    let mut state = State::default();
    let mut flows = Vec::new();
    let mut due = Instant::now() + interval;
    loop {
        terminal.draw(|frame| {
            let screen = watched.screen(&state, &flows, interval);
            frame.render_widget(&screen, frame.area());
        })?;
        if event::poll(due.saturating_duration_since(Instant::now()))? {
            let Input::Key(key) = event::read()? else { continue };
            if key.kind != KeyEventKind::Press {
                continue;
            }
            match state.press(key, &watched.edges) {
                After::Quit => return Ok(()),
                After::Ask => flows = watched.flows(&state)?,
                After::Draw => {}
            }
            continue;
        }
        watched.ask()?;
        flows = watched.flows(&state)?;
        due = Instant::now() + interval;
    }
}

impl<'a> Watched<'a> {
    fn new(from: &'a Agent) -> Self {
        let (node, time) = (String::new(), String::new());
        Self { from, before: None, node, time, edges: Vec::new() }
    }

    /// What came since it was asked before; the first time that is nothing.
    fn ask(&mut self) -> anyhow::Result<()> {
        let text = self.from.get("/flows/summary")?;
        let (now, summary) = (Instant::now(), serde_json::from_str::<Summary>(&text)?);
        let before = self.before.as_ref().map(|(at, before)| (before, (now - *at).as_secs_f64()));
        self.edges = edges(before, &summary);
        self.node = summary.node.to_string();
        self.time = summary.time.get(11..19).unwrap_or_default().to_owned();
        self.before = Some((now, summary));
        Ok(())
    }

    fn printed(&self, interval: Duration) -> String {
        let (width, more) = PRINTED;
        let rows = u16::try_from(self.edges.len()).unwrap_or(u16::MAX);
        let size = (width, rows.saturating_add(more));
        frame_text(&self.screen(&State::default(), &[], interval), size)
    }

    /// The recent flows of the edge that is looked at.
    fn flows(&self, state: &State) -> anyhow::Result<Vec<Line>> {
        let Level::Flows { service, source } = &state.level else { return Ok(Vec::new()) };
        let wanted = self.edges.iter().find(|it| it.service == *service && it.source == *source);
        let Some(edge) = wanted else { return Ok(Vec::new()) };
        let mut lines = Vec::new();
        self.from.lines(&edge.query(), |line| {
            if let Ok(Event::Flow(line)) = serde_json::from_str(line)
                && edge.is_of(&line)
            {
                lines.push(*line);
            }
            std::ops::ControlFlow::Continue(())
        })?;
        if lines.len() > FLOWS {
            lines.drain(..lines.len() - FLOWS);
        }
        lines.reverse();
        Ok(lines)
    }

    fn screen<'s>(&'s self, state: &'s State, flows: &'s [Line], interval: Duration) -> Screen<'s> {
        Screen { node: &self.node, time: &self.time, interval, edges: &self.edges, state, flows }
    }
}
