//! The connections that `GET /connections` shows.

use crate::base::ObjectKey;

/// The default number of rows.
const DEFAULT_LIMIT: usize = 1_000;
/// The most rows: some 10 MiB of JSON.
pub const MAX_CONNECTIONS_SHOWN: usize = 20_000;

/// The query of `/connections`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionFilter {
    /// Only connections of this workload.
    pub workload: Option<ObjectKey>,
    /// The oldest come first.
    pub limit: usize,
}

/// What is wrong with a query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("workload={0}: say namespace/name")]
    Workload(String),
    #[error("limit={0}: say a number from 1 to {MAX_CONNECTIONS_SHOWN}")]
    Limit(String),
    #[error("{0}: only workload and limit are understood")]
    Unknown(String),
}

impl Default for ConnectionFilter {
    fn default() -> Self {
        Self { workload: None, limit: DEFAULT_LIMIT }
    }
}

impl ConnectionFilter {
    /// `workload=namespace/name&limit=100`; the message says what is wrong.
    pub fn parse(query: &str) -> Result<Self, QueryError> {
        let mut filter = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "workload" => {
                    let (namespace, workload) = value
                        .split_once('/')
                        .filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
                        .ok_or_else(|| QueryError::Workload(value.to_string()))?;
                    filter.workload = Some(ObjectKey::new(namespace, workload));
                }
                "limit" => {
                    let limit =
                        value.parse().ok().filter(|it| (1..=MAX_CONNECTIONS_SHOWN).contains(it));
                    filter.limit = limit.ok_or_else(|| QueryError::Limit(value.to_string()))?;
                }
                other => return Err(QueryError::Unknown(other.to_owned())),
            }
        }
        Ok(filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_understood_or_refused_by_name() {
        let parse = ConnectionFilter::parse;
        assert_eq!(parse(""), Ok(ConnectionFilter::default()));
        let web = ConnectionFilter { workload: Some(ObjectKey::new("shop", "web")), limit: 7 };
        assert_eq!(parse("workload=shop%2Fweb&limit=7"), Ok(web));
        for (query, field) in [
            ("workload=web", "workload"),
            ("workload=/web", "workload"),
            ("limit=0", "limit"),
            ("limit=many", "limit"),
            ("limit=20001", "limit"),
            ("colour=red", "colour"),
        ] {
            assert!(parse(query).unwrap_err().to_string().contains(field), "{query}");
        }
    }
}
