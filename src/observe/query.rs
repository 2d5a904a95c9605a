//! What is asked of `/flows`.

use std::time::Duration;

use super::filter::Filter;
use crate::base::ObjectKey;
use crate::base::schema::parse_duration;
use crate::telemetry::Verdict;

/// Which flows, of what time, and whether new ones too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pub filter: Filter,
    /// Only what ended within this time.
    pub since: Option<Duration>,
    /// So many of those that are remembered, the last ones.
    pub last: Option<usize>,
    /// New ones follow, until the observer leaves.
    pub follow: bool,
}

/// What is wrong with a query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("{0}={1}: say namespace/name")]
    Object(&'static str, String),
    #[error("verdict={0}: say permitted, denied or failed")]
    Verdict(String),
    #[error("status={0}: say a status such as 404, or a class such as 5xx")]
    Status(String),
    #[error("layer={0}: say 4 or 7")]
    Layer(String),
    #[error("since={0}: say how long ago, such as 10m")]
    Since(String),
    #[error("last={0}: say a number")]
    Last(String),
    #[error("follow={0}: say true or false")]
    Follow(String),
    #[error(
        "{0}: only namespace, workload, service, verdict, status, layer, since, last and follow are understood"
    )]
    Unknown(String),
}

impl Query {
    /// `namespace=shop&verdict=denied&since=10m&follow=true`; the message says what is wrong.
    pub fn parse(query: &str) -> Result<Self, QueryError> {
        let mut all = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            let filter = &mut all.filter;
            match &*name {
                "namespace" => filter.namespace = Some(value),
                "workload" => filter.workload = Some(object("workload", value)?),
                "service" => filter.service = Some(object("service", value)?),
                "verdict" => filter.verdict = Some(verdict(value)?),
                "status" => {
                    let status = value.parse().map_err(|()| QueryError::Status(value))?;
                    filter.status = Some(status);
                }
                "layer" => {
                    let layer = value.parse().ok().filter(|layer| matches!(layer, 4 | 7));
                    filter.layer = Some(layer.ok_or(QueryError::Layer(value))?);
                }
                "since" => {
                    all.since = Some(parse_duration(&value).ok_or(QueryError::Since(value))?);
                }
                "last" => all.last = Some(value.parse().map_err(|_| QueryError::Last(value))?),
                "follow" => all.follow = value.parse().map_err(|_| QueryError::Follow(value))?,
                other => return Err(QueryError::Unknown(other.to_owned())),
            }
        }
        Ok(all)
    }
}

fn object(name: &'static str, value: String) -> Result<ObjectKey, QueryError> {
    match value.split_once('/') {
        Some((namespace, object)) if !namespace.is_empty() && !object.is_empty() => {
            Ok(ObjectKey::new(namespace, object))
        }
        _ => Err(QueryError::Object(name, value)),
    }
}

fn verdict(value: String) -> Result<Verdict, QueryError> {
    let all = [Verdict::Permitted, Verdict::Denied, Verdict::Failed];
    let found = all.into_iter().find(|verdict| verdict.as_str() == value);
    found.ok_or(QueryError::Verdict(value))
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn a_query_is_understood_or_refused_by_name() {
        let query = Query::parse(
            "namespace=shop&workload=shop%2Fweb&service=a/b&verdict=denied&status=5xx&layer=7&since=1h30m&last=9&follow=true",
        );
        let filter = Filter {
            namespace: Some("shop".into()),
            workload: Some(ObjectKey::new("shop", "web")),
            service: Some(ObjectKey::new("a", "b")),
            verdict: Some(Verdict::Denied),
            status: Some(Status::Class(5)),
            layer: Some(7),
        };
        let (since, last) = (Some(Duration::from_secs(5_400)), Some(9));
        assert_eq!(query, Ok(Query { filter, since, last, follow: true }));
        assert_eq!(Query::parse(""), Ok(Query::default()));
        for (query, said) in [
            ("workload=web", "namespace/name"),
            ("service=/web", "namespace/name"),
            ("verdict=dropped", "permitted, denied or failed"),
            ("status=6xx", "5xx"),
            ("status=99", "5xx"),
            ("layer=5", "4 or 7"),
            ("since=soon", "10m"),
            ("last=-1", "a number"),
            ("follow=yes", "true or false"),
            ("colour=red", "colour"),
        ] {
            let error = Query::parse(query).unwrap_err().to_string();
            assert!(error.contains(said), "{query}: {error}");
        }
    }
}
