//! Tokens that nobody verified, and traffic that should have been encrypted: an application that relies on a
//! RequestAuthentication or a BackendTLSPolicy must not be reached by what these would have turned away.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

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
