//! httpbin: circuit breaking with fortio, and mirroring.

use anyhow::{Context, Result, ensure};

use super::files;
use super::stage::{NAMESPACE, Stage};
use crate::support::lab::process::command;
use crate::support::lab::wait;

const GET: &str = "http://httpbin:8000/get";

/// The object of "Circuit Breaking", which is in no file of the samples.
const BREAKER: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: httpbin}
spec:
  host: httpbin
  trafficPolicy:
    connectionPool:
      tcp: {maxConnections: 1}
      http: {http1MaxPendingRequests: 1, maxRequestsPerConnection: 1}
    outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 3m, maxEjectionPercent: 100}
";

/// How many requests were answered with each status: what fortio prints last.
fn load(stage: &Stage, connections: &str, count: &str) -> Result<(usize, usize)> {
    let namespace = &stage.lab.pod("fortio-deploy")?.attachment.namespace;
    let words = ["load", "-c", connections, "-qps", "0", "-n", count, "-loglevel", "Warning", GET];
    let output = command(namespace, files::program("fortio")?).args(words).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let of = |status: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("Code {status} : ")));
        line.map_or(Ok(0), |line| line.split(' ').next().unwrap_or_default().parse::<usize>())
    };
    let (good, overflown) = (of("200")?, of("503")?);
    let all: usize = count.parse()?;
    ensure!(good + overflown == all, "{text}");
    Ok((good, overflown))
}

/// "Circuit Breaking": one connection passes, two at a time mostly, of three some are refused at once.
#[test]
fn a_circuit_opens_at_more_than_it_holds() -> Result<()> {
    let files = ["httpbin/httpbin.yaml", "httpbin/sample-client/fortio-deploy.yaml"];
    files::program("fortio")?;
    let mut stage = Stage::of(&files, true)?;
    stage.until("httpbin", &[GET], |it| it.status == 200)?;
    let (good, _) = load(&stage, "3", "30")?;
    ensure!(good == 30, "without a rule all pass: {good}");
    stage.lab.manifests.apply_in(NAMESPACE, BREAKER)?;
    // One is in flight, one waits, and the third is too much.
    let since = stage.lab.moment()?;
    let (good, overflown) = wait::until("an overflow", || {
        let (good, overflown) = load(&stage, "4", "40")?;
        Ok((overflown > 0).then_some((good, overflown)))
    })?;
    ensure!(good > 0, "the service is not ejected: {good} good, {overflown} not");
    wait::until("the access log", || {
        let lines = stage.lab.lines_since(&since);
        Ok(lines.iter().any(|(_, line)| line.contains("response_flags=\"UO\"")).then_some(()))
    })?;
    // One after the other nothing overflows, whatever came before.
    let (good, overflown) = load(&stage, "1", "20")?;
    ensure!((good, overflown) == (20, 0), "{good} {overflown}");
    // With two there is one in flight and one that waits: none is too much.
    let (good, overflown) = load(&stage, "2", "20")?;
    ensure!((good, overflown) == (20, 0), "{good} {overflown}");
    Ok(())
}

/// "Mirroring": the page's second version hears what the first answers.
#[test]
fn requests_are_mirrored() -> Result<()> {
    let text = files::read("httpbin/httpbin.yaml")?;
    // The page has both versions inline; the second is here what the sample makes of the first.
    let second: String = super::stage::pods(&text, NAMESPACE)?
        .into_iter()
        .map(|mut pod| {
            pod["metadata"]["name"] = "httpbin-v2".into();
            pod["metadata"]["labels"]["version"] = "v2".into();
            pod["metadata"]["annotations"]["isthmus.io/network-namespace"] = "httpbin-v2".into();
            serde_saphyr::to_string(&pod).context("a pod")
        })
        .collect::<Result<_>>()?;
    let mut stage = Stage::with(&["httpbin/httpbin.yaml"], true, &second)?;
    let rules = |mirror: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: httpbin}}\nspec: {{hosts: [httpbin], http: [{{\
             route: [{{destination: {{host: httpbin, subset: v1}}, weight: 100}}]{mirror}}}]}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: httpbin}}\nspec: {{host: httpbin, \
             subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]}}\n"
        )
    };
    stage.lab.manifests.apply_in(NAMESPACE, &rules(""))?;
    let heard =
        |stage: &Stage, word: &str| Ok::<_, anyhow::Error>(stage.log("httpbin-v2")?.contains(word));
    // Until all go to v1.
    let mut number = 0;
    wait::until("all to v1", || {
        number += 1;
        for _ in 0..10 {
            stage.curl(&[&format!("{GET}?before={number}")])?;
        }
        Ok((!heard(&stage, &format!("before={number}"))?).then_some(()))
    })?;
    let mirror = ", mirror: {host: httpbin, subset: v2}, mirrorPercentage: {value: 100.0}";
    stage.lab.manifests.apply_in(NAMESPACE, &rules(mirror))?;
    wait::until("a copy at v2", || {
        let answer = stage.curl(&[&format!("{GET}?mirrored=yes")])?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(heard(&stage, "mirrored=yes")?.then_some(()))
    })?;
    ensure!(stage.log("httpbin")?.contains("mirrored=yes"), "the first answers");
    Ok(())
}
