//! What the operator looks at, and what keys change of it.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::rates::{Edge, services};

/// What rows are in order of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Name,
    Rate,
    Success,
    P50,
    P99,
    Bytes,
    Open,
    Denied,
}

/// In the order of the columns.
pub(super) const SORTS: [Sort; 8] = [
    Sort::Name,
    Sort::Rate,
    Sort::Success,
    Sort::P50,
    Sort::P99,
    Sort::Bytes,
    Sort::Open,
    Sort::Denied,
];

/// How far down one looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Level {
    #[default]
    Services,
    /// Who calls a service.
    Edges { service: String },
    /// What one of them called.
    Flows { service: String, source: String },
}

/// What the operator looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) level: Level,
    pub(super) sort: Sort,
    pub(super) reversed: bool,
    pub(super) filter: String,
    /// Keys go into the filter.
    pub(super) typing: bool,
    pub(super) selected: usize,
}

/// What a key leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Draw,
    /// Other flows are to be shown.
    Ask,
    Quit,
}

impl State {
    /// The rows of the table that is shown, in order.
    pub(super) fn rows(&self, edges: &[Edge]) -> Vec<Edge> {
        let mut rows = match &self.level {
            Level::Services => services(edges),
            Level::Edges { service } | Level::Flows { service, .. } => {
                edges.iter().filter(|edge| edge.service == *service).cloned().collect()
            }
        };
        let filter = self.filter.to_lowercase();
        rows.retain(|row| self.name(row).to_lowercase().contains(&filter));
        rows.sort_by(|one, other| {
            let names = || self.name(one).cmp(self.name(other));
            let order = match self.sort {
                Sort::Name => names(),
                // The most first, and what is not known last.
                _ => self.value(other).total_cmp(&self.value(one)).then_with(names),
            };
            if self.reversed { order.reverse() } else { order }
        });
        rows
    }

    /// What a row is called.
    pub(super) fn name<'e>(&self, row: &'e Edge) -> &'e str {
        if self.level == Level::Services { &row.service } else { &row.source }
    }

    fn value(&self, row: &Edge) -> f64 {
        let figures = &row.figures;
        match self.sort {
            Sort::Name => 0.0,
            Sort::Rate => figures.rate,
            // The worst first.
            Sort::Success => figures.success.map_or(f64::NEG_INFINITY, |success| -success),
            Sort::P50 => figures.percentile(50.0).unwrap_or(-1.0),
            Sort::P99 => figures.percentile(99.0).unwrap_or(-1.0),
            Sort::Bytes => figures.byte_rate,
            Sort::Open => figures.open as f64,
            Sort::Denied => figures.denied_rate,
        }
    }

    /// A key was pressed.
    pub(super) fn press(&mut self, key: KeyEvent, edges: &[Edge]) -> After {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { After::Quit } else { After::Draw };
        }
        if self.typing {
            self.write(key.code);
            return After::Draw;
        }
        let last = self.rows(edges).len().saturating_sub(1);
        match key.code {
            KeyCode::Char('q') => return After::Quit,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('s') => self.sort = next(self.sort),
            KeyCode::Char(digit @ '1'..='8') => {
                let place = digit.to_digit(10).map_or(0, |digit| digit as usize - 1);
                self.sort = SORTS.get(place).copied().unwrap_or_default();
            }
            KeyCode::Down | KeyCode::Char('j') => self.selected = (self.selected + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => {
                self.selected = self.selected.min(last).saturating_sub(1);
            }
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.selected = last,
            KeyCode::Enter | KeyCode::Right => return self.go_down(edges),
            KeyCode::Esc | KeyCode::Left | KeyCode::Backspace => self.go_up(),
            _ => {}
        }
        After::Draw
    }

    fn write(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(character) => self.filter.push(character),
            _ => {}
        }
        self.selected = 0;
    }

    fn go_down(&mut self, edges: &[Edge]) -> After {
        let rows = self.rows(edges);
        let Some(row) = rows.get(self.selected.min(rows.len().saturating_sub(1))) else {
            return After::Draw;
        };
        let service = row.service.clone();
        self.level = match &self.level {
            Level::Services => Level::Edges { service },
            Level::Edges { .. } => Level::Flows { service, source: row.source.clone() },
            Level::Flows { .. } => return After::Draw,
        };
        self.filter.clear();
        self.selected = 0;
        After::Ask
    }

    fn go_up(&mut self) {
        if !self.filter.is_empty() {
            self.filter.clear();
            return;
        }
        self.level = match std::mem::take(&mut self.level) {
            Level::Flows { service, .. } => Level::Edges { service },
            Level::Edges { .. } | Level::Services => Level::Services,
        };
        self.selected = 0;
    }
}

fn next(sort: Sort) -> Sort {
    let place = SORTS.iter().position(|it| *it == sort).map_or(0, |place| place + 1);
    SORTS.get(place).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::rates::edges;
    use super::super::screen::tests::{pair, summary};
    use super::*;

    fn some() -> Vec<Edge> {
        let pairs = vec![
            pair("web", "ledger", 10, 0),
            pair("cart", "ledger", 30, 30),
            pair("web", "stock", 100, 0),
        ];
        edges(Some((&summary(Vec::new()), 1.0)), &summary(pairs))
    }

    fn press(state: &mut State, keys: &str) -> After {
        let mut after = After::Draw;
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                '↓' => KeyCode::Down,
                other => KeyCode::Char(other),
            };
            after = state.press(KeyEvent::new(code, KeyModifiers::NONE), &some());
        }
        after
    }

    fn names(state: &State) -> Vec<String> {
        state.rows(&some()).iter().map(|row| state.name(row).to_owned()).collect()
    }

    #[test]
    fn keys_sort_and_filter() {
        let mut state = State::default();
        assert_eq!(names(&state), ["bank/ledger", "bank/stock"]);
        press(&mut state, "2");
        assert_eq!(names(&state), ["bank/stock", "bank/ledger"], "by requests");
        press(&mut state, "r");
        assert_eq!(names(&state), ["bank/ledger", "bank/stock"]);
        press(&mut state, "rs");
        assert_eq!((state.sort, names(&state)[0].as_str()), (Sort::Success, "bank/ledger"));
        press(&mut state, "/STO\n");
        assert_eq!(names(&state), ["bank/stock"]);
        press(&mut state, "\x1b");
        assert_eq!(names(&state).len(), 2, "Esc takes the filter away");
        assert_eq!(press(&mut state, "q"), After::Quit);
        assert_ne!(press(&mut state, "/q"), After::Quit, "it is typed");
    }

    #[test]
    fn one_goes_down_from_a_service_to_its_edges_to_their_flows_and_up_again() {
        let mut state = State::default();
        assert_eq!(press(&mut state, "\n"), After::Ask);
        assert_eq!(names(&state), ["shop/cart", "shop/web"]);
        assert_eq!(press(&mut state, "↓↓↓\n"), After::Ask, "no further than the last");
        let level = Level::Flows { service: "bank/ledger".into(), source: "shop/web".into() };
        assert_eq!(state.level, level);
        press(&mut state, "\x1b\x1b\x1b");
        assert_eq!(state.level, Level::Services);
    }
}
