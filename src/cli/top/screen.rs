//! The screen: one frame from what is known and what the operator looks at.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line as Text;
use ratatui::widgets::{Cell, Paragraph, Row, StatefulWidget, Table, TableState, Widget};

use super::rates::Edge;
use super::state::{Level, SORTS, State};
use crate::cli::observe::{duration, flow_line};
use crate::observe::{Event, Line};
use crate::telemetry::Verdict;

const TITLES: [&str; 8] = ["", "req/s", "ok %", "p50", "p99", "bytes/s", "open", "denied/s"];
const KEYS: &str =
    "q quit  enter down  esc up  1-8 or s sort  r reverse  / filter  arrows or j k move";

/// What one frame shows.
pub(super) struct Screen<'a> {
    pub(super) node: &'a str,
    pub(super) time: &'a str,
    pub(super) interval: Duration,
    pub(super) edges: &'a [Edge],
    pub(super) state: &'a State,
    pub(super) flows: &'a [Line],
}

impl Widget for &Screen<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let layout =
            Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]);
        let [head, body, foot] = layout.areas(area);
        let bold = Style::new().add_modifier(Modifier::BOLD);
        Paragraph::new(self.title()).style(bold).render(head, buffer);
        match &self.state.level {
            Level::Flows { .. } => self.flows(body, buffer),
            Level::Services | Level::Edges { .. } => self.table(body, buffer),
        }
        let foot_text = match (self.state.typing, &*self.state.filter) {
            (true, filter) => format!("/{filter}_"),
            (false, "") => KEYS.to_owned(),
            (false, filter) => format!("/{filter}   {KEYS}"),
        };
        Paragraph::new(foot_text).render(foot, buffer);
    }
}

impl Screen<'_> {
    fn title(&self) -> String {
        let Self { node, time, interval, .. } = self;
        let at = match &self.state.level {
            Level::Services => "services".to_owned(),
            Level::Edges { service } => format!("clients of {service}"),
            Level::Flows { service, source } => format!("flows from {source} to {service}"),
        };
        let every = duration(interval.as_secs_f64() * 1e3);
        format!("isthmus top  node {node}  {time}  every {every}  {at}")
    }

    fn table(&self, area: Rect, buffer: &mut Buffer) {
        let rows = self.state.rows(self.edges);
        let first = if self.state.level == Level::Services { "service" } else { "source" };
        let titles = SORTS.iter().zip(TITLES).map(|(sort, title)| {
            let title = if title.is_empty() { first } else { title };
            let style = match self.state.sort == *sort {
                true => Style::new().add_modifier(Modifier::UNDERLINED),
                false => Style::new(),
            };
            Cell::from(title).style(style)
        });
        let widths = [
            Constraint::Fill(1),
            Constraint::Length(9),
            Constraint::Length(7),
            Constraint::Length(8),
            Constraint::Length(8),
            Constraint::Length(10),
            Constraint::Length(7),
            Constraint::Length(9),
        ];
        let count = rows.len();
        let table = Table::new(rows.iter().map(|row| self.row(row)), widths)
            .header(Row::new(titles).style(Style::new().add_modifier(Modifier::BOLD)))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        let selected = (count > 0).then(|| self.state.selected.min(count - 1));
        let mut place = TableState::default().with_selected(selected);
        StatefulWidget::render(table, area, buffer, &mut place);
    }

    fn row(&self, row: &Edge) -> Row<'static> {
        let figures = &row.figures;
        let time = |percent| figures.percentile(percent).map_or("-".to_owned(), duration);
        let success = figures.success.map_or("-".to_owned(), |success| format!("{success:.1}"));
        let red = |is: bool| if is { Style::new().fg(Color::Red) } else { Style::new() };
        Row::new([
            Cell::from(self.state.name(row).to_owned()),
            Cell::from(rate(figures.rate)),
            Cell::from(success).style(red(figures.success.is_some_and(|it| it < 99.0))),
            Cell::from(time(50.0)),
            Cell::from(time(99.0)),
            Cell::from(bytes(figures.byte_rate)),
            Cell::from(figures.open.to_string()),
            Cell::from(rate(figures.denied_rate)).style(red(figures.denied_rate > 0.0)),
        ])
    }

    fn flows(&self, area: Rect, buffer: &mut Buffer) {
        let lines = self.flows.iter().map(|flow| {
            let colour = match flow.verdict {
                Verdict::Permitted => Color::Reset,
                Verdict::Denied => Color::Red,
                Verdict::Failed => Color::Yellow,
            };
            let text = flow_line(&Event::Flow(Box::new(flow.clone())));
            Text::styled(text.trim_end().to_owned(), Style::new().fg(colour))
        });
        let lines: Vec<Text<'_>> = lines.take(area.height.into()).collect();
        Paragraph::new(lines).render(area, buffer);
    }
}

/// A frame as text, for scripts: without colours, and without the lines that are empty at its end.
pub(super) fn frame_text(screen: &Screen<'_>, (width, height): (u16, u16)) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    screen.render(area, &mut buffer);
    let mut text = String::new();
    // The last line is for keys, of which there are none.
    for y in 0..height.saturating_sub(1) {
        let row = (0..width).filter_map(|x| Some(buffer.cell((x, y))?.symbol()));
        text += row.collect::<String>().trim_end();
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}

fn rate(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        rate if rate < 10.0 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    }
}

