//! `retryBudget`.

use std::time::Duration;

use super::reading::Reading;
use crate::base::schema::parse_istio_duration;
use crate::source::objects::{Kind, RetryBudget as Written};
use crate::traffic::{LeastRetries, RetryBudget};

/// Istio's, where the rule does not say.
const LEAST: u32 = 3;

/// Parts of a million in a percent.
const PER_PERCENT: f64 = 10_000.0;

impl Reading<'_, '_> {
    /// Holds for every port: `portLevelSettings` have none.
    pub(super) fn budget(&mut self, within: &str, written: &Written) -> RetryBudget {
        let Written { percent, min_retry_concurrency, budget_interval } = written;
        let default = f64::from(RetryBudget::PERCENT);
        let percent = percent.unwrap_or(default);
        let known = (0.0..=100.0).contains(&percent);
        if !known {
            let reason =
                format!("{percent} is not from 0 to 100; {} holds instead", RetryBudget::PERCENT);
            self.error(&format!("{within}.percent"), reason);
        }
        let percent = if known { percent } else { default };
        let interval = budget_interval.as_deref().map(|text| (text, parse_istio_duration(text)));
        if let Some((text, None)) = interval {
            let reason =
                format!("{text:?} is not a duration such as 0ms, 10s or 1m; it is left out");
            self.error(&format!("{within}.budgetInterval"), reason);
        }
        RetryBudget {
            by: format!("{} {}", Kind::DestinationRule, self.key()).into(),
            per_million: (percent * PER_PERCENT).round() as u32,
            interval: interval.and_then(|(_, read)| read).unwrap_or(Duration::ZERO),
            // 0 cannot be told from a field that is absent.
            least: LeastRetries::AtOnce(
                min_retry_concurrency.filter(|it| *it > 0).unwrap_or(LEAST),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::source::tests::translated;
    use crate::traffic::LeastRetries::AtOnce;

    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
        spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}, {name: admin, port: 81}]}\n---\n";

    /// Row by row from Istio's reference.
    #[test]
    fn every_field_is_carried_out() {
        for (budget, per_million, least, interval, faults) in [
            ("{}", 200_000, 3, 0, &[][..]),
            (
                "{percent: 12.5, minRetryConcurrency: 10, budgetInterval: 10s}",
                125_000,
                10,
                10_000,
                &[],
            ),
            ("{percent: 0}", 0, 3, 0, &[]),
            ("{percent: 100, minRetryConcurrency: 0, budgetInterval: 0ms}", 1_000_000, 3, 0, &[]),
            ("{percent: 101, budgetInterval: soon}", 200_000, 3, 0, &["budgetInterval", "percent"]),
            ("{percent: -1}", 200_000, 3, 0, &["percent"]),
        ] {
            // A port with settings of its own has the budget all the same, as in Istio.
            let translation = translated(&format!(
                "{SERVICE}apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
                 metadata: {{name: web, namespace: shop}}\nspec: {{host: web, trafficPolicy: {{retryBudget: {budget}, \
                 portLevelSettings: [{{port: {{number: 81}}, loadBalancer: {{simple: RANDOM}}}}]}}}}\n"
            ));
            let of_rule = translation.complaints.iter().filter(|it| it.kind == "DestinationRule");
            let told = of_rule.map(|it| it.field.as_str());
            let within = "spec.trafficPolicy.retryBudget.";
            assert!(told.eq(faults.iter().map(|it| format!("{within}{it}"))), "{budget}");
            for port in [80, 81] {
                let traffic = &translation.mesh.services[0].traffic;
                let destination = traffic.of_client("any", &[], port).expect("a policy");
                let shown = serde_json::to_value(destination).unwrap()["policy"]["budget"].clone();
                let expected = serde_json::json!({
                    "by": "DestinationRule shop/web",
                    "per_million": per_million,
                    "interval": {"secs": interval / 1000, "nanos": 0},
                    "least": AtOnce(least),
                });
                assert_eq!(shown, expected, "{budget} {port}");
            }
        }
    }
}
