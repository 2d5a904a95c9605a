//! Expressions from their parts.

/// Per second, over as much as Grafana thinks good for the width of a panel.
pub(super) fn rate(selector: &str) -> String {
    format!("rate({selector}[$__rate_interval])")
}

pub(super) fn sum(expression: &str) -> String {
    format!("sum({expression})")
}

pub(super) fn sum_by(labels: &str, expression: &str) -> String {
    format!("sum by ({labels}) ({expression})")
}

/// The largest ones.
pub(super) fn top(count: u8, expression: &str) -> String {
    format!("topk({count}, {expression})")
}

/// Of a histogram, whose selector is that of its buckets; by more labels, or none.
pub(super) fn quantile(of: f64, labels: &str, selector: &str) -> String {
    let by = if labels.is_empty() { "le".to_owned() } else { format!("le, {labels}") };
    format!("histogram_quantile({of}, {})", sum_by(&by, &rate(selector)))
}

/// Which part of `whole` is `part`, by labels or altogether; 0 where there is no series of the part.
pub(super) fn share(labels: &str, part: &str, whole: &str) -> String {
    let sum = |selector: &str| {
        let rate = rate(selector);
        if labels.is_empty() { sum(&rate) } else { sum_by(labels, &rate) }
    };
    let (part, whole) = (sum(part), sum(whole));
    format!("({part} or {whole} * 0) / {whole}")
}

/// Which part is something else.
pub(super) fn rest(labels: &str, part: &str, whole: &str) -> String {
    format!("1 - {}", share(labels, part, whole))
}

/// A selector with more matchers; it has some already.
pub(super) fn with(selector: &str, matchers: &str) -> String {
    let open = selector.trim_end_matches('}');
    format!("{open},{matchers}}}")
}
