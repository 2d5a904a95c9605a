//! Tokens of clients, and what an issuer's server answers.

use super::keys::MAX_KEYS;
use super::{Expected, Keys, KeysUri, Token, verify};

/// The key of RFC 7517, appendix A.1, with which nobody has signed what is tried.
const KEYS: &str = r#"{"keys": [{"kty": "EC", "crv": "P-256", "kid": "k",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

/// No token is valid without a signature.
pub fn token(data: &[u8]) {
    let (Ok(text), Ok(keys)) = (std::str::from_utf8(data), Keys::parse(KEYS)) else { return };
    let Ok(token) = Token::parse(text) else { return };
    _ = token.claims.at(["a", "b"]);
    let expected = Expected { issuer: &token.claims.issuer, audiences: &[], keys: Some(&keys) };
    assert!(verify(&token, &expected, 1_000_000_000).is_err(), "{text}");
}

/// However many keys there are, few are kept.
pub fn keys(data: &[u8]) {
    if let Ok(keys) = Keys::fetched(data) {
        assert!(keys.iter().count() <= MAX_KEYS);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        _ = KeysUri::parse(text);
    }
}
