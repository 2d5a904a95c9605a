//! Label selectors (Kubernetes "Labels and Selectors").

use std::collections::BTreeMap;

use serde::Deserialize;

/// `matchLabels` and `matchExpressions`: all must hold. An empty selector takes everything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
    #[serde(default)]
    pub match_expressions: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    #[serde(default)]
    pub values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    /// Whether an object with these labels is selected; `value` looks a label up.
    pub fn matches<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.match_labels.iter().all(|(key, wanted)| value(key) == Some(wanted))
            && self
                .match_expressions
                .iter()
                .all(|requirement| requirement.holds(value(&requirement.key)))
    }
}

impl Requirement {
    /// `NotIn` holds without the label too (Kubernetes API, LabelSelectorRequirement).
    fn holds(&self, value: Option<&str>) -> bool {
        let listed = value.is_some_and(|value| self.values.iter().any(|wanted| wanted == value));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// Whether `labels` has every pair of `selector`. The caller says what an empty selector means.
pub fn selects(
    selector: &BTreeMap<String, String>,
    labels: Option<&BTreeMap<String, String>>,
) -> bool {
    selector.iter().all(|(key, wanted)| labels.and_then(|labels| labels.get(key)) == Some(wanted))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn requirement(operator: Operator, values: &[&str]) -> LabelSelector {
        let values = values.iter().map(ToString::to_string).collect();
        let requirement = Requirement { key: "tier".into(), operator, values };
        LabelSelector { match_expressions: vec![requirement], ..LabelSelector::default() }
    }

    #[test]
    fn operators_mean_what_kubernetes_says() {
        for (operator, values, present, other, absent) in [
            (Operator::In, &["a"][..], true, false, false),
            (Operator::NotIn, &["a"], false, true, true),
            (Operator::Exists, &[], true, true, false),
            (Operator::DoesNotExist, &[], false, false, true),
        ] {
            let selector = requirement(operator, values);
            assert_eq!(selector.matches(|_| Some("a")), present, "{operator:?} a");
            assert_eq!(selector.matches(|_| Some("b")), other, "{operator:?} b");
            assert_eq!(selector.matches(|_| None), absent, "{operator:?} absent");
        }
    }

    #[test]
    fn an_empty_selector_takes_everything() {
        assert!(LabelSelector::default().matches(|_| None));
    }

    proptest! {
        #[test]
        fn labels_select_exactly_their_supersets(
            labels in prop::collection::btree_map("[a-c]", "[x-z]", 0..4),
            selector in prop::collection::btree_map("[a-c]", "[x-z]", 0..4),
        ) {
            let mut merged = labels.clone();
            merged.extend(selector.clone());
            prop_assert_eq!(selects(&selector, Some(&labels)), merged == labels);
            let same = LabelSelector { match_labels: selector.clone(), match_expressions: vec![] };
            prop_assert_eq!(
                same.matches(|key| labels.get(key).map(String::as_str)),
                selects(&selector, Some(&labels))
            );
        }

        #[test]
        fn an_operator_and_its_negation_never_agree(value in prop::option::of("[a-c]"), listed in "[a-c]") {
            let value = value.as_deref();
            for (one, other) in [(Operator::In, Operator::NotIn), (Operator::Exists, Operator::DoesNotExist)] {
                let values = [listed.as_str()];
                prop_assert_ne!(
                    requirement(one, &values).matches(|_| value),
                    requirement(other, &values).matches(|_| value)
                );
            }
        }
    }
}
