//! MeshConfig's `defaultTrafficPolicy`: what holds for all destinations, below the DestinationRules (Istio 1.31). A rule that has
//! one of the two blocks, or a port's settings in it, replaces that block as a whole.

use crate::base::Str;
use crate::traffic::{Limits, OutlierDetection, Policy};

/// The two blocks.
#[derive(Default)]
pub(super) struct Baseline {
    pub(super) outliers: Option<OutlierDetection>,
    pub(super) limits: Option<Box<Limits>>,
}

impl Baseline {
    /// Who set it, for messages.
    const NAME: Str = arcstr::literal!("defaultTrafficPolicy of MeshConfig");

    /// What holds where no rule says anything.
    pub(super) fn policy(&self) -> Policy {
        let (outliers, limits) = (self.outliers.clone(), self.limits.clone());
        let policy = Policy { outliers, limits, ..Policy::default() };
        if policy.says_nothing() {
            return policy;
        }
        Policy { by: Self::NAME, ..policy }
    }
}
