//! RequestMirror (HTTPRequestMirrorFilter): sends a copy, and ignores what comes back. The workers send it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde::Deserialize;
use serde_json::Value;

use super::share::turn;
use super::{BackendObject, BackendRef, Fault, Filter, RuleContext, Share, backend};
use crate::base::Str;
use crate::base::schema::{INT32, Objection, Rule};
use Rule::{Fields, Number, With};

#[derive(Clone, Debug, serde::Serialize)]
pub struct Mirror {
    pub target: BackendRef,
    /// The endpoints of the target, as a DestinationRule names them; `None`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<Str>,
    /// Copies have `-shadow` behind their host, as in Envoy.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
    pub share: Share,
    /// How many requests were considered so far: makes the share exact over short runs.
    #[serde(skip)]
    pub turn: Arc<AtomicU64>,
}

impl PartialEq for Mirror {
    /// Both send copies alike; whose turn it is is no part of it.
    fn eq(&self, other: &Self) -> bool {
        let Self { target, subset, shadow, share, turn: _ } = self;
        (target, subset, shadow, share)
            == (&other.target, &other.subset, &other.shadow, &other.share)
    }
}

impl Eq for Mirror {}

impl Mirror {
    pub fn new(target: BackendRef, share: Share) -> Self {
        Self { target, subset: None, shadow: false, share, turn: Arc::new(turn()) }
    }

    /// Whether this request is one of those that are mirrored.
    pub fn takes_this(&self) -> bool {
        self.share.takes(&self.turn)
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    backend_ref: BackendObject,
    #[serde(default)]
    percent: Option<u32>,
    #[serde(default)]
    fraction: Option<Fraction>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fraction {
    numerator: u32,
    #[serde(default)]
    denominator: Option<u32>,
}

impl Filter for Mirror {
    type Manifest = Written;

    const SCHEMA: Rule = With(
        &Fields(&[
            ("backendRef", backend::SCHEMA),
            ("percent", Number(0, 100)),
            (
                "fraction",
                Fields(&[("numerator", Number(0, INT32)), ("denominator", Number(1, INT32))]),
            ),
        ]),
        &[is_a_share],
    );

    /// A mirror that leads nowhere is left out.
    fn read(written: &Written, rule: &dyn RuleContext) -> Result<Self, Fault> {
        let share = share(written)?;
        let target = rule
            .backend("backendRef", &written.backend_ref, "nothing is mirrored to it")
            .ok_or(Fault::LeadsNowhere)?;
        Ok(Self::new(target, share))
    }

    fn inherit(&mut self, before: &Self) {
        if self.share == before.share {
            self.turn = before.turn.clone();
        }
    }

    #[cfg(test)]
    fn samples() -> Vec<Value> {
        vec![serde_json::json!({"backendRef": {"name": "a", "port": 80}, "percent": 50})]
    }
}

fn share(written: &Written) -> Result<Share, Fault> {
    let share = match (written.percent, written.fraction) {
        (None, None) => Share::ALL,
        (Some(percent), None) => Share { numerator: percent, denominator: 100 },
        (None, Some(Fraction { numerator, denominator })) => {
            Share { numerator, denominator: denominator.unwrap_or(100) }
        }
        (Some(_), Some(_)) => {
            let why = "stands beside percent; only one of both may be given";
            return Err(Fault::field("fraction", why));
        }
    };
    if share.denominator == 0 || share.numerator > share.denominator {
        let why = format!("{} of {} is not a share", share.numerator, share.denominator);
        let field = if written.percent.is_some() { "percent" } else { "fraction" };
        return Err(Fault::field(field, why));
    }
    Ok(share)
}

fn is_a_share(value: &Value) -> Option<Objection> {
    let fraction = value.get("fraction")?;
    if value.get("percent").is_some() {
        return Some((
            "fraction",
            "stands beside percent; only one of both may be given".to_owned(),
        ));
    }
    let of = |field: &str| fraction.get(field).and_then(Value::as_i64);
    let (numerator, denominator) = (of("numerator")?, of("denominator").unwrap_or(100));
    (numerator > denominator)
        .then(|| ("fraction", format!("{numerator} of {denominator} is not a share")))
}
