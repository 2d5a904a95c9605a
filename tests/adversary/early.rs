//! Bytes that a client sends before it was told to: after a request for an upgrade, for `CONNECT`, or behind an expectation. A
//! proxy that hands them on has let a second request by that nobody judged.

use anyhow::Result;

use crate::recorder::{Raw, Recorder, status};
use crate::support::lab::wait;
use crate::{besieged, captured_in};

const VAULT: &str = include_str!("http.yaml");
const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: vault}
spec:
  targetRefs: [{group: '', kind: Service, name: vault-near}, {group: '', kind: Service, name: vault-far}]
  action: DENY
  rules: [{to: [{operation: {paths: [/admin]}}]}]
";
const SECOND: &str = "GET /admin HTTP/1.1\r\nHost: vault\r\nConnection: close\r\n\r\n";

#[test]
fn nothing_that_comes_early_reaches_an_application_unjudged() -> Result<()> {
    let lab = besieged(&[VAULT, POLICY])?;
    captured_in(&lab, "vault")?;
    let firsts = [
        // The application refuses the upgrade, with 200.
        "GET / HTTP/1.1\r\nHost: vault\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET /switch/nothing HTTP/1.1\r\nHost: vault\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "CONNECT vault:9080 HTTP/1.1\r\nHost: vault:9080\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: vault\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: vault\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: vault\r\n\r\n",
    ];
    for pod in ["vault-near", "vault-far"] {
        let recorder = Recorder::start(&lab, pod)?;
        for (from, to) in [
            ("attacker", lab.service("vault", pod)?[0]),
            ("attacker", lab.address(pod)?),
            ("outsider", lab.address(pod)?),
        ] {
            let ask = |first: &str, second: &str| -> Result<String> {
                let mut raw = Raw::connect(&lab, from, to)?;
                _ = raw.send(format!("{first}{second}").as_bytes());
                Ok(raw.rest())
            };
            wait::until(&format!("{from} {to} to work"), || {
                Ok((status(&ask("", SECOND)?) == 403).then_some(()))
            })?;
            for first in firsts {
                recorder.take();
                let answer = ask(first, SECOND)?;
                let saw = recorder.take();
                assert!(!saw.contains("/admin"), "{from} {to} {first}: {saw}\n{answer}");
            }
            // What may come second does.
            let answer = ask(firsts[4], &SECOND.replace("/admin", "/other"))?;
            let saw = recorder.take();
            assert!(saw.contains("/other") && answer.matches("200 OK").count() == 2, "{answer}");
        }
    }
    Ok(())
}
