//! Authorization at layer 7, and which identities the destination sees.

use anyhow::Result;

use crate::plaintext::PAGE;
use crate::stage::Stage;

pub fn run(stage: &mut Stage) -> Result<()> {
    stage.settle("stranger", &[PAGE], 200)?;
    stage.apply("productpage-waypoint.yaml")?;
    stage.settle("stranger", &[PAGE], 403)?;
    let moment = stage.lab.moment()?;
    stage.expect("curl", &[PAGE], 200)?;
    let denied = stage.expect("curl", &["--request", "DELETE", PAGE], 403)?;
    stage.report.evidence(&format!("the body: {}", denied.body.trim()));
    stage.expect("curl", &["--data", "x=1", PAGE], 403)?;
    stage.expect("stranger", &[PAGE], 403)?;
    stage.log_evidence(&moment, &["DELETE", "productpage-waypoint"])?;
    stage.report.figure("curl_get", 200);
    stage.report.figure("curl_delete", 403);
    stage.report.figure("stranger_get", 403);
    Ok(())
}

/// A policy that admits nothing but the waypoint.
pub fn seen(stage: &mut Stage) -> Result<()> {
    const SERVICE: &str = "http://details.bookinfo:9080/details/0";
    let pod = format!("http://{}:9080/details/0", stage.lab.address("details-v1")?);
    stage.expect("curl", &[&pod], 200)?;
    let moment = stage.lab.moment()?;
    stage.apply("details-only-waypoint.yaml")?;
    stage.report.say("traffic that is addressed to the pod does not come from the waypoint:");
    stage.settle("curl", &[&pod], 0)?;
    stage.log_evidence(&moment, &["details-only-waypoint", "inbound"])?;
    stage.report.say("traffic that is addressed to the service does:");
    stage.expect("curl", &[SERVICE], 200)?;
    stage.report.say("where the destination reads requests, its log has both identities:");
    let moment = stage.lab.moment()?;
    stage.expect("curl", &[PAGE], 200)?;
    let both = ["inbound", "src.identity", "/sa/curl", "waypoint.identity", "/sa/waypoint"];
    stage.log_evidence(&moment, &both)?;
    stage.report.figure("service_traffic", 200);
    stage.report.figure("pod_traffic", "refused");
    stage.delete("AuthorizationPolicy", "bookinfo", "details-only-waypoint")?;
    stage.settle("curl", &[&pod], 200).map(drop)
}
