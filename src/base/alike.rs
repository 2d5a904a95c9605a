//! Names of headers that an application may take for each other. Those that know headers as variables (RFC 3875, 4.1.18) read
//! `x_user` as `x-user`, so whoever guards one name guards all that are read alike.

use http::{HeaderMap, HeaderName};

/// The names are read alike.
pub fn is_alike(one: &str, other: &str) -> bool {
    let same = |(one, other): (u8, u8)| {
        one == other || !one.is_ascii_alphanumeric() && !other.is_ascii_alphanumeric()
    };
    one.len() == other.len() && one.bytes().zip(other.bytes()).all(same)
}

/// The names of fields that are read as `name`, each once.
pub fn alike<'h>(headers: &'h HeaderMap, name: &'h str) -> impl Iterator<Item = &'h HeaderName> {
    headers.keys().filter(move |one| is_alike(one.as_str(), name))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn names_that_become_one_variable_are_alike() {
        for (other, expected) in [
            ("x-user-id", true),
            ("x_user_id", true),
            ("x-user.id", true),
            ("x-user-i", false),
            ("x-user-id-", false),
            ("x-userxid", false),
            ("xxuser-id", false),
        ] {
            assert_eq!(is_alike("x-user-id", other), expected, "{other}");
        }
        let headers: HeaderMap = ["x-a", "x_a", "xa", "x-b"]
            .into_iter()
            .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1")))
            .collect();
        assert_eq!(alike(&headers, "x-a").collect::<Vec<_>>(), ["x-a", "x_a"]);
    }
}
