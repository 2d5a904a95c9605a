//! What a client's place has to do with the endpoints that it gets (Istio, LocalityLoadBalancerSetting).

use crate::base::Str;

/// Which endpoints come first, or which share each place has.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum LocalityPolicy {
    /// All endpoints are equal.
    Off,
    /// By the first rule for the client's place; without one all endpoints are equal.
    Distribute(Vec<Distribute>),
    /// The nearest first; farther ones as far as these are ejected.
    Failover(Failover),
}

/// The shares for clients of some places. What no share names gets nothing.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Distribute {
    pub from: PlacePattern,
    /// The most specific first; shares are relative to each other.
    pub to: Vec<(PlacePattern, u32)>,
}

/// What makes an endpoint near.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Failover {
    /// Labels in which it must be like the client, or have this value. The more of the first ones, the nearer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<(Str, Option<Str>)>,
    /// Whether, among those equally near, region, zone and subzone count.
    pub by_place: bool,
    /// For clients of a region, the region that comes next.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<(Str, Str)>,
}

/// `region/zone/subzone`, of which the last parts may be missing, and each may be a star.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(into = "String")]
pub struct PlacePattern {
    /// `None`: any.
    parts: [Option<Str>; 3],
}

impl PlacePattern {
    pub fn of(text: &str) -> Self {
        let mut parts = text.splitn(3, '/');
        let region = parts.next().filter(|part| *part != "*").map(Str::from);
        let mut rest = || parts.next().filter(|part| !matches!(*part, "" | "*")).map(Str::from);
        Self { parts: [region, rest(), rest()] }
    }

    pub fn matches(&self, place: [&str; 3]) -> bool {
        let of_part = self.parts.iter().zip(place);
        of_part.into_iter().all(|(part, text)| part.as_ref().is_none_or(|part| part == text))
    }

    /// How many parts it gives.
    pub fn specific(&self) -> usize {
        self.parts.iter().flatten().count()
    }
}

impl From<PlacePattern> for String {
    fn from(pattern: PlacePattern) -> Self {
        pattern.parts.map(|part| part.unwrap_or(arcstr::literal!("*"))).join("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Istio's `LocalityMatch`.
    #[test]
    fn patterns_match_as_in_istio() {
        for (pattern, place, expected) in [
            ("*", ["r", "z", "s"], true),
            ("*", ["", "", ""], true),
            ("r", ["r", "z", "s"], true),
            ("r/*", ["r", "z", "s"], true),
            ("r/z", ["r", "z", "s"], true),
            ("r/z/*", ["r", "z", ""], true),
            ("r/z/s", ["r", "z", "s"], true),
            ("r/z/s", ["r", "z", ""], false),
            ("r/z", ["r", "y", "s"], false),
            ("r/*/s", ["r", "y", "s"], true),
            ("q", ["r", "z", "s"], false),
            ("", ["r", "z", "s"], false),
            ("", ["", "z", "s"], true),
        ] {
            assert_eq!(PlacePattern::of(pattern).matches(place), expected, "{pattern} {place:?}");
        }
        assert!(PlacePattern::of("r/z").specific() > PlacePattern::of("r/*").specific());
        assert_eq!(String::from(PlacePattern::of("r/z")), "r/z/*");
    }
}
