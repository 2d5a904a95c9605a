//! PeerAuthentication: what plaintext may do.

use anyhow::Result;

use crate::stage::{Stage, mutual_tls};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const RATINGS: &str = "http://ratings.bookinfo:9080/ratings/0";

pub fn strict(stage: &mut Stage) -> Result<()> {
    stage.report.say("PERMISSIVE, the default, takes plaintext from outside the mesh:");
    stage.expect("outsider", &[DETAILS], 200)?;
    stage.apply("peer-authentication-strict.yaml")?;
    let moment = stage.lab.moment()?;
    stage.settle("outsider", &[DETAILS], 0)?;
    stage.log_evidence(&moment, &["details-v1"])?;
    stage.expect("curl", &[DETAILS], 200)?;
    let pod = format!("http://{}:9080/details/0", stage.lab.address("details-v1")?);
    stage.expect("outsider", &[&pod], 0)?;
    stage.report.figure("outsider", "refused");
    stage.report.figure("curl", 200);
    Ok(())
}

pub fn disable(stage: &mut Stage) -> Result<()> {
    let moment = stage.lab.moment()?;
    stage.apply("peer-authentication-disable.yaml")?;
    stage.report.say("the agents warn about it:");
    stage.log_evidence(&moment, &["ratings-disable", "DISABLE"])?;
    stage.report.say("and STRICT goes on holding:");
    stage.expect("outsider", &[RATINGS], 0)?;
    let before = mutual_tls(&stage.lab.metrics()?, "ratings-v1");
    stage.expect("curl", &[RATINGS], 200)?;
    let after = mutual_tls(&stage.lab.metrics()?, "ratings-v1");
    stage.figure("connections_with_mutual_tls", after - before);
    stage.report.figure("outsider", "refused");
    Ok(())
}
