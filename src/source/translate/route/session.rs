//! `sessionPersistence` of a rule (GEP-1619).

use serde_json::Value;

use super::RuleParts;
use crate::filter::{Fault, Filter, RuleContext, SessionPersistence, WrittenSession};
use crate::source::objects::{Unsupported, says_something};

struct Nothing;

impl RuleContext for Nothing {}

impl RuleParts<'_> {
    /// Takes what a rule says of sessions.
    pub(in crate::source::translate) fn read_sessions(&mut self, written: &Option<Value>) {
        let Some(value) = written.as_ref().filter(|_| says_something(written)) else { return };
        let read = serde_json::from_value::<WrittenSession>(value.clone());
        let read = read.map_err(|error| Fault::field("", error.to_string()));
        match read.and_then(|written| SessionPersistence::read(&written, &Nothing)) {
            Ok(persistence) => self.session_persistence = Some(persistence),
            Err(Fault::Field { field, why }) => self.refuse_sessions(&field, why),
            Err(Fault::Rule { field, why }) => self.refuse_sessions(field, why),
            Err(Fault::LeadsNowhere) => {}
        }
    }

    fn refuse_sessions(&mut self, field: &str, why: String) {
        let dot = if field.is_empty() { "" } else { "." };
        self.unsupported
            .push(Unsupported { field: format!("sessionPersistence{dot}{field}"), why });
    }
}
