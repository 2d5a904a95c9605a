//! XTelemetryPolicy of Gateway API.

use serde_json::Value;

use super::gateway_api::names_differ;
use crate::base::schema::forms::{
    ATTRIBUTE_KEY, ATTRIBUTE_NAME, GROUP, HEADER_NAME, HEADER_VALUE, KIND, NAME, SPAN_NAME, any,
};
use crate::base::schema::{INT32, Objection, Rule};
use crate::filter::backend;
use Rule::{Fields, List, Number, OneOf, Text, With};

const FRACTION: Rule = With(
    &Fields(&[("numerator", Number(0, INT32)), ("denominator", Number(1, INT32))]),
    &[is_no_more_than_all],
);

const MODE: Rule = OneOf(&["Enabled", "Disabled", "ImplementationDefault"]);

const PROVIDER: Rule = Fields(&[
    ("backendRef", backend::SCHEMA),
    (
        "headers",
        With(
            &List(0, 16, &Fields(&[("name", Text(HEADER_NAME)), ("value", Text(HEADER_VALUE))])),
            &[names_differ],
        ),
    ),
]);

const ATTRIBUTE: Rule = With(
    &Fields(&[
        ("name", Text(ATTRIBUTE_NAME)),
        ("sourceType", OneOf(&["Header", "Literal", "Attribute"])),
        ("headerName", Text(HEADER_NAME)),
        ("literalValue", Text(any(1024))),
        ("attributeKey", Text(ATTRIBUTE_KEY)),
    ]),
    &[source_goes_with_type],
);

const TRACING: Rule = With(
    &Fields(&[
        ("mode", MODE),
        ("provider", PROVIDER),
        ("samplingRate", FRACTION),
        (
            "parentBasedSampling",
            With(&Fields(&[("mode", MODE), ("samplingRate", FRACTION)]), &[rate_goes_with_mode]),
        ),
        ("serviceName", Text(ATTRIBUTE_NAME)),
        ("spanName", Text(SPAN_NAME)),
        ("attributes", With(&List(0, usize::MAX, &ATTRIBUTE), &[names_differ])),
    ]),
    &[fields_go_with_mode],
);

pub(in super::super) const TELEMETRY_POLICY: Rule = With(
    &Fields(&[
        (
            "targetRefs",
            List(
                1,
                16,
                &Fields(&[("group", Text(GROUP)), ("kind", Text(KIND)), ("name", Text(NAME))]),
            ),
        ),
        ("tracing", TRACING),
    ]),
    &[says_something],
);

fn is_no_more_than_all(value: &Value) -> Option<Objection> {
    let number = |field: &str| value.get(field).and_then(Value::as_i64);
    let more = number("numerator")? > number("denominator").unwrap_or(100);
    more.then(|| ("numerator", "is more than the denominator".to_owned()))
}

fn says_something(value: &Value) -> Option<Objection> {
    value.get("tracing").is_none().then(|| ("tracing", "is missing".to_owned()))
}

fn is_enabled(value: &Value) -> bool {
    value.get("mode").and_then(Value::as_str) == Some("Enabled")
}

fn rate_goes_with_mode(value: &Value) -> Option<Objection> {
    let stray = value.get("samplingRate").is_some() && !is_enabled(value);
    stray.then(|| ("samplingRate", "can only be set when mode is Enabled".to_owned()))
}

fn fields_go_with_mode(value: &Value) -> Option<Objection> {
    /// Those that say how spans are recorded.
    const HOW: [&str; 6] = [
        "provider",
        "samplingRate",
        "parentBasedSampling",
        "serviceName",
        "spanName",
        "attributes",
    ];
    if is_enabled(value) {
        let is_missing = value.get("provider").is_none();
        return is_missing.then(|| ("provider", "is required when mode is Enabled".to_owned()));
    }
    let stray = HOW.into_iter().find(|field| value.get(field).is_some())?;
    Some((stray, "can only be set when mode is Enabled".to_owned()))
}

fn source_goes_with_type(value: &Value) -> Option<Objection> {
    let source = value.get("sourceType").and_then(Value::as_str);
    let fields =
        [("headerName", "Header"), ("literalValue", "Literal"), ("attributeKey", "Attribute")];
    fields.into_iter().find_map(|(field, of)| {
        let (wanted, given) = (source == Some(of), value.get(field).is_some());
        (wanted != given).then(|| {
            let must = if wanted { "is required" } else { "must be empty" };
            (field, format!("{must} with this sourceType"))
        })
    })
}
