//! A policy without anything of HTTP, by the workload's own selector.

use anyhow::Result;

use crate::plaintext::PAGE;
use crate::stage::Stage;

pub fn run(stage: &mut Stage) -> Result<()> {
    stage.settle("stranger", &[PAGE], 200)?;
    let moment = stage.lab.moment()?;
    stage.apply("productpage-l4.yaml")?;
    stage.settle("stranger", &[PAGE], 0)?;
    stage.log_evidence(&moment, &["stranger", "productpage-l4"])?;
    stage.expect("curl", &[PAGE], 200)?;
    // Plaintext has no principal, so it is not the one that is allowed.
    stage.expect("outsider", &[PAGE], 0)?;
    stage.report.figure("allowed", "curl");
    stage.report.figure("refused", serde_json::json!(["stranger", "outsider"]));
    stage.delete("AuthorizationPolicy", "bookinfo", "productpage-l4")?;
    stage.settle("stranger", &[PAGE], 200).map(drop)
}