fn bytes(rate: f64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = rate;
    for unit in UNITS {
        if value < 1024.0 || unit == "GiB" {
            return format!("{value:.0} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.0}")
}

#[cfg(test)]
pub(super) mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::rates::edges;
    use super::*;
    use crate::observe::{End, Open, PairLine, Service, Summary};

    pub(in crate::cli::top) fn summary(pairs: Vec<PairLine>) -> Summary {
        let open = pairs.iter().map(|pair| Open {
            reporter: pair.reporter.clone(),
            source: pair.source.clone(),
            destination: pair.destination.clone(),
            service: pair.service.clone(),
            count: 1,
        });
        let open = open.collect();
        Summary { node: "node-a".into(), time: String::new(), evicted: 0, pairs, open }
    }

    /// Of the client's half, from `shop` to a service of `bank`.
    pub(in crate::cli::top) fn pair(
        source: &str,
        service: &str,
        total: u64,
        unsuccessful: u64,
    ) -> PairLine {
        let end = |namespace: &str, workload: &str| End {
            namespace: namespace.into(),
            workload: workload.into(),
            ..End::default()
        };
        PairLine {
            reporter: "source".into(),
            layer: 7,
            source: end("shop", source),
            destination: end("bank", service),
            service: Service {
                namespace: "bank".into(),
                name: service.into(),
                host: format!("{service}.bank.svc.cluster.local").into(),
                dialled: None,
            },
            method: "GET".into(),
            total,
            unsuccessful,
            bytes_sent: 2_048 * total,
            ..PairLine::default()
        }
    }

    fn some() -> Vec<Edge> {
        let now = summary(vec![pair("web", "ledger", 20, 10), pair("web", "stock", 300, 0)]);
        edges(Some((&summary(Vec::new()), 2.0)), &now)
    }

    fn drawn(state: &State, flows: &[Line]) -> Terminal<TestBackend> {
        let edges = some();
        let interval = Duration::from_secs(2);
        let screen =
            Screen { node: "node-a", time: "18:07:10", interval, edges: &edges, state, flows };
        let mut terminal = Terminal::new(TestBackend::new(90, 6)).unwrap();
        terminal.draw(|frame| frame.render_widget(&screen, frame.area())).unwrap();
        terminal
    }

    fn lines(terminal: &Terminal<TestBackend>) -> Vec<String> {
        let text = terminal.backend().to_string();
        let words =
            |line: &str| line.trim_matches('"').split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(words).collect()
    }

    #[test]
    fn services_are_rows_with_their_rates() {
        let terminal = drawn(&State::default(), &[]);
        let shown = lines(&terminal);
        assert_eq!(shown[0], "isthmus top node node-a 18:07:10 every 2.0s services");
        assert_eq!(shown[1], "service req/s ok % p50 p99 bytes/s open denied/s");
        assert_eq!(shown[2], "bank/ledger 10 50.0 - - 20 KiB 1 0");
        assert_eq!(shown[3], "bank/stock 150 100.0 - - 300 KiB 1 0");
        assert!(shown[5].starts_with("q quit"), "{shown:?}");
        let buffer = terminal.backend().buffer();
        let has = |y, wanted: Color| (0..90).any(|x| buffer[(x, y)].fg == wanted);
        assert!(has(2, Color::Red) && !has(3, Color::Red), "what goes wrong is red");
        assert!(buffer[(0, 2)].modifier.contains(Modifier::REVERSED), "the first is selected");
    }

    #[test]
    fn flows_of_an_edge_are_lines_and_the_filter_is_shown_while_it_is_typed() {
        let level = Level::Flows { service: "bank/ledger".into(), source: "shop/web".into() };
        let flow = serde_json::json!({
            "time": "2026-11-30T18:07:10.123456Z", "node": "n", "layer": 4, "reporter": "source",
            "source": {"namespace": "shop", "pod": "web-1"}, "destination": {"namespace": "bank", "pod": "ledger-1"},
            "verdict": "denied", "flags": "DENY", "reason": "no", "mutualTls": true, "inProcess": false,
            "durationMs": 1.0, "bytesSent": 0, "bytesReceived": 0,
        });
        let flow: Line = serde_json::from_value(flow).unwrap();
        let shown = lines(&drawn(&State { level, ..State::default() }, &[flow]));
        assert!(shown[0].ends_with("flows from shop/web to bank/ledger"), "{shown:?}");
        assert!(
            shown[1].starts_with("18:07:10.123 denied L4 src shop/web-1 -> bank/ledger-1"),
            "{shown:?}"
        );
        let typing = State { typing: true, filter: "sto".into(), ..State::default() };
        let shown = lines(&drawn(&typing, &[]));
        assert_eq!((&*shown[5], shown[3].as_str()), ("/sto_", ""));
    }

    #[test]
    fn a_frame_is_printed_without_what_is_empty() {
        let (edges, state) = (some(), State::default());
        let interval = Duration::from_secs(2);
        let screen = Screen {
            node: "node-a",
            time: "18:07:10",
            interval,
            edges: &edges,
            state: &state,
            flows: &[],
        };
        let text = frame_text(&screen, (100, 40));
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.ends_with(" 0\n") && text.contains("bank/stock"), "{text}");
    }
}
