//! What becomes of manifests that cannot be understood, with real agents.

use anyhow::Result;

use crate::support::lab::{Lab, Moment, wait};
use crate::{meshed, settle};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";

/// Waits until both agents have printed a line with all these words.
fn complained(lab: &Lab, since: &Moment, words: &[&str]) -> Result<()> {
    wait::until(&format!("a complaint with {words:?}"), || {
        let lines = lab.lines_since(since);
        let count = lines.iter().filter(|(_, line)| words.iter().all(|word| line.contains(word)));
        Ok((count.count() >= 2).then_some(()))
    })
}

#[test]
fn the_last_good_version_of_a_broken_policy_stays() -> Result<()> {
    let mut lab = meshed()?;
    let policy = |principal: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: details, namespace: bookinfo}}\n\
             spec:\n  selector: {{matchLabels: {{app: details}}}}\n  action: ALLOW\n  \
             rules: [{{from: [{{source: {{principals: [{principal}]}}}}]}}]\n"
        )
    };
    lab.manifests.apply(&policy("cluster.local/ns/default/sa/curl"))?;
    settle(&lab, "stranger", &[DETAILS], 0)?;

    let since = lab.moment()?;
    let file = "authorizationpolicy.bookinfo.details.yaml";
    lab.manifests.write(file, &policy("{not: a text}"))?;
    complained(&lab, &since, &["details", "principals"])?;
    assert_eq!(lab.curl("curl", &[DETAILS])?.status, 200);
    assert_eq!(lab.curl("stranger", &[DETAILS])?.status, 0);

    lab.manifests.write(file, &policy("cluster.local/ns/default/sa/stranger"))?;
    settle(&lab, "stranger", &[DETAILS], 200)?;
    settle(&lab, "curl", &[DETAILS], 0)?;
    Ok(())
}

#[test]
fn a_policy_without_a_good_version_denies_and_all_else_goes_on() -> Result<()> {
    let lab = meshed()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    lab.manifests.write(
        "broken.yaml",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {name: broken, namespace: bookinfo}\n\
         spec:\n  selector: {matchLabels: {app: details}}\n  action: PERHAPS\n  rules: [{}]\n",
    )?;
    settle(&lab, "curl", &[DETAILS], 0)?;
    assert_eq!(lab.curl("curl", &["http://ratings.bookinfo:9080/ratings/0"])?.status, 200);
    lab.manifests.remove("broken.yaml")?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    Ok(())
}

#[test]
fn text_that_is_no_yaml_harms_only_its_document() -> Result<()> {
    let mut lab = meshed()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let since = lab.moment()?;
    lab.manifests.write("noise.yaml", "a: [b\n---\nkind: Unknown\napiVersion: v7\n---\n{{{\n")?;
    complained(&lab, &since, &["noise.yaml"])?;
    assert_eq!(lab.curl("curl", &[DETAILS])?.status, 200);
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                  metadata: {name: default, namespace: bookinfo}\nspec: {mtls: {mode: STRICT}}\n";
    lab.manifests.apply(strict)?;
    settle(&lab, "outsider", &[DETAILS], 0)?;
    assert_eq!(lab.curl("curl", &[DETAILS])?.status, 200);
    Ok(())
}

/// An agent that starts with a policy it cannot read lets nothing past that the policy might deny, in whatever style it is
/// written; what nobody can take for a policy's harms nothing.
#[test]
fn a_policy_that_cannot_be_read_denies_from_the_start() -> Result<()> {
    let mut lab = meshed()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let mut restart = |text: &str, name: &str, status: u16| -> Result<()> {
        lab.manifests.write(name, text)?;
        for node in ["node-a", "node-b"] {
            lab.kill_and_restart_agent(node, "")?;
        }
        settle(&lab, "curl", &[DETAILS], status)?;
        lab.manifests.remove(name)?;
        settle(&lab, "curl", &[DETAILS], 200).map(drop)
    };
    restart("{\"kind\": \"Deployment\", \"metadata\": {\"name\": \"x\"", "unclosed.json", 200)?;
    let policy = "{\"apiVersion\": \"security.istio.io/v1\", \"kind\": \"AuthorizationPolicy\", \
                  \"metadata\": {\"name\": \"q\", \"namespace\": \"bookinfo\"}, \"spec\": {\"action\": \"DENY\"";
    restart(policy, "unclosed.json", 0)?;
    restart("\"kind\": \"AuthorizationPolicy\n", "nameless.yaml", 0)
}

/// As when `---` is forgotten.
#[test]
fn a_policy_outlives_what_was_appended_to_it() -> Result<()> {
    let lab = meshed()?;
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                  metadata: {name: details, namespace: bookinfo}\n\
                  spec: {selector: {matchLabels: {app: details}}, action: DENY, rules: [{}]}\n";
    lab.manifests.write("policy.yaml", policy)?;
    settle(&lab, "curl", &[DETAILS], 0)?;
    let since = lab.moment()?;
    let appended = "apiVersion: v1\nkind: Namespace\nmetadata: {name: extra}\n";
    lab.manifests.write("policy.yaml", &format!("{policy}{appended}"))?;
    complained(&lab, &since, &["AuthorizationPolicy bookinfo/details", "stays in force"])?;
    complained(&lab, &since, &["Namespace extra"])?;
    assert_eq!(lab.curl("curl", &[DETAILS])?.status, 0);
    lab.manifests.write("policy.yaml", &format!("{policy}---\n{appended}"))?;
    assert_eq!(lab.curl("curl", &[DETAILS])?.status, 0);
    lab.manifests.remove("policy.yaml")?;
    settle(&lab, "curl", &[DETAILS], 200).map(drop)
}
