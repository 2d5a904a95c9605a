//! What is told: a tree of steps, and how it is printed.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::question::Asked;

/// Everything that is told of one question. `isthmus explain --output json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// What was asked, in a line.
    pub question: String,
    pub outcome: Outcome,
    /// What the client would see, in a line.
    pub answer: String,
    /// The way, in its order.
    pub steps: Vec<Node>,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It reaches the application.
    Permitted,
    /// That depends on which backend or endpoint takes it, or on what a provider of external authorization says.
    Depends,
    /// The mesh answers it, by a route: a redirect, a direct response.
    Answered,
    /// It is refused, or nothing takes it.
    Refused,
}

/// One step of the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// `client`, `destination`, `decision`, `waypoint`, `route`, `rule`, `filter`, `backend`, `endpoint`, `identity`, `policies`,
    /// `policy`, `limit`.
    pub step: String,
    pub verdict: Verdict,
    pub text: String,
    /// The flag that the access log would have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flag: Option<String>,
    /// The status that the client would get, where an answer is decided here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Node>,
}

/// What a step does to the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// The way goes on here.
    Holds,
    /// The way ends here.
    Refuses,
    /// The way ends here with an answer that a route gives.
    Answers,
    /// It was looked at and did not hold.
    PassedOver,
    /// It is worth knowing.
    Notes,
}

impl Node {
    fn new(step: &str, verdict: Verdict, text: String) -> Self {
        let (step, flag, status, steps) = (step.to_owned(), None, None, Vec::new());
        Self { step, verdict, text, flag, status, steps }
    }

    pub(super) fn holds(step: &str, text: impl Into<String>) -> Self {
        Self::new(step, Verdict::Holds, text.into())
    }

    pub(super) fn refuses(step: &str, text: impl Into<String>) -> Self {
        Self::new(step, Verdict::Refuses, text.into())
    }

    pub(super) fn answers(step: &str, text: impl Into<String>) -> Self {
        Self::new(step, Verdict::Answers, text.into())
    }

    pub(super) fn passes_over(step: &str, text: impl Into<String>) -> Self {
        Self::new(step, Verdict::PassedOver, text.into())
    }

    pub(super) fn notes(step: &str, text: impl Into<String>) -> Self {
        Self::new(step, Verdict::Notes, text.into())
    }

    pub(super) fn flag(mut self, flag: &str) -> Self {
        self.flag = Some(flag.to_owned()).filter(|flag| !flag.is_empty() && flag != "-");
        self
    }

    pub(super) fn status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    pub(super) fn with(mut self, steps: impl IntoIterator<Item = Node>) -> Self {
        self.steps.extend(steps);
        self
    }

    /// Where the way ends, in this step or below.
    fn ends(&self) -> Option<&Node> {
        match self.verdict {
            Verdict::Refuses | Verdict::Answers if self.steps.is_empty() => Some(self),
            Verdict::Refuses | Verdict::Answers => {
                Some(self.steps.iter().find_map(Node::ends).unwrap_or(self))
            }
            _ => None,
        }
    }

    /// Ways that part here: backends, and endpoints.
    fn is_alternative(&self) -> bool {
        matches!(self.step.as_str(), "backend" | "endpoint") && self.verdict != Verdict::PassedOver
    }

    fn outcome(&self) -> Option<Outcome> {
        match self.verdict {
            Verdict::Refuses => return Some(Outcome::Refused),
            Verdict::Answers => return Some(Outcome::Answered),
            Verdict::PassedOver => return None,
            Verdict::Holds | Verdict::Notes => {}
        }
        if self.step == "provider" {
            return Some(Outcome::Depends);
        }
        of_steps(&self.steps)
    }
}

/// What becomes of a way with these steps: what follows one another must all go on; of what parts it may be any.
fn of_steps(steps: &[Node]) -> Option<Outcome> {
    let parted: Vec<Outcome> = steps
        .iter()
        .filter(|it| it.is_alternative())
        .filter_map(|it| it.outcome().or(Some(Outcome::Permitted)))
        .collect();
    let all = steps.iter().filter(|it| !it.is_alternative()).filter_map(Node::outcome).max();
    let either = match (parted.iter().min(), parted.iter().max()) {
        (Some(least), Some(most)) if least == most => Some(*least),
        (Some(_), Some(_)) => Some(Outcome::Depends),
        _ => None,
    };
    all.max(either)
}

