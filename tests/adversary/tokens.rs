//! Tokens that nobody verified, and traffic that should have been encrypted: an application that relies on a
//! RequestAuthentication or a BackendTLSPolicy must not be reached by what these would have turned away.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use crate::capture::means::{ask, connect, namespace};
use crate::support::lab::PORT;
use crate::ways::{DETAILS, VICTIM, seen};
use crate::{besieged, settle};

/// By selector, so that it holds without a waypoint, whatever was dialled.
const TOKENS: &str = "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: bookinfo}
spec:
  selector: {matchLabels: {app: details}}
  jwtRules:
  - {issuer: a, jwks: '{}'}
  - {issuer: b, jwks: '{}', fromHeaders: [{name: x-token}], fromCookies: [session]}
";

/// The attacker's own, which must close nothing for anybody else.
const OF_OTHERS: &str = "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: evil}
spec: {targetRefs: [{group: '', kind: Service, name: ratings}], jwtRules: [{issuer: a}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ratings, namespace: evil}
spec: {host: ratings.bookinfo.svc.cluster.local, trafficPolicy: {tls: {mode: SIMPLE}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: ratings, namespace: evil}
spec: {targetRefs: [{group: '', kind: Service, name: ratings}]}
";

#[test]
fn a_token_that_nobody_verified_reaches_no_application() -> Result<()> {
    let lab = besieged(&[TOKENS])?;
    let pod = format!("http://{}/details/0", SocketAddr::new(lab.address(VICTIM)?, PORT));
    for client in ["attacker", "accomplice", "curl", "outsider"] {
        for url in [DETAILS, &pod] {
            let marked = format!("{url}?forged");
            for header in [
                "Authorization: Bearer a.b.c",
                "authorization: bEaReR a.b.c",
                "Authorization: Basic eDp5, Bearer a.b.c",
                "X-Token: a.b.c",
                "Cookie: theme=dark; session=a.b.c",
            ] {
                settle(&lab, client, &["-H", header, &marked], 401)?;
            }
            settle(&lab, client, &[&format!("{marked}&acc%65ss_token=a.b.c")], 401)?;
            settle(&lab, client, &[url], 200)?;
            settle(&lab, client, &["-H", "Authorization: Basic eDp5", url], 200)?;
        }
    }
    let forged = seen(&lab, "forged")?;
    ensure!(forged.is_empty(), "a token reached the application: {forged:?}");
    settle(&lab, "curl", &[&format!("{DETAILS}?innocent")], 200)?;
    ensure!(!seen(&lab, "innocent")?.is_empty(), "the application says what it sees");
    Ok(())
}

#[test]
fn nobody_closes_the_service_of_another_namespace_by_asking_for_tokens_or_tls() -> Result<()> {
    let lab = besieged(&[OF_OTHERS])?;
    let ratings = "http://ratings.bookinfo:9080/ratings/0";
    for client in ["curl", "outsider"] {
        settle(&lab, client, &[ratings], 200)?;
        settle(&lab, client, &["-H", "Authorization: Bearer a.b.c", ratings], 200)?;
    }
    // Its own clients' traffic is the attacker's to close.
    settle(&lab, "attacker", &[ratings], 0).map(drop)
}

/// The owner's own, for one of two Services.
const WANTED: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: details, namespace: bookinfo}
spec: {host: details.bookinfo.svc.cluster.local, trafficPolicy: {tls: {mode: SIMPLE}}}
";
const KEPT: &str = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";

/// From a pod of each node, so through a tunnel and within an agent.
#[test]
fn no_connection_outlives_the_wish_to_encrypt_it() -> Result<()> {
    let mut lab = besieged(&[])?;
    let mut open = Vec::new();
    for client in ["attacker", "accomplice"] {
        let own = SocketAddr::new(lab.address(client)?, 0);
        for service in ["details", "ratings"] {
            let to = SocketAddr::new(lab.service("bookinfo", service)?[0], PORT);
            settle(&lab, client, &[&format!("http://{to}/health")], 200)?;
            let mut stream = namespace(&lab, client)?.run(|| connect(own, to))??;
            let answer = ask(&mut stream, KEPT)?;
            ensure!(answer.starts_with("HTTP/1.1 200"), "{client}, {service}: {answer}");
            open.push((client, service, stream));
        }
    }
    lab.manifests.apply(WANTED)?;
    for client in ["attacker", "accomplice"] {
        settle(&lab, client, &[DETAILS], 0)?;
    }
    for (client, service, mut stream) in open {
        let answer = ask(&mut stream, KEPT).unwrap_or_default();
        let goes_on = answer.starts_with("HTTP/1.1 200");
        ensure!(goes_on == (service == "ratings"), "{client}, {service}: {answer:?}");
    }
    Ok(())
}
