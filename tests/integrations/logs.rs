//! The access log in an OpenTelemetry Collector.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::programs::{node, program, start};
use crate::support::lab::wait;
use crate::{WAYPOINT, bookinfo, enrol, settle};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";

const COLLECTOR: u16 = 6317;

#[test]
fn a_collector_gets_the_access_log() -> Result<()> {
    let mut lab = bookinfo()?;
    lab.manifests.apply(WAYPOINT)?;
    let settings = json!({
        "receivers": { "otlp": { "protocols": { "grpc": { "endpoint": format!("0.0.0.0:{COLLECTOR}") } } } },
        "exporters": { "debug": { "verbosity": "detailed" } },
        "service": {
            "telemetry": { "metrics": { "level": "none" } },
            "pipelines": { "logs": { "receivers": ["otlp"], "exporters": ["debug"] } },
        },
    });
    let path = lab.logs().join("logs-collector.json");
    std::fs::write(&path, settings.to_string())?;
    let config = format!("--config={}", path.display());
    let collector = start(&lab, &program("collector")?, &[&config], COLLECTOR)?;
    let address = node(&lab)?.addresses[0];
    let mesh = format!(
        "
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data:
  mesh: |
    defaultProviders: {{accessLogging: [logs]}}
    extensionProviders:
    - name: logs
      envoyOtelAls:
        service: {address}
        port: {COLLECTOR}
        logName: of-bookinfo
        logFormat: {{text: \"%UPSTREAM_HOST% took %BYTES_SENT%\", labels: {{flags: \"%RESPONSE_FLAGS%\"}}}}
"
    );
    lab.manifests.apply(&mesh)?;
    lab.start_agents("")?;
    enrol(&mut lab)?;
    let log = wait::until("records in the collector", || {
        settle(&lab, "curl", &[DETAILS], 200)?;
        let log = collector.log();
        Ok(log.contains("log_name: Str(of-bookinfo)").then_some(log))
    })?;
    ensure!(log.contains("service.name: Str(curl.default)"), "{log}");
    ensure!(log.contains(" took ") && log.contains("flags: Str(-)"), "{log}");
    Ok(())
}
