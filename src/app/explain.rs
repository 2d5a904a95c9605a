//! Answers `isthmus explain` over the running agent's snapshot, or over one that would be.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::explain::{Question, explain, preview};
use crate::observe::Observe;
use crate::source::{Asked, Supposed, TranslateSettings, translate};
use crate::world::{World, WorldStore};

/// What is asked for in a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Explain {
    pub question: Question,
    /// As if this were so.
    #[serde(default, skip_serializing_if = "Supposed::is_nothing")]
    pub supposed: Supposed,
}

/// What it takes to answer.
pub(super) struct Explainer {
    pub(super) world: Arc<WorldStore>,
    pub(super) objects: Asked,
    pub(super) settings: TranslateSettings,
    pub(super) observe: Arc<Observe>,
}

impl Explainer {
    /// Answers the body of a request. Blocks until the source has told its objects, where they are asked for.
    pub(super) fn answer(&self, body: &[u8]) -> Result<Value, String> {
        let asked: Explain =
            serde_json::from_slice(body).map_err(|error| format!("the question: {error}"))?;
        let explanation = match asked.supposed.is_nothing() {
            true => explain(&self.world.snapshot(), &asked.question)?,
            false => explain(&self.suppose(&asked.supposed)?, &asked.question)?,
        };
        serde_json::to_value(explanation).map_err(|error| error.to_string())
    }

    /// What of the last hour a change would have decided otherwise.
    pub(super) fn preview(&self, body: &[u8]) -> Result<Value, String> {
        let supposed: Supposed =
            serde_json::from_slice(body).map_err(|error| format!("the change: {error}"))?;
        let would = self.suppose(&supposed)?;
        let seen = self.observe.summary(&[]).pairs;
        let previewed = preview(&self.world.snapshot(), &would, &seen);
        serde_json::to_value(previewed).map_err(|error| error.to_string())
    }

    fn suppose(&self, supposed: &Supposed) -> Result<World, String> {
        let objects = self.objects.get().map_err(|error| error.to_string())?;
        let objects = objects.suppose(supposed)?;
        Ok(self.world.suppose(translate(&objects, &self.settings).mesh))
    }
}