impl Explanation {
    pub(super) fn of(asked: &Asked, steps: Vec<Node>) -> Self {
        let outcome = of_steps(&steps).unwrap_or(Outcome::Permitted);
        let end = steps.iter().find_map(first_end);
        let answer = match (outcome, end) {
            (Outcome::Permitted, _) => "it reaches the application".to_owned(),
            (Outcome::Depends, Some(end)) => format!("it depends; where it ends: {}", told(end)),
            (Outcome::Depends, None) => "it depends on what is asked first".to_owned(),
            (Outcome::Answered | Outcome::Refused, Some(end)) => told(end),
            (Outcome::Answered | Outcome::Refused, None) => "it ends in the mesh".to_owned(),
        };
        Self { question: asked.text.clone(), outcome, answer, steps }
    }
}

fn first_end(node: &Node) -> Option<&Node> {
    node.ends().or_else(|| node.steps.iter().find_map(first_end))
}

fn told(end: &Node) -> String {
    match (end.status, &end.flag) {
        (Some(status), Some(flag)) => format!("{status} ({flag}): {}", end.text),
        (Some(status), None) => format!("{status}: {}", end.text),
        (None, Some(flag)) => format!("{} ({flag})", end.text),
        (None, None) => end.text.clone(),
    }
}

/// The tree as text.
pub fn render(explanation: &Explanation) -> String {
    let Explanation { question, answer, outcome, steps } = explanation;
    let outcome = match outcome {
        Outcome::Permitted => "permitted",
        Outcome::Depends => "depends",
        Outcome::Answered => "answered by the mesh",
        Outcome::Refused => "refused",
    };
    let mut text = format!("{question}\n");
    branches(&mut text, steps, "");
    // Into a text nothing fails.
    _ = writeln!(text, "=> {outcome}: {answer}");
    text
}

fn branches(text: &mut String, steps: &[Node], indent: &str) {
    for (at, node) in steps.iter().enumerate() {
        let is_last = at + 1 == steps.len();
        let (branch, below) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let mark = match node.verdict {
            Verdict::Holds => "",
            Verdict::Refuses => "✗ ",
            Verdict::Answers => "» ",
            Verdict::PassedOver => "– ",
            Verdict::Notes => "· ",
        };
        let flag = node.flag.as_ref().map(|flag| format!(" [{flag}]")).unwrap_or_default();
        let status = node.status.map(|status| format!(" -> {status}")).unwrap_or_default();
        _ = writeln!(text, "{indent}{branch}{}: {mark}{}{status}{flag}", node.step, node.text);
        branches(text, &node.steps, &format!("{indent}{below}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_must_go_on_and_what_parts_may_go_either_way() {
        let on = |step: &str| Node::holds(step, "on");
        let off = |step: &str| Node::refuses(step, "off");
        let of = |steps: Vec<Node>| of_steps(&steps).unwrap_or(Outcome::Permitted);
        assert_eq!(of(vec![on("client"), on("route")]), Outcome::Permitted);
        assert_eq!(of(vec![on("client"), off("route")]), Outcome::Refused);
        let parted = |endpoints| vec![on("client"), on("backend").with(endpoints)];
        assert_eq!(of(parted(vec![on("endpoint"), on("endpoint")])), Outcome::Permitted);
        assert_eq!(of(parted(vec![on("endpoint"), off("endpoint")])), Outcome::Depends);
        assert_eq!(of(parted(vec![off("endpoint"), off("endpoint")])), Outcome::Refused);
        let over = Node::passes_over("endpoint", "not ready").with([off("policy")]);
        assert_eq!(of(parted(vec![on("endpoint"), over])), Outcome::Permitted);
        let denied = on("endpoint").with([on("policies").with([off("policy")])]);
        assert_eq!(of(parted(vec![denied])), Outcome::Refused);
        assert_eq!(
            of(vec![on("endpoint").with([Node::notes("provider", "asked")])]),
            Outcome::Depends
        );
        assert_eq!(of(vec![Node::answers("filter", "redirect")]), Outcome::Answered);
    }

    #[test]
    fn a_tree_is_printed_with_its_branches() {
        let explanation = Explanation {
            question: "GET".to_owned(),
            outcome: Outcome::Refused,
            answer: "403".to_owned(),
            steps: vec![
                Node::holds("client", "a").with([Node::notes("identity", "b")]),
                Node::refuses("policy", "c").flag("RBAC").status(403),
            ],
        };
        let expected = "GET\n├─ client: a\n│  └─ identity: · b\n└─ policy: ✗ c -> 403 [RBAC]\n=> refused: 403\n";
        assert_eq!(render(&explanation), expected);
    }
}
