//! What a rule does to headers (Gateway API, HTTPHeaderFilter).

use http::HeaderMap;

use crate::model::{HeaderFilter, HttpFilter, HttpRule};

/// Applies the rule's request filters; tells whether there were any.
pub fn filter_request(rule: &HttpRule, headers: &mut HeaderMap) -> bool {
    let mut any = false;
    for filter in &rule.filters {
        if let HttpFilter::RequestHeaders(filter) = filter {
            apply(filter, headers);
            any = true;
        }
    }
    any
}

/// Applies the rule's response filters.
pub fn filter_response(rule: &HttpRule, headers: &mut HeaderMap) {
    for filter in &rule.filters {
        if let HttpFilter::ResponseHeaders(filter) = filter {
            apply(filter, headers);
        }
    }
}

fn apply(filter: &HeaderFilter, headers: &mut HeaderMap) {
    for (name, value) in &filter.set {
        headers.insert(name, value.clone());
    }
    for (name, value) in &filter.add {
        headers.append(name, value.clone());
    }
    for name in &filter.remove {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn set_then_add_then_remove() {
        let pair = |name: &'static str, value: &'static str| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let filter = HeaderFilter {
            set: vec![pair("x-set", "new")],
            add: vec![pair("x-add", "second"), pair("x-fresh", "one")],
            remove: vec![HeaderName::from_static("x-gone")],
        };
        let mut headers: HeaderMap =
            [pair("x-set", "old"), pair("x-add", "first"), pair("x-gone", "1")]
                .into_iter()
                .collect();
        apply(&filter, &mut headers);
        let all = |name: &str| headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(all("x-set"), ["new"]);
        assert_eq!(all("x-add"), ["first", "second"]);
        assert_eq!(all("x-fresh"), ["one"]);
        assert!(all("x-gone").is_empty());
    }
}
